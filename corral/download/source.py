"""What a file was downloaded from: a small JSON file beside it, for the next time."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec


class Source(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where the bytes of a file come from, and how to know them again."""

    url: str
    """Without its query, which may be a signature that expires, and without a password."""
    etag: str = ""
    """As the server sent it, with its quotes; empty if it sent none."""
    size: int | None = None
    sha256: str = ""
    """Of the whole file; empty while it is not complete."""


def strong(source: Source) -> bool:
    """Whether equal etags mean equal bytes, so that parts can be put together."""
    return source.etag.startswith('"')


def path_of(path: Path) -> Path:
    """Of the note beside the file `path`."""
    return path.with_name(path.name + ".source.json")


def read(path: Path) -> Source | None:
    """The note beside `path`; None if there is none that makes sense."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path_of(path).read_bytes(), type=Source)
    return None


def write(path: Path, source: Source) -> None:
    """Raises OSError."""
    target = path_of(path)
    scratch = target.with_name(target.name + ".new")
    scratch.write_bytes(msgspec.json.encode(source))
    scratch.replace(target)


def forget(path: Path) -> None:
    """Removes `path` and the note beside it."""
    for each in (path, path_of(path)):
        each.unlink(missing_ok=True)
