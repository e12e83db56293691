"""The tables of the GGUF format: tensor types, metadata value types, file types.

Ids, block sizes and names are those of ggml (`ggml.h`, `ggml-common.h`) and llama.cpp (`llama.h`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class GGMLType(IntEnum):
    """The type of a tensor: blocks of `block_size` weights along K, each `block_bytes` long."""

    block_size: int
    block_bytes: int
    packed_bytes: int
    """Bytes of 256 weights in memory, as the kernels have them."""

    def __new__(
        cls, value: int, block_size: int = 1, block_bytes: int = 0, packed_bytes: int = 0
    ) -> GGMLType:
        member = int.__new__(cls, value)
        member._value_ = value
        member.block_size = block_size
        member.block_bytes = block_bytes
        member.packed_bytes = packed_bytes or 256 * block_bytes // block_size
        return member

    # name = id, weights a block, bytes a block, packed bytes unless they are as many
    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q8_1 = 9, 32, 36
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110, 116
    Q4_K = 12, 256, 144, 148
    Q5_K = 13, 256, 176, 180
    Q6_K = 14, 256, 210, 212
    Q8_K = 15, 256, 292
    IQ2_XXS = 16, 256, 66, 104
    IQ2_XS = 17, 256, 74, 108
    IQ3_XXS = 18, 256, 98, 136
    IQ1_S = 19, 256, 50, 76
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110, 136
    IQ2_S = 22, 256, 82, 108
    IQ4_XS = 23, 256, 136, 140
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56, 92
    BF16 = 30, 1, 2
    TQ1_0 = 34, 256, 54, 68
    TQ2_0 = 35, 256, 66, 68
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block_size

    def nbytes(self, n_elements: int) -> int:
        """Bytes of `n_elements` weights, a multiple of the block size."""
        blocks, rest = divmod(n_elements, self.block_size)
        if rest:
            raise ValueError(
                f"{n_elements} weights are no whole number of {self.name} blocks of {self.block_size}"
            )
        return blocks * self.block_bytes

    def packed_nbytes(self, n_elements: int) -> int:
        """Bytes of `n_elements` weights in memory, but for rows that fill up the last 16."""
        return n_elements * self.packed_bytes // 256


REMOVED_TYPES: Mapping[int, tuple[str, str]] = MappingProxyType(
    {  # id -> name it had, what to quantize to instead
        4: ("Q4_2", "Q4_0"),
        5: ("Q4_3", "Q4_1"),
        31: ("Q4_0_4_4", "Q4_0"),
        32: ("Q4_0_4_8", "Q4_0"),
        33: ("Q4_0_8_8", "Q4_0"),
        36: ("IQ4_NL_4_4", "IQ4_NL"),
        37: ("IQ4_NL_4_8", "IQ4_NL"),
        38: ("IQ4_NL_8_8", "IQ4_NL"),
    }
)
"""Types that files of the past may have and ggml no longer reads."""


class ValueType(IntEnum):
    """The type of a metadata value; `format` is the struct and numpy letter of numbers and booleans."""

    format: str

    def __new__(cls, value: int, format: str = "") -> ValueType:
        member = int.__new__(cls, value)
        member._value_ = value
        member.format = format
        return member

    UINT8 = 0, "B"
    INT8 = 1, "b"
    UINT16 = 2, "H"
    INT16 = 3, "h"
    UINT32 = 4, "I"
    INT32 = 5, "i"
    FLOAT32 = 6, "f"
    BOOL = 7, "?"
    STRING = 8, ""
    ARRAY = 9, ""
    UINT64 = 10, "Q"
    INT64 = 11, "q"
    FLOAT64 = 12, "d"


MetadataValue = int | float | bool | str
"""What can replace a value: anything but an array."""

FILE_TYPES: Mapping[int, str] = MappingProxyType(
    {
        0: "F32",
        1: "F16",
        2: "Q4_0",
        3: "Q4_1",
        7: "Q8_0",
        8: "Q5_0",
        9: "Q5_1",
        10: "Q2_K - Medium",
        11: "Q3_K - Small",
        12: "Q3_K - Medium",
        13: "Q3_K - Large",
        14: "Q4_K - Small",
        15: "Q4_K - Medium",
        16: "Q5_K - Small",
        17: "Q5_K - Medium",
        18: "Q6_K",
        19: "IQ2_XXS",
        20: "IQ2_XS",
        21: "Q2_K - Small",
        22: "IQ3_XS",
        23: "IQ3_XXS",
        24: "IQ1_S",
        25: "IQ4_NL",
        26: "IQ3_S",
        27: "IQ3_M",
        28: "IQ2_S",
        29: "IQ2_M",
        30: "IQ4_XS",
        31: "IQ1_M",
        32: "BF16",
        36: "TQ1_0",
        37: "TQ2_0",
        38: "MXFP4 MoE",
        39: "NVFP4",
        40: "Q1_0",
    }
)
"""`general.file_type` -> the name of the quantization mix."""


def file_type_name(file_type: int) -> str:
    """The name of a `general.file_type`, with 1024 added by a writer that guessed it."""
    guessed = file_type & 1024
    name = FILE_TYPES.get(file_type & ~1024, f"unknown ({file_type})")
    return f"{name} (guessed)" if guessed else name
