"""The header of one GGUF file, parsed with every number checked against the file before it is used.

Layout (all integers little-endian): magic, version u32, tensor count u64, key count u64; the keys (string,
type u32, value); the tensors (name string, number of dimensions u32, dimensions u64, innermost first, type
u32, offset u64 from the start of the data); padding to `general.alignment`; the data. A string is its length
u64 and its bytes; an array is the type of its elements u32, their number u64, and they.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np

from corral.errors import ModelFileError
from corral.gguf.metadata import LENGTH, ArrayRef, Metadata
from corral.gguf.types import REMOVED_TYPES, GGMLType, ValueType

VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4

# No real file comes near; they keep the time and memory for a hostile header small.
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_NAME_BYTES = 1 << 10

# The least that a key (length, a letter, type, a byte) and a tensor (length, a letter, dimensions, one
# dimension, type, offset) take.
_KEY_BYTES = 8 + 1 + 4 + 1
_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8

_U32 = Struct("<I")
_SCALARS = {type: Struct(f"<{type.format}") for type in ValueType if type.format}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor is and how to read it."""

    name: str
    shape: tuple[int, ...]
    """Rows first, as numpy has it: (O, I) for a linear; GGUF's own order is the reverse."""
    type: GGMLType
    shard: int
    """Index into GGUFFile.paths."""
    offset: int
    """Bytes from the start of that shard."""
    nbytes: int

    @property
    def n_elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    version: int
    alignment: int
    metadata: Metadata
    tensors: list[TensorInfo]


