"""Which files of a repository are the model that was asked for. The rules are llama-server's.

Needs nothing but the names, those of the hub's cache included.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from corral.errors import DownloadError

PREFERRED = ("Q4_K_M", "Q8_0")
"""Looked for in this order when no quantization is named; else the first file counts."""
SIDECARS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""In the name of a GGUF file that belongs to a model, but is none."""
SHARD = re.compile(r"^(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)
REVISION = "main"
COMMIT = re.compile("[0-9a-f]{40}")
MOST_SHARDS = 1000
MOST_NAMED = 12
"""Files that an error message lists."""
REPO = re.compile(r"[A-Za-z0-9_]+(?:[.-]+[A-Za-z0-9_]+)*")


def split_repo(text: str) -> tuple[str, str]:
    """`user/model:Q4_K_M` -> (`user/model`, `Q4_K_M`); the second is empty if none is named.

    Raises DownloadError.
    """
    repo, _, tag = text.partition(":")
    user, slash, model = repo.partition("/")
    if not (slash and REPO.fullmatch(user) and REPO.fullmatch(model) and len(repo) <= 256):
        raise DownloadError(f"{text[:300]!r} is not a repository, expected USER/MODEL or USER/MODEL:QUANT")
    return repo, tag


def choose(files: Sequence[str], tag: str, repo: str) -> list[str]:
    """The model's files among those of `repo`, the first shard first. Raises DownloadError."""
    models = sorted(name for name in files if is_first_of_model(name))
    for wanted in [tag] if tag else PREFERRED:
        pattern = re.compile(re.escape(wanted) + "[.-]", re.IGNORECASE)
        for name in models:
            if pattern.search(name):
                return shards(name, files, repo)
    if models and not tag:
        return shards(models[0], files, repo)
    if not models:
        raise DownloadError(f"{repo} has no GGUF file; it needs one in this format to be served")
    raise DownloadError(f"{repo} has no GGUF file of quantization {tag!r}; it has {_named(models)}")


def choose_file(files: Sequence[str], name: str, repo: str) -> list[str]:
    """The same for a file that is named, which may be any of the repository. Raises DownloadError."""
    if name not in files:
        models = sorted(file for file in files if is_first_of_model(file))
        raise DownloadError(f"{repo} has no file {name!r}; it has {_named(models) or 'no GGUF file'}")
    return shards(name, files, repo)


def shards(name: str, files: Sequence[str], repo: str) -> list[str]:
    """`name` and, if it is the first shard of a split model, all others. Raises DownloadError."""
    names = shard_names(name)
    missing = sorted(set(names) - set(files))
    if missing:
        raise DownloadError(
            f"{repo} lacks {len(missing)} of the {len(names)} shards of {name}: {_named(missing)}"
        )
    return names


def shard_names(name: str) -> list[str]:
    """All shards of the model that `name` is one of, in order; `name` alone if it is not split."""
    found = SHARD.match(name)
    if not found or not 1 <= int(found["count"]) <= MOST_SHARDS:
        return [name]
    count, end = int(found["count"]), name[-5:]
    return [f"{found['prefix']}-{number:05}-of-{count:05}{end}" for number in range(1, count + 1)]


def is_first_of_model(name: str) -> bool:
    """Whether it is a model's GGUF file, and of a split model the first."""
    base = name.rpartition("/")[2]
    found = SHARD.match(base)
    return (
        base.endswith(".gguf")
        and not any(word in base for word in SIDECARS)
        and (found is None or int(found["number"]) == 1)
    )


def snapshots(cache: Path, repo: str) -> list[Path]:
    """The revisions of `repo` in the hub's cache, the one that was last asked for first."""
    folder = cache / ("models--" + repo.replace("/", "--"))
    current = ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        current = (folder / "refs" / REVISION).read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        found = [path for path in (folder / "snapshots").iterdir() if COMMIT.fullmatch(path.name)]
        return sorted(found, key=lambda path: (path.name != current, -path.stat().st_mtime))
    return []


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
