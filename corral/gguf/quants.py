"""Numpy twins of the block formats: bytes <-> float32, obviously right and slow beside the kernels.

Dequantization equals ggml's bit for bit: float32 products in the same order. Quantization is plain rounding,
good for tests and tools; it does not search for better scales as llama.cpp does. A row of K weights is K /
block_size blocks, one after the other; their layouts are in `blocks`, `kblocks`, `nonlinear`, `ternary` and
`codebook`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from corral.gguf import blocks, codebook, kblocks, nonlinear, ternary
from corral.gguf.blocks import Bytes, Float
from corral.gguf.types import GGMLType


class Format(NamedTuple):
    """dequantize: uint8 [blocks, block_bytes] -> float32 [blocks, block_size]; quantize is the way back."""

    dequantize: Callable[[Bytes], Float]
    quantize: Callable[[Float], Bytes]


def dequantize(data: Bytes, type: GGMLType, shape: Sequence[int]) -> Float:
    """The weights in `data`, as float32 of `shape` (rows first; its last number is K).

    Raises ValueError if `type` has no twin here or `data` is not as long as `shape` makes it.
    """
    format = _format(type)
    if shape[-1] % type.block_size or data.size != type.nbytes(prod(shape)):
        raise ValueError(f"{data.size} bytes are no {type.name} tensor of shape {tuple(shape)}")
    packed = np.ascontiguousarray(data).view(np.uint8).reshape(-1, type.block_bytes)
    return format.dequantize(packed).reshape(tuple(shape))


def quantize(x: Float, type: GGMLType) -> Bytes:
    """`x` float32 [..., K] as `type`: uint8 [nbytes]. ValueError if K is no whole number of blocks."""
    format = _format(type)
    if x.shape[-1] % type.block_size:
        raise ValueError(f"a row of {x.shape[-1]} weights is no whole number of {type.name} blocks")
    split = np.ascontiguousarray(x, np.float32).reshape(-1, type.block_size)
    return format.quantize(split).reshape(-1)


def _format(type: GGMLType) -> Format:
    if type not in FORMATS:
        raise ValueError(
            f"no numpy twin of {type.name}; there is one of {', '.join(t.name for t in FORMATS)}"
        )
    return FORMATS[type]


FORMATS: Mapping[GGMLType, Format] = MappingProxyType(
    {
        GGMLType.F32: Format(blocks.dequantize_f32, blocks.quantize_f32),
        GGMLType.F16: Format(blocks.dequantize_f16, blocks.quantize_f16),
        GGMLType.BF16: Format(blocks.dequantize_bf16, blocks.quantize_bf16),
        GGMLType.Q4_0: Format(blocks.dequantize_q4_0, blocks.quantize_q4_0),
        GGMLType.Q4_1: Format(blocks.dequantize_q4_1, blocks.quantize_q4_1),
        GGMLType.Q5_0: Format(blocks.dequantize_q5_0, blocks.quantize_q5_0),
        GGMLType.Q5_1: Format(blocks.dequantize_q5_1, blocks.quantize_q5_1),
        GGMLType.Q8_0: Format(blocks.dequantize_q8_0, blocks.quantize_q8_0),
        GGMLType.Q2_K: Format(kblocks.dequantize_q2_k, kblocks.quantize_q2_k),
        GGMLType.Q3_K: Format(kblocks.dequantize_q3_k, kblocks.quantize_q3_k),
        GGMLType.Q4_K: Format(kblocks.dequantize_q4_k, kblocks.quantize_q4_k),
        GGMLType.Q5_K: Format(kblocks.dequantize_q5_k, kblocks.quantize_q5_k),
        GGMLType.Q6_K: Format(kblocks.dequantize_q6_k, kblocks.quantize_q6_k),
        GGMLType.IQ4_NL: Format(nonlinear.dequantize_iq4_nl, nonlinear.quantize_iq4_nl),
        GGMLType.IQ4_XS: Format(nonlinear.dequantize_iq4_xs, nonlinear.quantize_iq4_xs),
        GGMLType.MXFP4: Format(nonlinear.dequantize_mxfp4, nonlinear.quantize_mxfp4),
        GGMLType.TQ1_0: Format(ternary.dequantize_tq1_0, ternary.quantize_tq1_0),
        GGMLType.TQ2_0: Format(ternary.dequantize_tq2_0, ternary.quantize_tq2_0),
        GGMLType.IQ3_S: Format(codebook.dequantize_iq3_s, codebook.quantize_iq3_s),
        GGMLType.IQ3_XXS: Format(codebook.dequantize_iq3_xxs, codebook.quantize_iq3_xxs),
        GGMLType.IQ2_S: Format(codebook.dequantize_iq2_s, codebook.quantize_iq2_s),
        GGMLType.IQ2_XS: Format(codebook.dequantize_iq2_xs, codebook.quantize_iq2_xs),
        GGMLType.IQ2_XXS: Format(codebook.dequantize_iq2_xxs, codebook.quantize_iq2_xxs),
        GGMLType.IQ1_S: Format(codebook.dequantize_iq1_s, codebook.quantize_iq1_s),
        GGMLType.IQ1_M: Format(codebook.dequantize_iq1_m, codebook.quantize_iq1_m),
    }
)
"""The types that have a twin."""
