"""The formats whose indices name groups of 4 or 8 weights in a codebook (`grids`).

Each is a pair of functions, uint8 [blocks, block_bytes] <-> float32 [blocks, 256]. In the layouts `d` is
float16 and `x[a..b]` are bits of a byte or word. IQ3 and IQ2 have magnitudes in the codebook and signs beside
it, a bit for a weight; where 8 signs are 7 bits, the eighth makes the number of minus signs even.
IQ1 has -1, 0 and 1 in the codebook, and moves them all by +-1/8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corral.gguf.blocks import Bytes, Float, fields, half, half_bytes, pack_fields, round_to
from corral.gguf.grids import GRIDS
from corral.gguf.types import GGMLType

Words = NDArray[np.uint16]

IQ3_S_LEVELS = np.array([1, 3, 5, 7, 9, 11, 13, 15], np.float32)
IQ3_XXS_LEVELS = np.array([4, 12, 20, 28, 36, 44, 52, 62], np.float32)
IQ2_LEVELS = np.array([8, 25, 43], np.float32)
IQ1_LEVELS = np.array([-1, 0, 1], np.float32)
IQ1_DELTA = np.float32(0.125)

IQ3_S_VALUES: Float = IQ3_S_LEVELS[GRIDS[GGMLType.IQ3_S]]
IQ3_XXS_VALUES: Float = IQ3_XXS_LEVELS[GRIDS[GGMLType.IQ3_XXS]]
IQ2_S_VALUES: Float = IQ2_LEVELS[GRIDS[GGMLType.IQ2_S]]
IQ2_XS_VALUES: Float = IQ2_LEVELS[GRIDS[GGMLType.IQ2_XS]]
IQ2_XXS_VALUES: Float = IQ2_LEVELS[GRIDS[GGMLType.IQ2_XXS]]
IQ1_VALUES: Float = IQ1_LEVELS[GRIDS[GGMLType.IQ1_S]]


def dequantize_iq3_s(blocks: Bytes) -> Float:
    """IQ3_S: d, qs[64], qh[8], signs[32], scales[4]. w = +-(d * (1 + 2 scale)) * VALUES[index], one scale for
    32 weights.

    index[i] is qs[i] and, above it, bit i of qh; scale k is the k-th nibble.
    """
    index = _with_high(blocks[:, 2:66], blocks[:, 66:74], 1)
    scale = half(blocks[:, :2]) * (1 + 2 * _nibbles(blocks[:, 106:]).astype(np.float32))
    return _scaled(IQ3_S_VALUES[index], scale, _bits(blocks[:, 74:106]))


def quantize_iq3_s(x: Float) -> Bytes:
    fit = _fit(x, IQ3_S_VALUES, group=32, unit=1)
    low, high = _split_high(fit.index, 1)
    return np.hstack([fit.d, low, high, fit.signs, _pack_nibbles(fit.scales)])


def dequantize_iq3_xxs(blocks: Bytes) -> Float:
    """IQ3_XXS: d, index[64], signs uint32[8]. w = +-(d * (1/2 + scale) / 2) * VALUES[index], one scale for 32
    weights: signs[28..31]. Below it are four times 7 signs."""
    words = np.ascontiguousarray(blocks[:, 66:]).view(np.uint32)
    scale = half(blocks[:, :2]) * (np.float32(0.5) + (words >> 28).astype(np.float32)) * np.float32(0.5)
    return _scaled(IQ3_XXS_VALUES[blocks[:, 2:66]], scale, _seven_bits(words))


def quantize_iq3_xxs(x: Float) -> Bytes:
    fit = _fit(x, IQ3_XXS_VALUES, group=32, unit=1 / 4, even=True)
    return np.hstack([fit.d, fit.index.astype(np.uint8), _pack_seven_bits(fit).view(np.uint8)])


def dequantize_iq2_s(blocks: Bytes) -> Float:
    """IQ2_S: d, qs[32], signs[32], qh[8], scales[8]. w = +-(d * (1/2 + scale) / 4) * VALUES[index], one scale
    for 16 weights.

    index[i] is qs[i] and, above it, the i-th pair of bits of qh; scale k is the k-th nibble.
    """
    index = _with_high(blocks[:, 2:34], blocks[:, 66:74], 2)
    return _scaled(IQ2_S_VALUES[index], _iq2_scale(blocks), _bits(blocks[:, 34:66]))


def quantize_iq2_s(x: Float) -> Bytes:
    fit = _fit(x, IQ2_S_VALUES, group=16, unit=1 / 8)
    low, high = _split_high(fit.index, 2)
    return np.hstack([fit.d, low, fit.signs, high, _pack_nibbles(fit.scales)])


def dequantize_iq2_xs(blocks: Bytes) -> Float:
    """IQ2_XS: d, qs uint16[32], scales[8]. As IQ2_S; index is qs[0..8], qs[9..15] are 7 signs."""
    words = np.ascontiguousarray(blocks[:, 2:66]).view(np.uint16)
    signs = _bits(_eighth_sign((words >> 9).astype(np.uint8)))
    return _scaled(IQ2_XS_VALUES[words & 511], _iq2_scale(blocks), signs)


def quantize_iq2_xs(x: Float) -> Bytes:
    fit = _fit(x, IQ2_XS_VALUES, group=16, unit=1 / 8, even=True)
    words = fit.index | ((fit.signs & 127).astype(np.uint16) << 9)
    return np.hstack([fit.d, words.view(np.uint8), _pack_nibbles(fit.scales)])


def dequantize_iq2_xxs(blocks: Bytes) -> Float:
    """IQ2_XXS: d, 8 times (index[4], signs uint32). w = +-(d * (1/2 + scale) / 4) * VALUES[index]; signs and
    scale as in IQ3_XXS."""
    runs = np.ascontiguousarray(blocks[:, 2:]).reshape(-1, 8, 8)
    words = np.ascontiguousarray(runs[..., 4:]).view(np.uint32).reshape(-1, 8)
    scale = half(blocks[:, :2]) * (np.float32(0.5) + (words >> 28).astype(np.float32)) * np.float32(0.25)
    return _scaled(IQ2_XXS_VALUES[runs[..., :4]], scale, _seven_bits(words))


def quantize_iq2_xxs(x: Float) -> Bytes:
    fit = _fit(x, IQ2_XXS_VALUES, group=32, unit=1 / 8, even=True)
    signs = _pack_seven_bits(fit).view(np.uint8).reshape(-1, 8, 4)
    runs = np.concatenate([fit.index.astype(np.uint8).reshape(-1, 8, 4), signs], axis=2)
    return np.hstack([fit.d, runs.reshape(-1, 64)])


def dequantize_iq1_s(blocks: Bytes) -> Float:
    """IQ1_S: d, qs[32], qh uint16[8]. w = (d * (1 + 2 scale)) * (VALUES[index] +- 1/8), for 32 weights.

    Above the four qs of a run, 3 bits each: qh[0..11]. The scale is qh[12..14], minus if qh[15].
    """
    qh = np.ascontiguousarray(blocks[:, 34:]).view(np.uint16)
    high = (qh[..., None] >> np.array([0, 3, 6, 9], np.uint16) & 7).reshape(-1, 32)
    scale = half(blocks[:, :2]) * (1 + 2 * (qh >> 12 & 7).astype(np.float32))
    delta = np.where(qh >> 15, -IQ1_DELTA, IQ1_DELTA)
    values = IQ1_VALUES[blocks[:, 2:34] | (high << 8)].reshape(-1, 8, 32)
    return _scaled(values + delta[..., None], scale)


def quantize_iq1_s(x: Float) -> Bytes:
    fit = _fit_iq1(x, group=32, shared_delta=True)
    high = (fit.index >> 8).reshape(-1, 8, 4) << np.array([0, 3, 6, 9], np.uint16)
    minus = fit.signs.reshape(-1, 8, 4)[..., 0].astype(np.uint16)
    qh = high.sum(axis=2, dtype=np.uint16) | (fit.scales.astype(np.uint16) << 12) | (minus << 15)
    return np.hstack([fit.d, (fit.index & 255).astype(np.uint8), qh.view(np.uint8)])


def dequantize_iq1_m(blocks: Bytes) -> Float:
    """IQ1_M: qs[32], qh[16], scales uint16[4]. As IQ1_S, with a scale for 16 weights and a delta for 8.

    Above qs[i], the i-th nibble of qh: 3 bits of the index, minus if the fourth. Each of scales has four
    scales of 3 bits and above them 4 bits of d, lowest first.
    """
    nibbles = _nibbles(blocks[:, 32:48]).astype(np.uint16)
    words = np.ascontiguousarray(blocks[:, 48:]).view(np.uint16)
    d = (words >> 12 << np.array([0, 4, 8, 12], np.uint16)).sum(axis=1, keepdims=True, dtype=np.uint16)
    scales = (words[..., None] >> np.array([0, 3, 6, 9], np.uint16) & 7).reshape(-1, 16)
    scale = d.view(np.float16).astype(np.float32) * (1 + 2 * scales.astype(np.float32))
    delta = np.where(nibbles >> 3, -IQ1_DELTA, IQ1_DELTA)
    return _scaled(IQ1_VALUES[blocks[:, :32] | ((nibbles & 7) << 8)] + delta[..., None], scale)


def quantize_iq1_m(x: Float) -> Bytes:
    fit = _fit_iq1(x, group=16, shared_delta=False)
    nibbles: Bytes = (fit.index >> 8).astype(np.uint8) | (fit.signs << np.uint8(3))
    shifts = np.array([0, 3, 6, 9], np.uint16)
    words = (fit.scales.reshape(-1, 4, 4).astype(np.uint16) << shifts).sum(axis=2, dtype=np.uint16)
    words |= (fit.d.view(np.uint16) >> np.array([0, 4, 8, 12], np.uint16)) << 12
    return np.hstack([(fit.index & 255).astype(np.uint8), _pack_nibbles(nibbles), words.view(np.uint8)])


# layouts


def _nibbles(packed: Bytes) -> Bytes:
    """One after the other: [blocks, n] -> [blocks, 2 n]."""
    return fields(packed[..., None], (0, 4), 4).reshape(len(packed), -1)


def _pack_nibbles(nibbles: Bytes) -> Bytes:
    return pack_fields(nibbles.reshape(len(nibbles), -1, 2, 1), (0, 4))[..., 0]


def _bits(packed: Bytes) -> Bytes:
    return np.unpackbits(packed, axis=-1, bitorder="little")


def _with_high(low: Bytes, high: Bytes, width: int) -> Words:
    """Indices with the bits above the eighth `width` at a time in `high`."""
    above = fields(high[..., None], range(0, 8, width), width).reshape(low.shape)
    index: Words = low | (above.astype(np.uint16) << np.uint16(8))
    return index


def _split_high(index: Words, width: int) -> tuple[Bytes, Bytes]:
    above = (index >> 8).astype(np.uint8).reshape(len(index), -1, 8 // width, 1)
    return (index & 255).astype(np.uint8), pack_fields(above, range(0, 8, width))[..., 0]


def _eighth_sign(seven: Bytes) -> Bytes:
    """Bytes of 7 signs -> of 8, with an even number of them minus."""
    odd: Bytes = np.bitwise_xor.reduce(seven[..., None] >> np.arange(7, dtype=np.uint8) & 1, axis=-1)
    return seven | (odd << np.uint8(7))


def _seven_bits(words: NDArray[np.uint32]) -> Bytes:
    """The signs below the scale: [blocks, 8] -> bits [blocks, 256]."""
    seven = (words[..., None] >> np.array([0, 7, 14, 21], np.uint32) & 127).astype(np.uint8)
    return _bits(_eighth_sign(seven).reshape(-1, 32))


def _pack_seven_bits(fit: _Fit) -> NDArray[np.uint32]:
    seven = (fit.signs & 127).reshape(-1, 8, 4).astype(np.uint32) << np.array([0, 7, 14, 21], np.uint32)
    words: NDArray[np.uint32] = seven.sum(axis=2, dtype=np.uint32) | (fit.scales.astype(np.uint32) << 28)
    return words


def _iq2_scale(blocks: Bytes) -> Float:
    """Of IQ2_S and IQ2_XS: float32 [blocks, 16]."""
    scales = np.float32(0.5) + _nibbles(blocks[:, -8:]).astype(np.float32)
    return half(blocks[:, :2]) * scales * np.float32(0.25)


def _scaled(values: Float, scale: Float, minus: Bytes | None = None) -> Float:
    """scale [blocks, n], one for 256 / n weights."""
    weights = (scale[..., None] * values.reshape(*scale.shape, -1)).reshape(-1, 256)
    return weights if minus is None else weights * np.where(minus, np.float32(-1), np.float32(1))


# fitting


@dataclass(frozen=True)
class _Fit:
    d: Bytes
    """float16, [blocks, 2]"""
    scales: Bytes
    """[blocks, groups], of weights with a common scale d * unit * (1 + 2 scale)"""
    index: Words
    """[blocks, 256 / weights of an entry]"""
    signs: Bytes
    """[blocks, 32]: a bit for each weight; of IQ1: a number for 8 weights, 1 for a delta of -1/8"""


def _fit(x: Float, values: Float, group: int, unit: float, even: bool = False) -> _Fit:
    """Magnitudes from `values` [entries, n], with free signs or an `even` number of them in each 8."""
    minus = np.signbit(x).reshape(-1, 8)
    magnitude = np.abs(x).reshape(-1, 8)
    if even:  # the smallest number of an odd eight gets the wrong sign
        odd = np.flatnonzero(minus.sum(axis=1) % 2)
        least = magnitude[odd].argmin(axis=1)
        minus[odd, least] ^= True
        magnitude[odd, least] *= -1
    groups = magnitude.reshape(-1, group)
    scale = groups.max(axis=1, keepdims=True) / values.max()
    for _ in range(2):
        scale = _least_squares(groups, values[_nearest(groups, scale, values)])
    d, scales, rounded = _round_scales(scale.reshape(len(x), -1), unit, 15)
    index = _nearest(groups, rounded.reshape(-1, 1), values)
    signs = np.packbits(minus.reshape(len(x), 256), axis=1, bitorder="little")
    return _Fit(d, scales, index.reshape(len(x), -1), signs)


def _fit_iq1(x: Float, group: int, shared_delta: bool) -> _Fit:
    groups = x.reshape(-1, group)
    moved = np.concatenate([IQ1_VALUES + IQ1_DELTA, IQ1_VALUES - IQ1_DELTA])  # [2 * 2048, 8]
    scale = np.float32(1.5) * np.abs(groups).mean(axis=1, keepdims=True)  # near the best for three levels
    for _ in range(2):
        scale = _least_squares(groups, moved[_nearest(groups, scale, moved)])
    d, scales, rounded = _round_scales(scale.reshape(len(x), -1), 1, 7)
    scale = rounded.reshape(-1, 1)
    if shared_delta:  # the better for the whole group
        both = [_nearest(groups, scale, moved[:2048]), _nearest(groups, scale, moved[2048:]) + 2048]
        errors = [np.square(groups - scale * moved[i].reshape(groups.shape)).sum(axis=1) for i in both]
        index = np.where((errors[1] < errors[0])[:, None], both[1], both[0])
    else:
        index = _nearest(groups, scale, moved)
    index = index.reshape(len(x), -1)
    entry: Words = index & np.uint16(2047)
    return _Fit(d, scales, entry, (index >> 11).astype(np.uint8))


def _nearest(groups: Float, scale: Float, values: Float) -> Words:
    """The entries nearest to groups / scale: [n, weights] -> [n, weights / weights of an entry]."""
    target = np.divide(groups, scale, out=np.zeros_like(groups), where=scale > 0).reshape(-1, values.shape[1])
    nearness = target @ values.T - np.square(values).sum(axis=1) / 2
    index: Words = nearness.argmax(axis=1).astype(np.uint16).reshape(len(groups), -1)
    return index


def _least_squares(groups: Float, values: Float) -> Float:
    """The best scale of each group for these values; none is below zero."""
    values = values.reshape(groups.shape)
    best = (groups * values).sum(axis=1, keepdims=True) / np.square(values).sum(axis=1, keepdims=True)
    scale: Float = np.maximum(best, 0)
    return scale


def _round_scales(scale: Float, unit: float, top: int) -> tuple[Bytes, Bytes, Float]:
    """d as bytes, scales in [0, top], and d * unit * (1 + 2 scales), near `scale` [blocks, groups]."""
    d = half_bytes(scale.max(axis=1, keepdims=True) / np.float32(unit * (1 + 2 * top)))
    base = half(d) * np.float32(unit)
    scales = round_to((scale - base) / 2, base, 0, top)
    return d, scales.astype(np.uint8), base * (1 + 2 * scales)
