"""The formats whose four bits name one of 16 uneven values.

Each is a pair of functions, uint8 [blocks, block_bytes] <-> float32 [blocks, block_size]. In the layouts `d`
is float16 and `x[a..b]` are bits of a byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corral.gguf.blocks import Bytes, Float, extreme, fields, half, half_bytes, pack_fields, round_to

IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
"""Of IQ4_NL and IQ4_XS: denser near zero, as weights are."""

MXFP4_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
"""Twice the numbers of E2M1: a sign, two bits of exponent, one of mantissa."""


def dequantize_iq4_nl(blocks: Bytes) -> Float:
    """IQ4_NL: d, qs[16]. w = d * IQ4_VALUES[c]; c[j] = qs[j][0..3], c[j + 16] = qs[j][4..7]."""
    return half(blocks[:, :2]) * IQ4_VALUES[fields(blocks[:, 2:], (0, 4), 4).reshape(-1, 32)]


def quantize_iq4_nl(x: Float) -> Bytes:
    d = half_bytes(extreme(x) / IQ4_VALUES[0])
    return np.hstack([d, pack_fields(_nearest_iq4(x, half(d)).reshape(-1, 2, 16), (0, 4))])


def dequantize_iq4_xs(blocks: Bytes) -> Float:
    """IQ4_XS: d, high[2], low[4], qs[128]. w = (d * (scale - 32)) * IQ4_VALUES[c], one scale for 32
    weights.

    Scale k has its low 4 bits in the k-th nibble of low, its upper 2 in the k-th pair of high. Eight runs of
    16 bytes as in IQ4_NL.
    """
    high = fields(blocks[:, 2:4, None], (0, 2, 4, 6), 2).reshape(-1, 8)
    low = fields(blocks[:, 4:8, None], (0, 4), 4).reshape(-1, 8)
    scale = half(blocks[:, :2]) * ((low | (high << 4)).astype(np.float32) - 32)
    codes = fields(blocks[:, 8:].reshape(-1, 8, 16), (0, 4), 4).reshape(-1, 8, 32)
    return (scale[..., None] * IQ4_VALUES[codes]).reshape(-1, 256)


def quantize_iq4_xs(x: Float) -> Bytes:
    groups = x.reshape(-1, 8, 32)
    scale = extreme(groups)[..., 0] / IQ4_VALUES[0]
    d = half_bytes(np.abs(scale).max(axis=-1, keepdims=True) / np.float32(31))
    scales = round_to(scale, half(d), -31, 31)
    codes = _nearest_iq4(groups, (half(d) * scales)[..., None])
    sixes = (scales + 32).astype(np.uint8)
    high = pack_fields((sixes >> 4).reshape(-1, 2, 4, 1), (0, 2, 4, 6)).reshape(-1, 2)
    low = pack_fields((sixes & 15).reshape(-1, 4, 2, 1), (0, 4)).reshape(-1, 4)
    return np.hstack([d, high, low, pack_fields(codes.reshape(-1, 8, 2, 16), (0, 4)).reshape(-1, 128)])


def dequantize_mxfp4(blocks: Bytes) -> Float:
    """MXFP4: e, qs[16]. w = 2^(e - 128) * MXFP4_VALUES[c], c as in IQ4_NL.

    OCP Microscaling Formats (MX) 1.0; the values are doubled here, so the scale is half of the standard's.
    """
    scale = np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 128)
    return scale * MXFP4_VALUES[fields(blocks[:, 1:], (0, 4), 4).reshape(-1, 32)]


def quantize_mxfp4(x: Float) -> Bytes:
    """As the standard has it: the largest number has the largest exponent."""
    largest = np.abs(x).max(axis=-1, keepdims=True)
    exponent = np.frexp(largest)[1] - 1  # floor of log2
    e = np.where(largest > 0, np.clip(exponent - 2 + 127, 0, 254), 0).astype(np.uint8)
    scale = np.ldexp(np.float32(1), e.astype(np.int32) - 128)
    levels = MXFP4_VALUES[:8]
    magnitude = np.searchsorted((levels[1:] + levels[:-1]) / 2, np.abs(x) / scale).astype(np.uint8)
    codes = magnitude | (np.signbit(x).astype(np.uint8) << 3)
    return np.hstack([e, pack_fields(codes.reshape(-1, 2, 16), (0, 4))])


def _nearest_iq4(x: Float, scale: Float) -> NDArray[np.int64]:
    """The code whose value is nearest to x / scale; of zero where the scale is."""
    target = np.divide(x, scale, out=np.zeros_like(x), where=scale != 0)
    return np.searchsorted((IQ4_VALUES[1:] + IQ4_VALUES[:-1]) / 2, target)
