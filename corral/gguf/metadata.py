"""The metadata of a GGUF file: a mapping from key to value whose arrays are decoded when first asked for."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, TypeVar

import numpy as np

from corral.errors import ModelFileError
from corral.gguf.types import MetadataValue, ValueType

T = TypeVar("T")

LENGTH = Struct("<Q")

_INTEGERS = frozenset(type for type in ValueType if type.format and type.format in "BbHhIiQq")
_FLOATS = frozenset({ValueType.FLOAT32, ValueType.FLOAT64})

# Python type asked for -> the types in the file that it takes, and how to call them.
_TYPED: Mapping[type, tuple[frozenset[ValueType], str]] = {
    int: (_INTEGERS, "an integer"),
    float: (_INTEGERS | _FLOATS, "a number"),
    bool: (frozenset({ValueType.BOOL}), "a boolean"),
    str: (frozenset({ValueType.STRING}), "a string"),
    list: (frozenset({ValueType.ARRAY}), "an array"),
    np.ndarray: (frozenset({ValueType.ARRAY}), "an array of numbers"),
}

# Type of a replacement -> its type as if it stood in the file, and the types in the file that it may replace.
_REPLACEMENTS: Mapping[type, tuple[ValueType, frozenset[ValueType]]] = {
    int: (ValueType.INT64, _INTEGERS | _FLOATS),
    float: (ValueType.FLOAT64, _FLOATS),
    bool: (ValueType.BOOL, frozenset({ValueType.BOOL})),
    str: (ValueType.STRING, frozenset({ValueType.STRING})),
}


@dataclass(frozen=True)
class ArrayRef:
    """An array whose elements lie in [start, end) of the file: checked to be inside it, not yet decoded."""

    type: ValueType
    count: int
    start: int
    end: int


class Metadata(Mapping[str, Any]):
    """Keys, in the order of the file -> int, float, bool, str; read-only numpy array or list of str.

    Text that is no UTF-8 comes with U+FFFD in place of what is wrong; `raw_strings` has the bytes.
    """

    def __init__(self, path: Path, source: mmap.mmap) -> None:
        self._path, self._source = path, source
        self._types: dict[str, ValueType] = {}
        self._arrays: dict[str, ArrayRef] = {}
        self._values: dict[str, Any] = {}

    def add(self, key: str, type: ValueType, value: Any) -> None:
        """For the parser: one more key; arrays come as an ArrayRef."""
        if key in self._types:
            raise ModelFileError(self._path, "metadata key", f"{key!r}, there twice", "each key once")
        self._types[key] = type
        (self._arrays if type is ValueType.ARRAY else self._values)[key] = value

    def replace(self, key: str, value: MetadataValue) -> Any:
        """Take `value` from now on, whether the file has the key or not; returns what was there, or None.

        Raises ModelFileError if what the file has is of another type: nobody could read the new one.
        """
        type, replaceable = _REPLACEMENTS[value.__class__]
        if key not in self._types:
            self._types[key] = type
        elif self._types[key] not in replaceable:
            expected = next(name for types, name in _TYPED.values() if self._types[key] in types)
            expected += f", as in the file: {self._shown(key)}"
            raise ModelFileError(self._path, key, f"overridden with {value!r}", expected)
        before = self._values.get(key)
        self._values[key] = value
        return before

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            self._values[key] = self._decode(self._arrays[key])
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def __contains__(self, key: object) -> bool:
        return key in self._types

    def value_type(self, key: str) -> ValueType:
        """The type of a value as the file says it; ARRAY for arrays."""
        return self._types[key]

    def array_type(self, key: str) -> tuple[ValueType, int]:
        """Type and number of the elements of an array, without decoding it. ModelFileError if it is none."""
        if key not in self._arrays:
            found = self._shown(key) if key in self._types else "missing"
            raise ModelFileError(self._path, key, found, "an array")
        ref = self._arrays[key]
        return ref.type, ref.count

    def array_length(self, key: str) -> int:
        """Number of the elements of an array; 0 if the key is missing. ModelFileError if it is none."""
        return self.array_type(key)[1] if key in self else 0

    def raw_strings(self, key: str) -> list[bytes]:
        """The strings of an array as the bytes they are in the file."""
        if key not in self._types:
            raise ModelFileError(self._path, key, "missing", "an array of strings")
        ref = self._arrays.get(key)
        if ref is None or ref.type is not ValueType.STRING:
            raise ModelFileError(self._path, key, self._shown(key), "an array of strings")
        return self._strings(ref)

    def _strings(self, ref: ArrayRef) -> list[bytes]:
        # One pass over a private copy: no checks, as the parser has walked it and found it inside.
        source, pos, unpack = self._source[ref.start : ref.end], 0, LENGTH.unpack_from
        strings: list[bytes] = []
        append = strings.append
        for _ in range(ref.count):
            start = pos + 8
            pos = start + unpack(source, pos)[0]
            append(source[start:pos])
        return strings

    def typed(self, key: str, type: type[T]) -> T:
        """The value of `key` as int, float (or int), bool, str, list (any array) or np.ndarray (of numbers).

        Raises ModelFileError if the key is missing or of another type.
        """
        accepted, expected = _TYPED[type]
        if key not in self._types:
            raise ModelFileError(self._path, key, "missing", expected)
        strings = key in self._arrays and self._arrays[key].type is ValueType.STRING
        if self._types[key] not in accepted or (type is np.ndarray and strings):
            raise ModelFileError(self._path, key, self._shown(key), expected)
        value: Any = self[key]
        if type is list and isinstance(value, np.ndarray):
            value = value.tolist()
        elif type is float:
            value = float(value)
        return value  # type: ignore[no-any-return]

    def _shown(self, key: str) -> str:
        if key in self._arrays:
            return f"an array of {self._arrays[key].count} {self._arrays[key].type.name}"
        return f"{self._values[key]!r} ({self._types[key].name})"

    def _decode(self, ref: ArrayRef) -> Any:
        if ref.type is ValueType.STRING:
            return [string.decode("utf-8", "replace") for string in self._strings(ref)]
        # A copy, because elements lie at any byte of the file and must outlive the mapping.
        return np.frombuffer(self._source[ref.start : ref.end], dtype=f"<{ref.type.format}")
