"""GGUFWriter: GGUF files for tests and tools. The same calls give the same bytes.

writer = GGUFWriter("tiny.gguf", "llama")
writer.add("llama.block_count", 2)
writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
writer.write()
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from corral.gguf.quants import quantize
from corral.gguf.source import MAGIC
from corral.gguf.types import GGMLType, ValueType

Value = bool | int | float | str | bytes | Sequence[Any] | NDArray[Any]

_OF_DTYPE = {np.dtype(type.format): type for type in ValueType if type.format}


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: GGMLType
    data: NDArray[np.uint8]


class GGUFWriter:
    """Collects metadata and tensors, in order, then writes them in one go, whole or in shards."""

    def __init__(
        self, path: str | Path, architecture: str | None = None, *, alignment: int = 32, version: int = 3
    ) -> None:
        self.path, self.alignment, self.version = Path(path), alignment, version
        self._keys: dict[str, bytes] = {}
        self._tensors: dict[str, _Tensor] = {}
        if architecture is not None:
            self.add("general.architecture", architecture)
        if alignment != 32:
            self.add("general.alignment", alignment)

    def add(self, key: str, value: Value, type: ValueType | None = None) -> None:
        """Set metadata `key`. `type` is that of the value, of an array's elements; without it: BOOL, STRING,
        FLOAT32, the first of UINT32, INT32, UINT64, INT64 that holds the value, or the dtype of a numpy
        array.

        Raises ValueError for a key given twice and for a value that is not of the type.
        """
        if key in self._keys:
            raise ValueError(f"metadata key {key!r} given twice")
        try:
            if isinstance(value, (list, tuple, np.ndarray)):
                self._keys[key] = _array(value, type)
            else:
                type = _infer([value]) if type is None else type
                self._keys[key] = struct.pack("<I", type) + _elements([value], type)
        except (struct.error, StopIteration, TypeError, AttributeError) as error:
            raise ValueError(
                f"metadata {key!r}: {value!r:.80} is no {type.name if type else 'value'}"
            ) from error

    def add_tensor(self, name: str, x: NDArray[np.float32], type: GGMLType = GGMLType.F32) -> None:
        """Add `x` float32, rows first, quantized to `type`."""
        self.add_raw(name, quantize(x, type), type, x.shape)

    def add_raw(self, name: str, data: NDArray[np.uint8], type: GGMLType, shape: Sequence[int]) -> None:
        """Add the bytes of a tensor of `shape`, rows first. ValueError if there are too few or too many."""
        if name in self._tensors:
            raise ValueError(f"tensor {name!r} given twice")
        if shape[-1] % type.block_size or data.size != type.nbytes(prod(shape)):
            raise ValueError(f"tensor {name!r}: {data.size} bytes are no {type.name} of shape {tuple(shape)}")
        self._tensors[name] = _Tensor(name, tuple(shape), type, data)

    def write(self, tensors_per_shard: int | None = None) -> list[Path]:
        """Write the file, or `STEM-00001-of-0000N.gguf` and on if `tensors_per_shard` is given; returns the
        paths.

        As with llama.cpp's gguf-split, the first shard has all metadata, the others only what makes them
        shards.
        """
        tensors = list(self._tensors.values())
        if tensors_per_shard is None:
            self._write_file(self.path, self._keys, tensors)
            return [self.path]
        starts = range(0, max(len(tensors), 1), tensors_per_shard)
        paths = []
        for number, start in enumerate(starts):
            keys = dict(self._keys) if number == 0 else {}
            if number and "general.alignment" in self._keys:
                keys["general.alignment"] = self._keys["general.alignment"]
            for key, value, type in (
                ("split.no", number, ValueType.UINT16),
                ("split.count", len(starts), ValueType.UINT16),
                ("split.tensors.count", len(tensors), ValueType.INT32),
            ):
                keys[key] = struct.pack("<I", type) + _elements([value], type)
            paths.append(self.path.with_name(f"{self.path.stem}-{number + 1:05}-of-{len(starts):05}.gguf"))
            self._write_file(paths[-1], keys, tensors[start : start + tensors_per_shard])
        return paths

    def _write_file(self, path: Path, keys: dict[str, bytes], tensors: list[_Tensor]) -> None:
        with path.open("wb") as file:
            file.write(MAGIC + struct.pack("<IQQ", self.version, len(tensors), len(keys)))
            for key, value in keys.items():
                file.write(_string(key) + value)
            offset = 0
            for tensor in tensors:
                dims = tensor.shape[::-1]
                file.write(_string(tensor.name))
                file.write(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type, offset))
                offset += -(-tensor.data.size // self.alignment) * self.alignment
            for tensor in tensors:
                self._pad(file)
                file.write(tensor.data.tobytes())
            self._pad(file)

    def _pad(self, file: BinaryIO) -> None:
        file.write(bytes(-file.tell() % self.alignment))


def _array(values: Sequence[Any] | NDArray[Any], type: ValueType | None) -> bytes:
    if type is None:
        type = _OF_DTYPE[values.dtype] if isinstance(values, np.ndarray) else _infer(values)
    return struct.pack("<IIQ", ValueType.ARRAY, type, len(values)) + _elements(values, type)


def _elements(values: Iterable[Any], type: ValueType) -> bytes:
    if type is ValueType.STRING:
        return b"".join(map(_string, values))
    if isinstance(values, np.ndarray):
        return values.astype(f"<{type.format}").tobytes()
    return b"".join(struct.pack(f"<{type.format}", value) for value in values)


def _infer(values: Sequence[Any]) -> ValueType:
    """The type of all `values`; an empty array is one of UINT32."""
    if any(isinstance(value, (str, bytes)) for value in values):
        return ValueType.STRING
    if values and all(isinstance(value, bool) for value in values):
        return ValueType.BOOL
    if any(isinstance(value, float) for value in values):
        return ValueType.FLOAT32
    low, high = min(values, default=0), max(values, default=0)
    candidates = {
        ValueType.UINT32: (0, 2**32),
        ValueType.INT32: (-(2**31), 2**31),
        ValueType.UINT64: (0, 2**64),
        ValueType.INT64: (-(2**63), 2**63),
    }
    return next(type for type, (least, end) in candidates.items() if least <= low and high < end)


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data