def parse_header(path: Path, source: mmap.mmap, shard: int) -> Header:
    """Parse the file mapped as `source`, which begins with the magic. Raises ModelFileError."""
    cursor = _Cursor(path, source)
    version = _version(path, cursor)
    n_tensors = cursor.count("number of tensors", _TENSOR_BYTES, MAX_TENSORS)
    n_keys = cursor.count("number of metadata keys", _KEY_BYTES, MAX_KEYS)
    metadata = Metadata(path, source)
    for index in range(n_keys):
        key = cursor.name(f"name of metadata key {index}")
        type = cursor.value_type(key)
        metadata.add(key, type, cursor.value(key, type))
    alignment = _alignment(path, metadata)
    unplaced = [_tensor(path, cursor, index, shard) for index in range(n_tensors)]
    data_start = -(-cursor.pos // alignment) * alignment
    tensors = [_placed(path, tensor, data_start, alignment) for tensor in unplaced]
    _check_layout(path, tensors, cursor.size)
    return Header(version, alignment, metadata, tensors)


def _version(path: Path, cursor: _Cursor) -> int:
    version: int = cursor.scalar(_U32, "version")
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in VERSIONS and swapped < 1 << 16 < version:
        raise ModelFileError(
            path, "byte order", "big-endian", "a little-endian file (convert it: gguf-convert-endian)"
        )
    if version not in VERSIONS:
        advice = "; convert the model again" if version < min(VERSIONS) else ""
        raise ModelFileError(path, "version", version, f"one of {', '.join(map(str, VERSIONS))}{advice}")
    return version


def _alignment(path: Path, metadata: Metadata) -> int:
    if "general.alignment" not in metadata:
        return DEFAULT_ALIGNMENT
    alignment = metadata.typed("general.alignment", int)
    if alignment < 8 or alignment & (alignment - 1):
        raise ModelFileError(path, "general.alignment", alignment, "a power of two, at least 8")
    return alignment


def _tensor(path: Path, cursor: _Cursor, index: int, shard: int) -> TensorInfo:
    """One entry of the tensor table; its offset is still relative to the data."""
    name = cursor.name(f"name of tensor {index}")
    n_dims = cursor.scalar(_U32, f"number of dimensions of {name}")
    if not 1 <= n_dims <= MAX_DIMS:
        raise ModelFileError(path, f"number of dimensions of {name}", n_dims, f"1 to {MAX_DIMS}")
    dims = tuple(cursor.scalar(LENGTH, f"dimension {d} of {name}") for d in range(n_dims))
    if 0 in dims:
        raise ModelFileError(path, f"shape of {name}", list(dims), "no dimension of 0")
    type_id = cursor.scalar(_U32, f"type of {name}")
    type = _tensor_type(path, name, type_id)
    if dims[0] % type.block_size:
        raise ModelFileError(
            path,
            f"shape of {name}",
            list(dims),
            f"a row length in blocks of {type.block_size}, as {type.name} has them",
        )
    offset = cursor.scalar(LENGTH, f"offset of {name}")
    return TensorInfo(name, dims[::-1], type, shard, offset, type.nbytes(prod(dims)))


def _tensor_type(path: Path, name: str, type_id: int) -> GGMLType:
    try:
        return GGMLType(type_id)
    except ValueError:
        pass
    if type_id in REMOVED_TYPES:
        old, new = REMOVED_TYPES[type_id]
        raise ModelFileError(
            path, f"type of {name}", f"{type_id} ({old})", f"a type still in use; quantize it to {new}"
        )
    known = ", ".join(f"{type.value} {type.name}" for type in GGMLType)
    raise ModelFileError(path, f"type of {name}", type_id, f"one of {known}")


def _placed(path: Path, tensor: TensorInfo, data_start: int, alignment: int) -> TensorInfo:
    if tensor.offset % alignment:
        raise ModelFileError(
            path, f"offset of {tensor.name}", tensor.offset, f"a multiple of the alignment {alignment}"
        )
    return TensorInfo(
        tensor.name, tensor.shape, tensor.type, tensor.shard, data_start + tensor.offset, tensor.nbytes
    )


def _check_layout(path: Path, tensors: list[TensorInfo], size: int) -> None:
    """Each tensor lies in the file, none on another, no name is there twice."""
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise ModelFileError(path, "tensor name", f"{tensor.name!r}, there twice", "each name once")
        names.add(tensor.name)
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise ModelFileError(
                path,
                f"offset of {tensor.name}",
                tensor.offset,
                f"at least {end}, where {before} ends; they overlap",
            )
        end, before = tensor.offset + tensor.nbytes, tensor.name
    if end > size:
        raise ModelFileError(
            path,
            "size",
            f"{size} bytes",
            f"{end} bytes, where {before} ends; {end - size} bytes are missing: truncated or damaged",
        )


class _Cursor:
    """A position in the file that only moves over what is there."""

    def __init__(self, path: Path, source: mmap.mmap) -> None:
        self.path, self.source, self.size, self.pos = path, source, len(source), 4

    def scalar(self, layout: Struct, field: str) -> Any:
        try:
            (value,) = layout.unpack_from(self.source, self.pos)
        except struct.error:
            raise self._truncated(field) from None
        self.pos += layout.size
        return value

    def count(self, field: str, least_bytes: int, most: int) -> int:
        """A number of things that take at least `least_bytes` each."""
        count: int = self.scalar(LENGTH, field)
        fits = (self.size - self.pos) // least_bytes
        if count > min(fits, most):
            reason = (
                f"what fits in the {self.size} bytes of the file"
                if fits < most
                else "more than any model has"
            )
            raise ModelFileError(
                self.path, field, count, f"at most {min(fits, most)} ({reason}); truncated or damaged"
            )
        return count

    def name(self, field: str) -> str:
        """A key or the name of a tensor."""
        text = self._string(field, MAX_NAME_BYTES)
        try:
            name = text.decode()
        except UnicodeDecodeError:
            raise ModelFileError(self.path, field, repr(text[:60]), "UTF-8") from None
        if not name:
            raise ModelFileError(self.path, field, "empty", "a name")
        if not name.isprintable():  # it goes into messages, logs and terminals
            raise ModelFileError(self.path, field, repr(name[:60]), "printable text")
        return name

    def value_type(self, key: str) -> ValueType:
        type_id: int = self.scalar(_U32, f"type of {key}")
        try:
            return ValueType(type_id)
        except ValueError:
            raise ModelFileError(
                self.path, f"type of {key}", type_id, f"a value type, 0 to {max(ValueType)}; damaged file?"
            ) from None

    def value(self, key: str, type: ValueType) -> Any:
        if type is ValueType.STRING:
            return self._string(key, self.size).decode("utf-8", "replace")
        if type is ValueType.ARRAY:
            return self._array(key)
        value = self.scalar(_SCALARS[type], key)
        if type is ValueType.BOOL and self.source[self.pos - 1] > 1:
            raise ModelFileError(self.path, key, f"the boolean {self.source[self.pos - 1]}", "0 or 1")
        return value

    def _array(self, key: str) -> ArrayRef:
        type = self.value_type(f"elements of {key}")
        if type is ValueType.ARRAY:
            raise ModelFileError(
                self.path, key, "an array of arrays", "an array of numbers, booleans or strings"
            )
        if type is ValueType.STRING:
            count = self.count(f"length of {key}", LENGTH.size, self.size)
            start = self.pos
            self._skip_strings(key, count)
        else:
            width = _SCALARS[type].size
            count = self.count(f"length of {key}", width, self.size)
            start = self.pos
            self.pos += count * width
        if type is ValueType.BOOL and np.frombuffer(self.source, np.uint8, count, start).max(initial=0) > 1:
            raise ModelFileError(self.path, key, "an array with a boolean above 1", "0 or 1")
        return ArrayRef(type, count, start, self.pos)

    def _string(self, field: str, most: int) -> bytes:
        length: int = self.scalar(LENGTH, f"length of {field}")
        left = self.size - self.pos
        if length > min(left, most):
            reason = (
                "what is left of the file; truncated or damaged" if left < most else "longer than any name"
            )
            raise ModelFileError(
                self.path,
                f"length of {field}",
                f"{length} bytes",
                f"at most {min(left, most)} ({reason})",
            )
        self.pos += length
        return self.source[self.pos - length : self.pos]

    def _skip_strings(self, key: str, count: int) -> None:
        """Walk over `count` strings, 262 k in 20 ms; a length that leads out of the file ends the walk."""
        source, pos, unpack = self.source, self.pos, LENGTH.unpack_from
        index = 0
        try:
            for index in range(count):  # noqa: B007
                pos += 8 + unpack(source, pos)[0]
        except (struct.error, OverflowError):
            pos = self.size + 1
        if pos > self.size:
            raise ModelFileError(
                self.path,
                f"string {index} of {key}",
                "beyond the end of the file",
                "inside it; truncated or damaged",
            )
        self.pos = pos

    def _truncated(self, field: str) -> ModelFileError:
        return ModelFileError(
            self.path,
            field,
            f"beyond the end of the file ({self.size} bytes)",
            "a whole file; this one is truncated",
        )
