"""The formats of weights that are -1, 0 or 1 times the one scale of a block.

Each is a pair of functions, uint8 [blocks, block_bytes] <-> float32 [blocks, 256]. In the layouts `d` is
float16 and `x[a..b]` are bits of a byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from corral.gguf.blocks import Bytes, Float, fields, half, half_bytes, pack_fields, round_to

RUNS = ((0, 32, 5), (32, 16, 5), (48, 4, 4))
"""Of TQ1_0: first byte, bytes, digits a byte."""


def dequantize_tq1_0(blocks: Bytes) -> Float:
    """TQ1_0: qs[48], qh[4], d. w = d * (q - 1).

    A byte is a fraction of 256, its digits after the point in base 3 are q: five, four of each of qh. In the
    first 32 bytes, the next 16 and qh, the first digits come first, then the second digits, and so on.
    """
    q = [_digits(blocks[:, at : at + n], count).reshape(-1, n * count) for at, n, count in RUNS]
    return half(blocks[:, 52:]) * (np.hstack(q).astype(np.float32) - 1)


def quantize_tq1_0(x: Float) -> Bytes:
    d, q = _ternary(x)
    parts, start = [], 0
    for _, n, count in RUNS:
        parts.append(_pack_digits(q[:, start : start + n * count].reshape(-1, count, n)))
        start += n * count
    return np.hstack([*parts, d])


def dequantize_tq2_0(blocks: Bytes) -> Float:
    """TQ2_0: qs[64], d. w = d * (q - 1). Two halves of 128 weights: q[32 i + l] = qs[l][2i..2i+1]."""
    q = fields(blocks[:, :64].reshape(-1, 2, 32), (0, 2, 4, 6), 2).reshape(-1, 256)
    return half(blocks[:, 64:]) * (q.astype(np.float32) - 1)


def quantize_tq2_0(x: Float) -> Bytes:
    d, q = _ternary(x)
    return np.hstack([pack_fields(q.reshape(-1, 2, 4, 32), (0, 2, 4, 6)).reshape(-1, 64), d])


def _digits(fractions: Bytes, count: int) -> Bytes:
    """The first `count` digits after the point: [blocks, n] -> [blocks, count, n]."""
    shifted = fractions[:, None, :] * _powers(range(count))  # modulo 256: whole parts fall away
    return (shifted.astype(np.uint16) * 3 >> 8).astype(np.uint8)


def _pack_digits(q: Bytes) -> Bytes:
    """The way back: the least fraction of 256 with these digits."""
    number = (q * _powers(range(4, 4 - q.shape[1], -1))).sum(axis=1, dtype=np.int32)
    fractions: Bytes = (-(-number * 256 // 243)).astype(np.uint8)
    return fractions


def _powers(exponents: Sequence[int]) -> Bytes:
    return np.array([3**n for n in exponents], np.uint8)[:, None]


def _ternary(x: Float) -> tuple[Bytes, Bytes]:
    """d as bytes and q in [0, 2] with x ~ d * (q - 1); exact for weights that are ternary.

    d is the mean magnitude of what becomes +-1, from a first guess of that set: near the least squares of
    any distribution.
    """
    magnitude = np.abs(x)
    guess = np.float32(0.75) * _mean(magnitude, magnitude > 0)
    d = half_bytes(_mean(magnitude, magnitude > guess))
    return d, (round_to(x, half(d), -1, 1) + 1).astype(np.uint8)


def _mean(x: Float, where: NDArray[np.bool_]) -> Float:
    """Along the last axis, which stays: of nothing, zero."""
    total = x.sum(axis=-1, keepdims=True, where=where, dtype=np.float64)
    mean: Float = (total / np.maximum(where.sum(axis=-1, keepdims=True), 1)).astype(np.float32)
    return mean
