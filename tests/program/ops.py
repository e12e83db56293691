"""Programs of a few ops, over files made for the test, run by both executors.

The input of the op under test is an F32 table: the token i has row i of it, exactly, in every executor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corral.gguf.quants import quantize
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType
from corral.gguf.writer import GGUFWriter
from corral.program.kv_cache import CacheTypes
from corral.program.native import NativeExecutor, formats
from corral.program.program import Program, Weight
from corral.program.reference import ReferenceExecutor
from corral.program.trace import Tensor, Trace, embed, take_rows

Array = NDArray[Any]
EPS = 2.0**-24
"""Half the distance from 1 to the next float32: the most that rounding changes a number, relative to it."""

F16_CACHE = CacheTypes("f16", "f16")
FLOATS = [GGMLType.F32, GGMLType.F16, GGMLType.BF16]
SMALL_BLOCKS = [
    GGMLType.Q4_0,
    GGMLType.Q4_1,
    GGMLType.Q5_0,
    GGMLType.Q5_1,
    GGMLType.Q8_0,
    GGMLType.IQ4_NL,
    GGMLType.MXFP4,
]
SUPER_BLOCKS = [
    GGMLType.Q2_K,
    GGMLType.Q3_K,
    GGMLType.Q4_K,
    GGMLType.Q5_K,
    GGMLType.Q6_K,
    GGMLType.IQ4_XS,
    GGMLType.IQ3_S,
    GGMLType.IQ3_XXS,
    GGMLType.IQ2_S,
    GGMLType.IQ2_XS,
    GGMLType.IQ2_XXS,
    GGMLType.IQ1_S,
    GGMLType.IQ1_M,
    GGMLType.TQ1_0,
    GGMLType.TQ2_0,
]
QUANTIZED = SMALL_BLOCKS + SUPER_BLOCKS


@cache
def quantized(values: bytes, shape: tuple[int, ...], kind: GGMLType) -> NDArray[np.uint8]:
    """float32 `values` as `kind`: many tests use the same, and searching a codebook takes time."""
    return quantize(np.frombuffer(values, np.float32).reshape(shape), kind)


class Model:
    """A Program and the file its weights are in."""

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, tuple[Array, GGMLType] | Array],
        make: Callable[[Model], Tensor],
        raw: Mapping[str, tuple[bytes, GGMLType, tuple[int, ...]]] | None = None,
    ) -> None:
        """make: gives the [T, cols] tensor whose rows are the logits; arrays without a type are F32."""
        path = folder / f"{len(list(folder.iterdir()))}.gguf"  # the files of earlier models are still mapped
        writer = GGUFWriter(path, "llama")
        for name, tensor in tensors.items():
            values, kind = tensor if isinstance(tensor, tuple) else (tensor, GGMLType.F32)
            data = quantized(values.astype(np.float32).tobytes(), values.shape, kind)
            writer.add_raw(name, data, kind, values.shape)
        for name, (data, kind, shape) in (raw or {}).items():
            writer.add_raw(name, np.frombuffer(data, np.uint8), kind, shape)
        writer.write()
        self.file = GGUFFile.open(path)
        self.trace = Trace()
        self.program: Program = self.trace.program(take_rows(make(self)))

    def weight(self, name: str) -> Weight:
        info = self.file.tensors[name]
        return Weight(name, info.shape, info.type)

    def input(self, name: str = "x", scale: float = 1.0) -> Tensor:
        return embed(self.trace, self.weight(name), scale)

    def native(
        self, isa: str = "auto", threads: int = 1, tokens: int = 256, cache: CacheTypes = F16_CACHE
    ) -> NativeExecutor:
        return NativeExecutor(
            self.program,
            self.file,
            threads=threads,
            isa=isa,
            max_tokens=tokens,
            max_logits=tokens,
            cache_types=cache,
        )

    def reference(
        self,
        dtype: type[np.floating[Any]] = np.float64,
        cache: CacheTypes = F16_CACHE,
        isa: str = "auto",
    ) -> ReferenceExecutor:
        """float64 by default: the errors left are those of the native executor. The twin of a variant."""
        groups = formats(isa)
        return ReferenceExecutor(
            self.program, self.file, activation_groups=groups, dtype=dtype, cache_types=cache
        )


def assert_within(found: Array, wanted: Array, bound: Array | float) -> None:
    """|found - wanted| <= bound, number by number."""
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    error = np.abs(found.astype(np.float64) - wanted)
    worst = np.unravel_index(np.argmax(error - bound), error.shape)
    limit = float(np.broadcast_to(bound, error.shape)[worst])
    assert (error <= bound).all(), (
        f"at {worst}: {found[worst]!r}, expected {wanted[worst]!r} within {limit:.3g}"
    )


def assert_same_bits(found: Array, wanted: Array, what: str = "") -> None:
    assert found.dtype == wanted.dtype == np.float32
    assert found.shape == wanted.shape
    differs = found.view(np.uint32) != wanted.view(np.uint32)
    first = tuple(np.argwhere(differs)[0]) if differs.any() else None
    assert first is None, (
        f"{what}: {differs.sum()} of {differs.size} differ, first at {first}: "
        f"{found[first]!r}, {wanted[first]!r}"
    )
