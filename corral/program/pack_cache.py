"""--pack-cache: packed weights in a file that later starts map, and processes share.

    DIR/<key>.weights          a page of header, then the packed weights
    DIR/<identity>.digest      the digest of a model file's content, so that it need not be read again

The key is a digest of the model's content and of the layout: which matrices, how this version and these
kernels pack. A model file's content is read and digested once; afterwards its inode, size, and times of
modification and of change stand for it, as in git's index: nobody can change a file and set its change time
back. A digest is not kept if the file changed in the last seconds, when times are too coarse.

A file is written under another name, synced and renamed; who finds it checks its length, its header's own
digest, and one page in so many. The whole is read beside the first requests (`PackCache.check`): should its
digest not be the one in the header, it is removed, and the engine starts again without it. What changes it
later still, or stands in for it on purpose, gives wrong weights, never a wild read. The folder may be deleted
at any time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corral import __version__
from corral.errors import Unavailable

MAGIC = b"corral packed\n\x02\x00"
HEADER_BYTES = 4096
"""A page: what follows it can be mapped as it is."""
_FIELDS = struct.Struct("<16sQ32s32s32s")
"""Magic, bytes of the weights, key, digests of the sampled pages and of all; the digest of these follows."""
SAMPLES = 64
PIECE_BYTES = 64 << 20
"""Of a model file or of the weights, that is digested by one thread."""
WRITE_BYTES = 8 << 20
LEAST_PRIORITY = 19
"""setpriority(2)"""
SETTLED_NS = 3_000_000_000
STALE_SECONDS = 60


class _Found(NamedTuple):
    """A file that is mapped."""

    path: Path
    inode: int
    packed: NDArray[np.uint8]
    digest: bytes
    """That it should have."""


def digest(*parts: bytes) -> bytes:
    """Of byte strings, each with its length."""
    hash = blake2b(digest_size=32)
    for part in parts:
        hash.update(struct.pack("<Q", len(part)) + part)
    return hash.digest()


class PackCache:
    """The packed weights that `folder` has of the model in `sources`, its files in order."""

    def __init__(self, folder: Path, sources: Sequence[Path], threads: int = 1) -> None:
        self.folder, self.sources, self.threads = folder, tuple(sources), threads
        self.notes: list[str] = []
        """What to tell the user: why nothing was found or kept, if that is not as it should be."""
        self._found: _Found | None = None

    def path(self, layout: bytes) -> Path:
        """Where the weights of this layout (a digest) are or would be. Reads the model, if it must.

        Raises OSError if the model can't be read.
        """
        contents = [self._content(source) for source in self.sources]
        return self.folder / f"{digest(__version__.encode(), layout, *contents).hex()[:40]}.weights"

    def find(self, layout: bytes, size: int) -> NDArray[np.uint8] | None:
        """The weights, `size` bytes, read-only and mapped while the array lives; None if there are none.

        A file that is not what it should be is left alone, and told of in `notes`.
        """
        try:
            path = self.path(layout)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.notes.append(f"--pack-cache {self.folder}: can't read: {error.strerror}; packing as usual")
            return None
        try:
            packed, wanted = _mapped(fd, size, path.stem.encode())
            self._found = _Found(path, os.fstat(fd).st_ino, packed, wanted)
            return packed
        except (OSError, ValueError) as error:
            self.notes.append(f"--pack-cache: {path} is not used: {error}; packing as usual")
            return None
        finally:
            os.close(fd)

    def check(self) -> None:
        """Read all that was found, which may take as long as it likes: the thread gives way to all others.

        Raises Unavailable if it is not what was packed; the file is removed, if that is allowed.
        """
        found = self._found
        if found is None:
            return
        # the GIL is asked for once a piece: who has it must not be kept from the CPU for long
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
        if weights_digest(found.packed) == found.digest:
            return
        try:
            if found.path.stat().st_ino == found.inode:  # else somebody has put another in its place
                found.path.unlink()
            done = "removed"
        except FileNotFoundError:
            done = "removed"
        except OSError as error:
            done = f"remove it, as this user can't: {error.strerror}"
        raise Unavailable(f"--pack-cache: {found.path} does not hold what was packed any more: {done}")

    def keep(self, layout: bytes, packed: NDArray[np.uint8], progress: Callable[[float], None]) -> bool:
        """Write the weights; whether they are there now. A failure is a note."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._tidy()
            path = self.path(layout)
            with self._replacing(path) as fd:
                _write(fd, path.stem.encode(), packed, weights_digest(packed, self.threads), progress)
            return True
        except OSError as error:
            self.notes.append(
                f"--pack-cache {self.folder}: can't keep {-(-packed.nbytes >> 20)} MiB of packed weights: "
                f"{error.strerror}; going on without"
            )
            return False

    def _content(self, source: Path) -> bytes:
        """The digest of a file's content, from the folder if the file is as it was."""
        before = source.stat()
        known = self.folder / f"{_identity(before).hex()[:40]}.digest"
        with contextlib.suppress(OSError, ValueError):
            with known.open("rb") as file:
                found = bytes.fromhex(file.read(100).decode("ascii").strip())
            if len(found) == 32:
                return found
        found = content_digest(source, self.threads)
        settled = time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > SETTLED_NS
        if settled and _identity(source.stat()) == _identity(before):
            # a folder that can't be written to is told of when the weights are to be kept
            with contextlib.suppress(OSError), self._replacing(known) as fd:
                os.write(fd, found.hex().encode() + b"\n")
        return found

    @contextlib.contextmanager
    def _replacing(self, path: Path) -> Iterator[int]:
        """A new file, locked while it is written, that takes the place of `path` if all goes well."""
        fd, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=self.folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield fd
            os.fchmod(fd, 0o644)
            os.fsync(fd)
            os.rename(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        finally:
            os.close(fd)
        _sync_folder(self.folder)

    def _tidy(self) -> None:
        """Remove what processes that were killed left half written: nobody has it locked."""
        for part in self.folder.glob("*.part"):
            with contextlib.suppress(OSError):
                fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
                try:
                    if time.time() - os.fstat(fd).st_mtime > STALE_SECONDS:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(part)
                finally:
                    os.close(fd)


def content_digest(path: Path, threads: int = 1) -> bytes:
    """Of all of a file, read with some threads; OSError if it can't be read, or shrinks."""
    size = path.stat().st_size

    def piece(start: int) -> bytes:
        hash, left = blake2b(digest_size=32), min(PIECE_BYTES, size - start)
        buffer = memoryview(bytearray(min(1 << 20, left)))
        while left:
            count = os.preadv(file.fileno(), [buffer[:left]], start)
            if count == 0:
                raise OSError(errno.EIO, f"{path} ends before its {size} bytes")
            hash.update(buffer[:count])
            start, left = start + count, left - count
        return hash.digest()

    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(max(1, threads)) as pool:
        return digest(struct.pack("<Q", size), *pool.map(piece, range(0, size, PIECE_BYTES)))


def weights_digest(packed: NDArray[np.uint8], threads: int = 1) -> bytes:
    """Of all packed weights, with some threads."""

    def piece(start: int) -> bytes:
        return blake2b(packed.data[start : start + PIECE_BYTES], digest_size=32).digest()

    starts = range(0, packed.size, PIECE_BYTES)
    if threads <= 1:
        return digest(*map(piece, starts))
    with ThreadPoolExecutor(threads) as pool:
        return digest(*pool.map(piece, starts))


def _identity(status: os.stat_result) -> bytes:
    # without the device: its number depends on the order of mounts
    numbers = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return digest(struct.pack("<4q", *(number & (2**63 - 1) for number in numbers)))


def _samples(packed: NDArray[np.uint8]) -> bytes:
    """The digest of pages from the first to the last, evenly apart."""
    pages = np.linspace(0, max(0, packed.size // 4096 - 1), SAMPLES).astype(np.int64)
    return digest(*(packed[4096 * page : 4096 * (page + 1)].tobytes() for page in np.unique(pages)))


def _header(key: bytes, packed: NDArray[np.uint8], whole: bytes) -> bytes:
    fields = _FIELDS.pack(MAGIC, packed.size, digest(key), _samples(packed), whole)
    return (fields + digest(fields)).ljust(HEADER_BYTES, b"\0")


def _mapped(fd: int, size: int, key: bytes) -> tuple[NDArray[np.uint8], bytes]:
    """The weights in an open file, and the digest that they should have.

    Raises ValueError, with what is wrong, or OSError.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    if status.st_size != HEADER_BYTES + size:
        raise ValueError(f"it has {status.st_size} bytes, expected {HEADER_BYTES + size}")
    mapped = mmap.mmap(fd, HEADER_BYTES + size, mmap.MAP_SHARED, mmap.PROT_READ)
    packed = np.frombuffer(mapped, np.uint8, size, HEADER_BYTES)
    whole: bytes = _FIELDS.unpack_from(mapped)[-1]
    if mapped[:HEADER_BYTES] != _header(key, packed, whole):
        raise ValueError("its header does not match what it holds")
    return packed, whole


def _write(
    fd: int, key: bytes, packed: NDArray[np.uint8], whole: bytes, progress: Callable[[float], None]
) -> None:
    try:
        os.posix_fallocate(fd, 0, HEADER_BYTES + packed.size)  # a full disk is noticed now
    except OSError as error:
        if error.errno not in _NO_FALLOCATE:
            raise
    _write_all(fd, memoryview(_header(key, packed, whole)))
    data = packed.data
    for start in range(0, packed.size, WRITE_BYTES):
        _write_all(fd, data[start : start + WRITE_BYTES])
        progress(min(1.0, (start + WRITE_BYTES) / packed.size))


_NO_FALLOCATE = {errno.EOPNOTSUPP, errno.EINVAL}
"""The file system has no such call."""


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems can't; the file itself is synced
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
