"""The formats of one scale for a row or for 32 weights, and the bit fields that all formats are made of.

Each is a pair of functions, uint8 [blocks, block_bytes] <-> float32 [blocks, block_size]. In the layouts `d`
and `m` are float16 and `x[a..b]` are bits of a byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]


def fields(packed: Bytes, shifts: Sequence[int], width: int) -> Bytes:
    """Bit fields of `width` bits at `shifts` of each byte: [..., w] -> [..., len(shifts), w]."""
    return (packed[..., None, :] >> np.array(shifts, np.uint8)[:, None]) & np.uint8((1 << width) - 1)


def pack_fields(fields: NDArray[np.integer], shifts: Sequence[int]) -> Bytes:
    """The way back from `fields`."""
    packed: Bytes = np.bitwise_or.reduce(
        fields.astype(np.uint8) << np.array(shifts, np.uint8)[:, None], axis=-2
    )
    return packed


def half(data: Bytes) -> Float:
    """float16 scales, bytes [blocks, 2] -> float32 [blocks, 1]."""
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def half_bytes(x: NDArray[np.floating]) -> Bytes:
    """float32 [blocks, 1] -> the bytes of float16 [blocks, 2]."""
    halves: NDArray[np.float16] = np.clip(x, -65504, 65504).astype(np.float16)
    return halves.view(np.uint8)


def round_to(x: NDArray[np.floating], scale: Float, low: int, high: int) -> Float:
    """x / scale to the nearest whole number in [low, high]; 0 where the scale is 0."""
    whole: Float = np.rint(np.divide(x, scale, out=np.zeros_like(x), where=scale != 0))
    return whole.clip(low, high)


def extreme(x: Float) -> Float:
    """The value furthest from zero along the last axis, with its sign: [..., n] -> [..., 1]."""
    return np.take_along_axis(x, np.abs(x).argmax(axis=-1)[..., None], axis=-1)


def dequantize_f32(blocks: Bytes) -> Float:
    return blocks.view(np.float32).copy()


def quantize_f32(x: Float) -> Bytes:
    return x.view(np.uint8)


def dequantize_f16(blocks: Bytes) -> Float:
    return blocks.view(np.float16).astype(np.float32)


def quantize_f16(x: Float) -> Bytes:
    return half_bytes(x)


def dequantize_bf16(blocks: Bytes) -> Float:
    """BF16: the upper half of a float32."""
    return (blocks.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def quantize_bf16(x: Float) -> Bytes:
    bits = x.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
    quiet_nan = (bits >> 16) | 64  # rounding could carry a NaN into infinity
    return np.where(np.isnan(x), quiet_nan, rounded).astype(np.uint16).view(np.uint8)


def dequantize_q4_0(blocks: Bytes) -> Float:
    """Q4_0: d, qs[16]. w = d * (q - 8); q[j] = qs[j][0..3], q[j + 16] = qs[j][4..7]."""
    q = fields(blocks[:, 2:], (0, 4), 4).reshape(-1, 32)
    return half(blocks[:, :2]) * (q.astype(np.float32) - 8)


def quantize_q4_0(x: Float) -> Bytes:
    d = half_bytes(extreme(x) / np.float32(-8))
    q = (round_to(x, half(d), -8, 7) + 8).astype(np.uint8)
    return np.hstack([d, pack_fields(q.reshape(-1, 2, 16), (0, 4))])


def dequantize_q4_1(blocks: Bytes) -> Float:
    """Q4_1: d, m, qs[16]. w = d * q + m; q as in Q4_0."""
    q = fields(blocks[:, 4:], (0, 4), 4).reshape(-1, 32)
    return half(blocks[:, :2]) * q.astype(np.float32) + half(blocks[:, 2:4])


def quantize_q4_1(x: Float) -> Bytes:
    d, m, q = _affine(x, 15)
    return np.hstack([d, m, pack_fields(q.reshape(-1, 2, 16), (0, 4))])


def dequantize_q5_0(blocks: Bytes) -> Float:
    """Q5_0: d, qh[4], qs[16]. w = d * (q - 16); q's low bits as in Q4_0, bit 4 of q[j] is bit j of qh."""
    return half(blocks[:, :2]) * (_five_bits(blocks[:, 2:6], blocks[:, 6:]) - 16)


def quantize_q5_0(x: Float) -> Bytes:
    d = half_bytes(extreme(x) / np.float32(-16))
    q = (round_to(x, half(d), -16, 15) + 16).astype(np.uint8)
    return np.hstack([d, *_pack_five_bits(q)])


def dequantize_q5_1(blocks: Bytes) -> Float:
    """Q5_1: d, m, qh[4], qs[16]. w = d * q + m; q as in Q5_0."""
    return half(blocks[:, :2]) * _five_bits(blocks[:, 4:8], blocks[:, 8:]) + half(blocks[:, 2:4])


def quantize_q5_1(x: Float) -> Bytes:
    d, m, q = _affine(x, 31)
    return np.hstack([d, m, *_pack_five_bits(q)])


def dequantize_q8_0(blocks: Bytes) -> Float:
    """Q8_0: d, int8 q[32]. w = d * q."""
    return half(blocks[:, :2]) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)


def quantize_q8_0(x: Float) -> Bytes:
    d = half_bytes(np.abs(x).max(axis=-1, keepdims=True) / np.float32(127))
    return np.hstack([d, round_to(x, half(d), -127, 127).astype(np.int8).view(np.uint8)])


def _five_bits(qh: Bytes, qs: Bytes) -> Float:
    high = np.unpackbits(qh, axis=-1, bitorder="little")
    return (fields(qs, (0, 4), 4).reshape(-1, 32) | (high << 4)).astype(np.float32)


def _pack_five_bits(q: Bytes) -> tuple[Bytes, Bytes]:
    return np.packbits(q >> 4, axis=-1, bitorder="little"), pack_fields((q & 15).reshape(-1, 2, 16), (0, 4))


def _affine(x: Float, top: int) -> tuple[Bytes, Bytes, Bytes]:
    """d, m as bytes and q with x ~ d * q + m, q in [0, top]."""
    m = half_bytes(x.min(axis=-1, keepdims=True))
    d = half_bytes((x.max(axis=-1, keepdims=True) - half(m)) / np.float32(top))
    return d, m, round_to(x - half(m), half(d), 0, top).astype(np.uint8)
