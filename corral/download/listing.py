"""What is in the caches."""

from __future__ import annotations

import re
from pathlib import Path

from corral.download.choose import is_first_of_model, snapshots

TAG = re.compile(r"[-.]([A-Za-z0-9_]+)(?:-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)


def cached_models(hub_cache: Path, url_cache: Path) -> list[str]:
    """Models that are here: of the hub as --hf-repo takes them, from addresses as paths."""
    found = set()
    for folder in hub_cache.glob("models--*--*"):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        for snapshot in snapshots(hub_cache, repo):
            for path in snapshot.rglob("*.gguf"):
                tag = TAG.search(path.name)
                if path.is_file() and is_first_of_model(path.name):
                    found.add(f"{repo}:{tag[1].upper()}" if tag else repo)
    from_addresses = [
        str(path)
        for path in url_cache.glob("*/*.gguf")
        if path.with_name(path.name + ".source.json").exists() and is_first_of_model(path.name)
    ]
    return sorted(found) + sorted(from_addresses)


def report(models: list[str]) -> str:
    """In the words of llama-server."""
    lines = [f"{number:4}. {name}" for number, name in enumerate(models, 1)]
    return "\n".join([f"number of models in cache: {len(models)}", *lines]) + "\n"
