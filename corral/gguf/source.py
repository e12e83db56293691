"""From a path to mapped bytes, and the things that are found there instead of a GGUF file."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from corral.errors import ModelFileError

MAGIC = b"GGUF"

# What the first bytes of the usual wrong files look like -> what to say, and what to do.
_IMPOSTORS: tuple[tuple[bytes, str, str], ...] = (
    (b"<!doctype html", "an HTML page", "the model file itself; use the link that downloads the raw file"),
    (b"<html", "an HTML page", "the model file itself; use the link that downloads the raw file"),
    (b"<?xml", "an XML document", "the model file itself; the server it came from sent an error"),
    (b"version https://git-lfs", "a git-lfs pointer", "the file it stands for; run `git lfs pull`"),
    (
        b"{",
        "JSON text",
        "the model file itself; the server it came from sent an error, or it is a configuration",
    ),
    (b"pk\x03\x04", "a zip archive or PyTorch checkpoint", "a GGUF file; convert the model first"),
    (b"\x1f\x8b", "a gzip archive", "a GGUF file; unpack it first"),
    (b"\xfd7zxz", "an xz archive", "a GGUF file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "a GGUF file; unpack it first"),
    (b"lmgg", "a GGML file from before GGUF", "a GGUF file; get or convert a newer one"),
    (b"fmgg", "a GGML file from before GGUF", "a GGUF file; get or convert a newer one"),
    (b"tjgg", "a GGML file from before GGUF", "a GGUF file; get or convert a newer one"),
    (b"\x08\x00\x00\x00tfl3", "a TensorFlow Lite file", "a GGUF file"),
)


def map_file(path: Path) -> mmap.mmap:
    """Map the file at `path`, read-only.

    Raises ModelFileError if it is no readable, non-empty regular file that begins as a GGUF file does.
    """
    try:
        status = path.stat()
        _check_kind(path, status)
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _cannot_open(path, error) from None
    try:
        mapped = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # it shrank between the two calls, or its file system can't map it
        raise ModelFileError(
            path, "file", f"not mappable ({error})", "a file on a file system with mmap"
        ) from None
    finally:
        os.close(fd)
    if mapped[:4] != MAGIC:
        head = mapped[:512]
        mapped.close()
        raise _wrong_magic(path, head)
    return mapped


def _check_kind(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ModelFileError(path, "file", "a folder", f"the path of a .gguf file{_holds(path)}")
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(path, "file", "no regular file", "the path of a .gguf file")
    if status.st_size == 0:
        raise ModelFileError(
            path, "file", "empty (0 bytes)", "a GGUF file; the download did not begin or the disk is full"
        )


def _cannot_open(path: Path, error: OSError) -> ModelFileError:
    if isinstance(error, PermissionError):
        return ModelFileError(path, "file", *_permissions(path))
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        if path.is_symlink():
            return ModelFileError(
                path, "file", f"a link to {os.readlink(path)}, which is missing", "a GGUF file"
            )
        nearest = next((p for p in path.parents if p.is_dir()), path.parent)
        if nearest == path.parent:
            where = f"; {nearest} is there{_holds(nearest)}"
        else:
            where = f"; {nearest} exists, what follows it does not"
        return ModelFileError(
            path, "file", "missing", f"an existing GGUF file (mounted into the container?){where}"
        )
    return ModelFileError(path, "file", f"unreadable ({error.strerror})", "a readable GGUF file")


def _holds(folder: Path) -> str:
    """The models in a folder, for the end of a message."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return ""
    models = [name for name in names if name.endswith(".gguf")]
    if models:
        return f" (it holds {', '.join(models[:3])}{', ...' if len(models) > 3 else ''})"
    return " (it holds no .gguf file)" if names else " (it is empty)"


def _permissions(path: Path) -> tuple[str, str]:
    """What is wrong and what would be right, of the file or the first folder that does not let us through."""
    steps = (*reversed(path.parents), path)
    barred = next((step for step in steps if not _can_stat(step)), None)
    which = path if barred is None else barred.parent
    status = which.stat()
    what = "not permitted" if which == path else f"behind the closed folder {which}"
    mode = f"{what} (mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}:{status.st_gid})"
    bits = "a+r" if which == path else "a+rx"
    return mode, (
        f"a file that uid {os.geteuid()} gid {os.getegid()} may read: chmod {bits} {which}, "
        f"or run as its owner (docker run --user {status.st_uid}:{status.st_gid})"
    )


def _can_stat(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return False
    return True


def _wrong_magic(path: Path, head: bytes) -> ModelFileError:
    if len(head) < 4 and MAGIC.startswith(head):
        return ModelFileError(path, "file", f"truncated after {len(head)} bytes", "a whole GGUF file")
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    start = begin.lower()
    for prefix, name, expected in _IMPOSTORS:
        if start.startswith(prefix):
            return ModelFileError(path, "file", name, expected)
    if head[8:10] == b'{"':
        return ModelFileError(path, "file", "a safetensors file", "a GGUF file; convert the model first")
    if start and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        text = begin.split(b"\n")[0].decode().strip()
        return ModelFileError(
            path, "file", f"text ({text[:60]!r})", "the model file itself, not a message about it"
        )
    if not any(head):
        return ModelFileError(
            path, "magic", "zeros", "'GGUF'; the download was reserved on disk but not filled"
        )
    return ModelFileError(path, "magic", repr(head[:4]), "b'GGUF'")
