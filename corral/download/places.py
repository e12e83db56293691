"""Where downloads are kept, and what can go wrong with that."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from corral.download.progress import amount
from corral.errors import DownloadError

CHUNK = 1 << 20
SPARE_BYTES = 16 << 20
"""Left on a disk that a download would fill to the brim."""


def url_path(url: str, cache: str, output: str | None) -> Path:
    """Where the file at `url` goes: to `output`, a .gguf file or a folder, or into the cache.

    In the cache, addresses of one folder share one: the shards of a model are side by side, and
    files of one name from elsewhere are not mixed up. Raises DownloadError.
    """
    parts = urlsplit(url)
    name = unquote(parts.path).rpartition("/")[2]
    if name in ("", ".", "..") or "\0" in name or len(os.fsencode(name)) > 200:
        raise DownloadError(f"{url}: expected an address that ends in the name of a file")
    if output is None:
        folder = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rpartition('/')[0]}"
        digest = hashlib.sha256(folder.encode()).hexdigest()[:8]
        return Path(cache) / f"{parts.hostname}-{digest}" / name
    if output.endswith(".gguf"):
        return Path(output)
    return Path(output) / name


def make_folder(folder: Path) -> None:
    """Creates it, or says why that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(cant_write(folder, error)) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DownloadError(cant_write(folder, PermissionError(errno.EACCES, "no permission")))


def check_space(folder: Path, size: int, name: str) -> None:
    """Raises DownloadError if `size` more bytes do not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if size + SPARE_BYTES > free:
        raise DownloadError(f"{name} needs {amount(size)} more in {folder}, where {amount(free)} are free")


def cant_write(path: Path, error: OSError) -> str:
    """One line about a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {path} is full ({error.strerror}); free some space and start again"
    hint = ""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        hint = f" (uid {os.getuid()}); mount a volume that it may write, and set LLAMA_CACHE to its path"
    return f"can't write to {path}: {error.strerror or error}{hint}"


def file_sha256(path: Path) -> str:
    """In hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
