"""The numpy twins against the `gguf` package (bytes -> weights, bit for bit) and against themselves (there
and back)."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from corral.gguf.quants import FORMATS, dequantize, quantize
from corral.gguf.types import GGMLType

TYPES = [pytest.param(type, id=type.name) for type in FORMATS]

TERNARY = (GGMLType.TQ1_0, GGMLType.TQ2_0)
THREE_LEVELS = (*TERNARY, GGMLType.IQ1_S, GGMLType.IQ1_M)

# The largest error there and back, in parts of a block's largest magnitude, on a normal distribution. About
# half a step of the format: 2 / levels / 2, and as much again where the sub-block scales are themselves
# rounded.
WORST_ERROR = {
    GGMLType.F32: 0.0,
    GGMLType.F16: 2**-11,
    GGMLType.BF16: 2**-8,
    GGMLType.Q8_0: 0.5 / 127 * 1.01,
    GGMLType.Q4_0: 1 / 8 * 1.01,  # a positive extreme's opposite is clipped at 7 of 8
    GGMLType.Q4_1: 1 / 15 * 1.01,
    GGMLType.Q5_0: 1 / 16 * 1.01,
    GGMLType.Q5_1: 1 / 31 * 1.01,
    GGMLType.Q2_K: 0.34,
    GGMLType.Q3_K: 1 / 4 * 1.01,
    GGMLType.Q4_K: 0.07,
    GGMLType.Q5_K: 0.035,
    GGMLType.Q6_K: 1 / 32 * 1.01,
    GGMLType.IQ4_NL: 14 / 127 * 1.01,  # a positive extreme's opposite is clipped at 113 of 127
    GGMLType.IQ4_XS: 14 / 127 * 1.2,
    GGMLType.MXFP4: 1 / 4 * 1.01,  # 6 is the largest value, and all below 8 become it
    GGMLType.IQ3_S: 0.25,  # a group of 4 or 8 takes the nearest of the groups there are
    GGMLType.IQ3_XXS: 0.4,
    GGMLType.IQ2_S: 0.4,
    GGMLType.IQ2_XS: 0.51,
    GGMLType.IQ2_XXS: 0.5,
    GGMLType.IQ1_S: 0.8,
    GGMLType.IQ1_M: 0.8,
    GGMLType.TQ1_0: 0.8,  # what is large becomes 1, too
    GGMLType.TQ2_0: 0.8,
}


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("blocks", [1, 5])
def test_dequantize_equals_gguf_package_bit_for_bit(type: GGMLType, rows: int, blocks: int) -> None:
    rng = np.random.default_rng([type, rows, blocks])
    data = rng.integers(0, 256, rows * blocks * type.block_bytes, dtype=np.uint8)
    with np.errstate(all="ignore"):  # random bytes hold NaN and infinite scales
        ours = dequantize(data, type, (rows, blocks * type.block_size))
        theirs = gguf.quants.dequantize(data.reshape(rows, -1), gguf.GGMLQuantizationType(type))
    assert ours.dtype == np.float32
    assert ours.shape == (rows, blocks * type.block_size)
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    same = ours.view(np.uint32) == theirs.reshape(ours.shape).view(np.uint32)
    assert (same | np.isnan(ours)).all()


@pytest.mark.parametrize("type", TYPES)
def test_there_and_back_stays_close(type: GGMLType) -> None:
    x = np.random.default_rng(1).standard_normal((64, 512), np.float32)
    x[3] *= 1000  # rows do not disturb each other
    x[5] = np.abs(x[5])
    back = dequantize(quantize(x, type), type, x.shape)
    scale = np.abs(x.reshape(-1, type.block_size)).max(axis=1, keepdims=True)
    scale = np.maximum(scale, 2**-14)  # below it float16 has fewer digits
    error = np.abs(back - x).reshape(-1, type.block_size) / scale
    assert error.max() <= WORST_ERROR[type]


@pytest.mark.parametrize("type", TYPES)
def test_zeros_stay_zeros(type: GGMLType) -> None:
    back = dequantize(quantize(np.zeros((2, 256), np.float32), type), type, (2, 256))
    assert not back.any()


@pytest.mark.parametrize("type", [t for t in FORMATS if t.block_size > 1], ids=lambda t: t.name)
def test_quantizing_what_was_dequantized_changes_little_and_settles(type: GGMLType) -> None:
    x = np.random.default_rng(2).standard_normal((8, 256), np.float32)
    once = dequantize(quantize(x, type), type, x.shape)
    assert np.abs(once - x).mean() < np.abs(x).mean() / 2
    # of three levels the best for a normal distribution have 0.19 of its variance as error: 0.9 ** 2 = 0.81
    least = 0.88 if type in THREE_LEVELS else 0.9
    assert np.corrcoef(once.ravel(), x.ravel())[0, 1] > least


@pytest.mark.parametrize("type", TERNARY, ids=lambda t: t.name)
def test_ternary_weights_stay_as_they_are(type: GGMLType) -> None:
    x = np.random.default_rng(3).integers(-1, 2, (8, 512)).astype(np.float32) * np.float32(0.375)
    x[5, :256] = 0
    assert np.array_equal(dequantize(quantize(x, type), type, x.shape), x)


def test_bf16_rounds_to_nearest_even_and_keeps_nan() -> None:
    values = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F800001, 0xFF800000], np.uint32).view(
        np.float32
    )
    bits = quantize(values, GGMLType.BF16).view(np.uint16)
    assert bits.tolist() == [0x3F80, 0x3F82, 0x3F81, 0x7FC0, 0xFF80]


def test_q4_0_block_by_hand() -> None:
    # d = 0.5, q[0] = 0, q[16] = 15, every other q = 8
    block = np.concatenate([np.array([0.5], np.float16).view(np.uint8), np.full(16, 0x88, np.uint8)])
    block[2] = 0xF0
    weights = dequantize(block, GGMLType.Q4_0, (1, 32))[0]
    assert weights[0] == -4.0
    assert weights[16] == 3.5
    assert np.count_nonzero(weights) == 2


@pytest.mark.parametrize(
    ("size", "type", "shape", "message"),
    [
        (17, GGMLType.Q4_0, (1, 32), "17 bytes are no Q4_0 tensor"),
        (36, GGMLType.Q4_0, (4, 16), "36 bytes are no Q4_0 tensor"),
        (18, GGMLType.Q1_0, (1, 128), "no numpy twin of Q1_0"),
    ],
)
def test_wrong_sizes_and_types_are_refused(
    size: int, type: GGMLType, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dequantize(np.zeros(size, np.uint8), type, shape)


def test_rows_that_are_no_whole_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="row of 40 weights"):
        quantize(np.zeros((2, 40), np.float32), GGMLType.Q8_0)
