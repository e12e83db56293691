"""What a model's KV cache takes, from the keys of its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from corral.errors import ModelFileError

T = TypeVar("T")
D = TypeVar("D")

F16_BYTES = 2


class Keys(Protocol):
    """What is needed of a GGUFFile."""

    @property
    def path(self) -> object: ...
    @property
    def architecture(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    def get(self, key: str, type: type[T], default: D) -> T | D: ...
    def require(self, key: str, type: type[T]) -> T: ...


def kv_bytes_per_token(file: Keys, bytes_per_value: int = F16_BYTES) -> int:
    """Bytes of keys and values of all layers for one token.

    The sum over the layers of kv_heads * (key_length + value_length) * bytes_per_value. `head_count_kv` may
    be one number or one for each layer (0: no attention there); a layer with a sliding window counts as any
    other. Raises ModelFileError if a key is missing or makes no sense.
    """
    arch = file.architecture
    layers = _count(file, f"{arch}.block_count")
    heads = _first_layer_heads(file, f"{arch}.attention.head_count", layers)
    kv_heads = _sum_over_layers(file, f"{arch}.attention.head_count_kv", layers, default=layers * heads)
    if kv_heads == 0:
        return 0
    head_dim = _count(file, f"{arch}.embedding_length") // heads if heads else 0
    key_length = _count(file, f"{arch}.attention.key_length", head_dim)
    value_length = _count(file, f"{arch}.attention.value_length", head_dim)
    return kv_heads * (key_length + value_length) * bytes_per_value


def _count(file: Keys, key: str, default: int | None = None) -> int:
    value = file.require(key, int) if default is None else file.get(key, int, default)
    return _checked(file, key, value)


def _sum_over_layers(file: Keys, key: str, layers: int, default: int) -> int:
    if key not in file.metadata:
        return default
    if isinstance(file.metadata[key], int):
        return layers * _count(file, key)
    return sum(_per_layer(file, key, layers))


def _first_layer_heads(file: Keys, key: str, layers: int) -> int:
    if key in file.metadata and not isinstance(file.metadata[key], int):
        return next((heads for heads in _per_layer(file, key, layers) if heads), 0)
    return _count(file, key)


def _per_layer(file: Keys, key: str, layers: int) -> list[int]:
    values = file.require(key, list)
    if len(values) != layers:
        raise ModelFileError(
            file.path, key, f"an array of {len(values)}", f"one number or {layers}, as there are layers"
        )
    return [_checked(file, key, value) for value in values]


def _checked(file: Keys, key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelFileError(file.path, key, value, "a whole number, at least 0")
    return value
