"""The formats of 256 weights with small scales for each 16 or 32 of them (k-quants).

Each is a pair of functions, uint8 [blocks, block_bytes] <-> float32 [blocks, 256]. In the layouts `d` and `m`
are float16 and `x[a..b]` are bits of a byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corral.gguf.blocks import Bytes, Float, extreme, fields, half, half_bytes, pack_fields, round_to


def dequantize_q2_k(blocks: Bytes) -> Float:
    """Q2_K: scales[16], qs[64], d, m. w = (d * scales[0..3]) * q - m * scales[4..7], one scale for 16
    weights.

    Two halves of 128 weights: q[32 i + l] = qs[l][2i..2i+1] of the half's 32 bytes.
    """
    scales, q = blocks[:, :16], fields(blocks[:, 16:80].reshape(-1, 2, 32), (0, 2, 4, 6), 2)
    scale = half(blocks[:, 80:82]) * (scales & 15).astype(np.float32)
    minimum = half(blocks[:, 82:84]) * (scales >> 4).astype(np.float32)
    return _scaled(q, scale, minimum)


def quantize_q2_k(x: Float) -> Bytes:
    d, m, scales, minima, q = _affine_k(x, 16, top=3, top_scale=15)
    return np.hstack(
        [scales | (minima << 4), pack_fields(q.reshape(-1, 2, 4, 32), (0, 2, 4, 6)).reshape(-1, 64), d, m]
    )


def dequantize_q3_k(blocks: Bytes) -> Float:
    """Q3_K: hmask[32], qs[64], scales[12], d. w = (d * (scale - 32)) * (q - 4), one scale for 16 weights.

    q's two low bits as in Q2_K; bit 2 of q[32 i + l] is hmask[l][i], i = 0..7 over both halves. Scale k has
    its low 4 bits in scales[k % 8] (lower nibble for k < 8) and its upper 2 in scales[8 + k % 4][2 (k //
    4)..].
    """
    low = fields(blocks[:, 32:96].reshape(-1, 2, 32), (0, 2, 4, 6), 2).reshape(-1, 8, 32)
    q = low | (fields(blocks[:, :32], range(8), 1) << 2)
    packed = blocks[:, 96:108]
    scales = fields(packed[:, :8], (0, 4), 4).reshape(-1, 16)
    scales |= fields(packed[:, 8:], (0, 2, 4, 6), 2).reshape(-1, 16) << 4
    return _scaled(q.astype(np.float32) - 4, half(blocks[:, 108:]) * (scales.astype(np.float32) - 32))


def quantize_q3_k(x: Float) -> Bytes:
    d, scales, q = _symmetric_k(x, bottom=-4, top_scale=31)
    sixes, bits = (scales + 32).astype(np.uint8), (q + 4).astype(np.uint8).reshape(-1, 8, 32)
    hmask = pack_fields(bits >> 2, range(8))
    qs = pack_fields((bits & 3).reshape(-1, 2, 4, 32), (0, 2, 4, 6)).reshape(-1, 64)
    low = pack_fields((sixes & 15).reshape(-1, 2, 8), (0, 4))
    high = pack_fields((sixes >> 4).reshape(-1, 4, 4), (0, 2, 4, 6))
    return np.hstack([hmask, qs, low, high, d])


def dequantize_q4_k(blocks: Bytes) -> Float:
    """Q4_K: d, m, scales[12], qs[128]. w = (d * scale) * q - m * minimum, 6 bits each, one pair for 32
    weights.

    Four chunks of 64 weights: q[l] = qs[l][0..3], q[32 + l] = qs[l][4..7] of the chunk's 32 bytes.
    """
    q = fields(blocks[:, 16:].reshape(-1, 4, 32), (0, 4), 4)
    return _scaled(q, *_scales_and_minima(blocks))


def quantize_q4_k(x: Float) -> Bytes:
    d, m, scales, minima, q = _affine_k(x, 32, top=15, top_scale=63)
    qs = pack_fields(q.reshape(-1, 4, 2, 32), (0, 4)).reshape(-1, 128)
    return np.hstack([d, m, _pack_six_bits(scales, minima), qs])


def dequantize_q5_k(blocks: Bytes) -> Float:
    """Q5_K: d, m, scales[12], qh[32], qs[128]. As Q4_K, and bit 4 of q[32 i + l] is qh[l][i], i = 0..7."""
    low = fields(blocks[:, 48:].reshape(-1, 4, 32), (0, 4), 4).reshape(-1, 8, 32)
    q = low | (fields(blocks[:, 16:48], range(8), 1) << 4)
    return _scaled(q, *_scales_and_minima(blocks))


def quantize_q5_k(x: Float) -> Bytes:
    d, m, scales, minima, q = _affine_k(x, 32, top=31, top_scale=63)
    qh = pack_fields(q.reshape(-1, 8, 32) >> 4, range(8))
    qs = pack_fields((q & 15).reshape(-1, 4, 2, 32), (0, 4)).reshape(-1, 128)
    return np.hstack([d, m, _pack_six_bits(scales, minima), qh, qs])


def dequantize_q6_k(blocks: Bytes) -> Float:
    """Q6_K: ql[128], qh[64], int8 scales[16], d. w = (d * scale) * (q - 32), one scale for 16 weights.

    Two halves of 128 weights, of 64 bytes of ql and 32 of qh: the low bits of q[64 i + l] are
    ql[l][4i..4i+3], the high ones of q[32 i + l] are qh[l][2i..2i+1].
    """
    low = fields(blocks[:, :128].reshape(-1, 2, 64), (0, 4), 4).reshape(-1, 256)
    high = fields(blocks[:, 128:192].reshape(-1, 2, 32), (0, 2, 4, 6), 2).reshape(-1, 256)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return _scaled((low | (high << 4)).astype(np.float32) - 32, half(blocks[:, 208:]) * scales)


def quantize_q6_k(x: Float) -> Bytes:
    d, scales, q = _symmetric_k(x, bottom=-32, top_scale=127)
    bits = (q + 32).astype(np.uint8)
    ql = pack_fields((bits & 15).reshape(-1, 2, 2, 64), (0, 4)).reshape(-1, 128)
    qh = pack_fields((bits >> 4).reshape(-1, 2, 4, 32), (0, 2, 4, 6)).reshape(-1, 64)
    return np.hstack([ql, qh, scales.astype(np.int8).view(np.uint8), d])


def _scaled(q: NDArray[np.generic], scale: Float, minimum: Float | None = None) -> Float:
    """scale * q - minimum, one of each for 256 / n weights: scale, minimum [blocks, n] -> [blocks, 256]."""
    weights = scale[..., None] * q.reshape(*scale.shape, -1).astype(np.float32)
    if minimum is not None:
        weights -= minimum[..., None]
    return weights.reshape(-1, 256)


def _scales_and_minima(blocks: Bytes) -> tuple[Float, Float]:
    """Of Q4_K and Q5_K: float32 [blocks, 8] each. In 12 bytes a, b, c of 4: the first four scales and minima
    are the low 6 bits of a and b, the last four have their low 4 bits in the nibbles of c and the upper 2
    above those of a, b."""
    a, b, c = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.hstack([a & 63, (c & 15) | (a >> 6 << 4)])
    minima = np.hstack([b & 63, (c >> 4) | (b >> 6 << 4)])
    return half(blocks[:, :2]) * scales.astype(np.float32), half(blocks[:, 2:4]) * minima.astype(np.float32)


def _pack_six_bits(scales: Bytes, minima: Bytes) -> Bytes:
    a = scales[:, :4] | (scales[:, 4:] >> 4 << 6)
    b = minima[:, :4] | (minima[:, 4:] >> 4 << 6)
    return np.hstack([a, b, (scales[:, 4:] & 15) | (minima[:, 4:] << 4)])


def _affine_k(x: Float, group: int, top: int, top_scale: int) -> tuple[Bytes, Bytes, Bytes, Bytes, Bytes]:
    """d, m as bytes, scales, minima [blocks, 256 / group] and q [blocks, 256 / group, group], with
    x ~ d * scale * q - m * minimum, q in [0, top], scales and minima in [0, top_scale]."""
    groups = x.reshape(len(x), -1, group)
    minimum = np.maximum(-groups.min(axis=-1), 0)
    m = half_bytes(minimum.max(axis=-1, keepdims=True) / np.float32(top_scale))
    minima = round_to(minimum, half(m), 0, top_scale)
    minimum = half(m) * minima
    scale = np.maximum(groups.max(axis=-1) + minimum, 0) / np.float32(top)
    d = half_bytes(scale.max(axis=-1, keepdims=True) / np.float32(top_scale))
    scales = round_to(scale, half(d), 0, top_scale)
    q = round_to(groups + minimum[..., None], (half(d) * scales)[..., None], 0, top)
    return d, m, scales.astype(np.uint8), minima.astype(np.uint8), q.astype(np.uint8)


def _symmetric_k(x: Float, bottom: int, top_scale: int) -> tuple[Bytes, Float, Float]:
    """d as bytes, scales [blocks, 16] and q [blocks, 16, 16], with x ~ d * scale * q, q in [bottom, -bottom -
    1] and |scale| <= top_scale; the value furthest from zero falls on `bottom`."""
    groups = x.reshape(len(x), -1, 16)
    scale = extreme(groups)[..., 0] / np.float32(bottom)
    d = half_bytes(np.abs(scale).max(axis=-1, keepdims=True) / np.float32(top_scale))
    scales = round_to(scale, half(d), -top_scale, top_scale)
    return d, scales, round_to(groups, (half(d) * scales)[..., None], bottom, -bottom - 1)
