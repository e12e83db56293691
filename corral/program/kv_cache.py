"""How the KV cache keeps numbers: what that takes, and what it does to them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corral.program.batch import BLOCK_TOKENS
from corral.program.program import Program

CacheType = Literal["f32", "f16", "q8_0"]

SCALE_GROUP = 32
"""Numbers of a head that share a scale in q8_0."""
LANES = 16
"""The values of a head are padded to a multiple of this."""
MOST = {"f32": float(np.finfo(np.float32).max), "f16": 65504.0, "q8_0": 65504.0}
"""A larger number is kept as this one."""


class CacheTypes(NamedTuple):
    """Those of the keys and of the values."""

    keys: CacheType = "f16"
    values: CacheType = "f16"


def kv_bytes_per_block(program: Program, types: CacheTypes = CacheTypes()) -> int:  # noqa: B008  (immutable)
    """Bytes one block takes in all layers."""
    return BLOCK_TOKENS * sum(
        layer.kv_heads
        * (
            _head_bytes(types.keys, layer.head_dim)
            + _head_bytes(types.values, -(-layer.head_dim // LANES) * LANES)
        )
        for layer in program.kv_layers
    )


def _head_bytes(type: CacheType, dim: int) -> int:
    """Bytes of one head of one token."""
    match type:
        case "f32":
            return 4 * dim
        case "f16":
            return 2 * dim
        case "q8_0":
            return dim + 2 * -(-dim // SCALE_GROUP)  # a scale is float16


def kept(x: NDArray[Any], type: CacheType) -> NDArray[np.float32]:
    """x [..., Dh] as the cache keeps it: finite, whatever it was."""
    most = MOST[type]
    finite: NDArray[np.float32] = np.clip(np.nan_to_num(x.astype(np.float32), nan=-most), -most, most)
    match type:
        case "f32":
            return finite
        case "f16":
            return finite.astype(np.float16).astype(np.float32)
        case "q8_0":
            return _rounded_to_int8(finite)


def _rounded_to_int8(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """q * d for each group of numbers of a head: d = max|x| / 127 as float16, q = x / d, half to even."""
    dim = x.shape[-1]
    padding = [(0, 0)] * (x.ndim - 1) + [(0, -dim % SCALE_GROUP)]
    groups = np.pad(x, padding).reshape(*x.shape[:-1], -1, SCALE_GROUP)
    largest = np.abs(groups).max(axis=-1, keepdims=True)
    scale = (largest / np.float32(127)).astype(np.float16).astype(np.float32)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    rounded: NDArray[np.float32] = np.clip(np.rint(groups * inverse), -128, 127) * scale
    return rounded.reshape(*x.shape[:-1], -1)[..., :dim]
