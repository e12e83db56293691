"""GGUFFile: a memory-mapped model file, of one piece or split in shards."""

from __future__ import annotations

import contextlib
import errno
import mmap
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from corral.errors import ModelFileError
from corral.gguf.header import Header, TensorInfo, parse_header
from corral.gguf.metadata import Metadata
from corral.gguf.source import map_file
from corral.gguf.types import MetadataValue

__all__ = ["GGUFFile", "TensorInfo"]

T = TypeVar("T")
D = TypeVar("D")

READ_BYTES = 4 << 20
"""A read that is large for any network file system."""

_SHARD_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
MADV_POPULATE_READ = 22
"""linux/mman.h; Linux 5.14 and newer."""
_ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class _Shard:
    path: Path
    source: mmap.mmap
    header: Header


class GGUFFile:
    """Metadata and tensors of a GGUF file, versions 2 and 3, little-endian.

    A split file is opened by its first shard and looks as if it were one. Everything the header says is
    checked when the file is opened, so what it names lies inside it. Every failure is a ModelFileError.
    """

    def __init__(self, shards: list[_Shard]) -> None:
        first = shards[0]
        self._sources = [shard.source for shard in shards]
        self.path: Path = first.path
        self.paths: tuple[Path, ...] = tuple(shard.path for shard in shards)
        self.version: int = first.header.version
        self.alignment: int = first.header.alignment
        self.metadata: Metadata = first.header.metadata
        self.replaced: dict[str, Any] = {}
        """Keys whose value is not the file's -> what the file has, None if it has no such key."""
        self._held: dict[str, NDArray[np.uint8]] = {}
        self.in_order = False
        """Whether `read_ahead` does anything: page faults are slow where the file is."""
        self.tensors: dict[str, TensorInfo] = {}
        for shard in shards:
            for tensor in shard.header.tensors:
                if tensor.name in self.tensors:
                    other = self.paths[self.tensors[tensor.name].shard]
                    raise ModelFileError(
                        shard.path, "tensor name", f"{tensor.name!r}, also in {other}", "each name once"
                    )
                self.tensors[tensor.name] = tensor

    @classmethod
    def open(
        cls, path: str | Path, overrides: Callable[[str], Mapping[str, MetadataValue]] = lambda _arch: {}
    ) -> GGUFFile:
        """Map and check the file at `path`, and the further shards if it is the first of several.

        `overrides` gives the metadata values to take instead of the file's, for the architecture it is told.
        """
        shards: list[_Shard] = []
        try:
            shards.append(_open_shard(Path(path), 0))
            further = _further_shards(shards[0])
            for index, shard_path in enumerate(further, start=1):
                shards.append(_open_shard(shard_path, index))
                _expect(shards[-1], "split.no", index)
                _expect(shards[-1], "split.count", len(further) + 1)
            file = cls(shards)
            if further and "split.tensors.count" in file.metadata:
                _expect(shards[0], "split.tensors.count", len(file.tensors))
            architecture = file.metadata.get("general.architecture")  # whatever it is: info shows it
            for key, value in overrides(str(architecture)).items():
                file.replaced[key] = file.metadata.replace(key, value)
        except BaseException:
            for shard in shards:
                shard.source.close()
            raise
        return file

    @property
    def architecture(self) -> str:
        """`general.architecture`, as "llama": a word, as keys and modules are named after it."""
        name = self.require("general.architecture", str)
        if not _ARCHITECTURE.fullmatch(name):
            raise ModelFileError(self.path, "general.architecture", repr(name), "a word, as llama or gpt-oss")
        return name

    def get(self, key: str, type: type[T], default: D) -> T | D:
        """Metadata `key` as `type` (see Metadata.typed) or `default`; ModelFileError if it is of another
        type."""
        return self.metadata.typed(key, type) if key in self.metadata else default

    def require(self, key: str, type: type[T]) -> T:
        """Metadata `key` as `type`; ModelFileError if it is missing or of another type."""
        return self.metadata.typed(key, type)

    def raw_strings(self, key: str) -> list[bytes]:
        """Metadata `key`, an array of strings, as the bytes in the file (tokens need not be UTF-8)."""
        return self.metadata.raw_strings(key)

    def data(self, name: str) -> NDArray[np.uint8]:
        """The bytes of tensor `name`: uint8 [nbytes], a read-only view that keeps the mapping alive."""
        if name in self._held:
            return self._held[name]
        tensor = self.tensors[name]
        return np.frombuffer(self._sources[tensor.shard], np.uint8, tensor.nbytes, tensor.offset)

    def hold(self, name: str) -> None:
        """Copy tensor `name` into memory: from now on its `data` does not depend on the file."""
        if name not in self._held:
            self.read_ahead(name)
            held = self.data(name).copy()
            held.flags.writeable = False
            self.drop_pages(name)
            self._held[name] = held

    def read_ahead(self, name: str) -> None:
        """Read tensor `name` from its first byte to its last, so that touching it waits for no page, if
        `in_order` is set. An error is left to the page fault that will meet it."""
        if not self.in_order or name in self._held:
            return
        tensor = self.tensors[name]
        buffer = memoryview(bytearray(min(READ_BYTES, tensor.nbytes)))
        with contextlib.suppress(OSError), self.paths[tensor.shard].open("rb", buffering=0) as file:
            file.seek(tensor.offset)
            left = tensor.nbytes
            while left > 0 and (count := file.readinto(buffer[:left])):
                left -= count

    def load_pages(self, name: str, start: int, stop: int) -> None:
        """Map bytes [start, stop) of tensor `name`, with what follows on its way: one call instead of a page
        fault for each few pages.

        Raises ModelFileError if they can't be read, as when the file became shorter.
        """
        if name in self._held:
            return
        tensor = self.tensors[name]
        source = self._sources[tensor.shard]
        first = (tensor.offset + start) // mmap.PAGESIZE * mmap.PAGESIZE
        end = tensor.offset + stop
        with contextlib.suppress(OSError):
            ahead = end // mmap.PAGESIZE * mmap.PAGESIZE
            source.madvise(mmap.MADV_WILLNEED, ahead, min(stop - start, len(source) - ahead))
        try:
            source.madvise(MADV_POPULATE_READ, first, end - first)
        except OSError as error:
            if error.errno in (errno.EFAULT, errno.EIO):
                raise ModelFileError(
                    self.paths[tensor.shard], f"data of {name}", "unreadable", "all bytes of the file"
                ) from None
            # an old kernel: pages come one by one

    def drop_pages(self, name: str, start: int = 0, stop: int | None = None) -> None:
        """Give the memory of bytes [start, stop) of tensor `name` back; touching it again reads it from the
        file again."""
        if name in self._held:
            return
        tensor = self.tensors[name]
        first = (tensor.offset + start) // mmap.PAGESIZE * mmap.PAGESIZE
        end = tensor.offset + (tensor.nbytes if stop is None else stop)
        if end > first:
            self._sources[tensor.shard].madvise(mmap.MADV_DONTNEED, first, end - first)

    def close(self) -> None:
        """Unmap the file, or let it go with the last view of its data. Metadata once read stays usable."""
        for source in self._sources:
            with contextlib.suppress(BufferError):  # a view is alive
                source.close()

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _open_shard(path: Path, index: int) -> _Shard:
    source = map_file(path)
    try:
        return _Shard(path, source, parse_header(path, source, index))
    except BaseException:
        source.close()
        raise


def _further_shards(first: _Shard) -> list[Path]:
    """The paths of the second shard and on; none if the file is not split."""
    metadata, path = first.header.metadata, first.path
    count = metadata.typed("split.count", int) if "split.count" in metadata else 1
    if count <= 1:
        return []
    name = _SHARD_NAME.fullmatch(path.name)
    if name is None or int(name["count"]) != count:
        raise ModelFileError(
            path,
            "file name",
            path.name,
            f"NAME-00001-of-{count:05}.gguf, as split.count says {count}; was it renamed?",
        )
    paths = [
        path.with_name(f"{name['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)
    ]
    if metadata.typed("split.no", int) != 0 or int(name["number"]) != 1:
        raise ModelFileError(
            path, "split.no", metadata["split.no"], f"0: open the first shard, {paths[0].name}"
        )
    missing = [shard.name for shard in paths if not shard.exists()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelFileError(
            path, "shard", f"{missing[0]}{more} missing", f"all {count} shards in one folder"
        )
    return paths[1:]


def _expect(shard: _Shard, key: str, value: int) -> None:
    found = shard.header.metadata.typed(key, int)
    if found != value:
        raise ModelFileError(shard.path, key, found, f"{value}; the shards do not belong together")
