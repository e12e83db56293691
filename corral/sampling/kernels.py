"""Passes over a row of logits [V]: the native ones, and their numpy twin for where there is no extension.

`maxima` [ceil(V / 64)] are the largest of each block of 64: they spare the passes after the first from
looking at most of the row.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
UInt32 = NDArray[np.uint32]
Float32 = NDArray[np.float32]

BLOCK = 64


class Kernels(Protocol):
    def scan(self, row: Float32, maxima: Float32) -> bool:
        """Fill in the maxima; whether all logits are finite."""

    def mask(self, row: Float32, allowed: UInt32, out: Float32, maxima: Float32) -> None:
        """out [V]: the row with -inf where bit i % 32 of allowed[i // 32] is 0; its maxima."""

    def exp_sum(self, row: Float32, largest: float, scale: float) -> float:
        """The sum of e^-d, d = (largest - x) * scale. Terms below e^-87 are 0."""

    def exp_sums(self, row: Float32, largest: float, scale: float) -> tuple[float, float]:
        """The same, and the sum of d e^-d."""

    def moment(self, row: Float32, shift: float, power: int) -> tuple[float, int]:
        """The sum of (x - shift)^power, power 1 or 2, of the x that are not -inf, and their number."""

    def top(self, row: Float32, maxima: Float32, ids: Int32, values: Float32) -> None:
        """Fill in the largest, as many as `ids` has places, by falling value, then rising id."""

    def count_from(self, row: Float32, maxima: Float32, bound: float) -> int:
        """How many are `bound` (a float32) or more."""

    def refresh(self, row: Float32, ids: Int32, maxima: Float32) -> None:
        """Make the maxima right again after the logits of these ids have changed."""


class NumpyKernels:
    """What they do, in numpy. Sums differ in their last digits."""

    def scan(self, row: Float32, maxima: Float32) -> bool:
        maxima[:] = np.maximum.reduceat(row, np.arange(0, len(row), BLOCK))
        return bool(np.isfinite(row).all())

    def mask(self, row: Float32, allowed: UInt32, out: Float32, maxima: Float32) -> None:
        bits = np.unpackbits(allowed.view(np.uint8), bitorder="little", count=len(row))
        out[:] = np.where(bits, row, np.float32(-np.inf))
        self.scan(out, maxima)

    def exp_sum(self, row: Float32, largest: float, scale: float) -> float:
        return self.exp_sums(row, largest, scale)[0]

    def exp_sums(self, row: Float32, largest: float, scale: float) -> tuple[float, float]:
        with np.errstate(over="ignore"):
            below = np.minimum((largest - row.astype(np.float64)) * scale, 88.0)
        terms = np.where(below > 87, 0.0, np.exp(-below))
        return float(terms.sum()), float((terms * below).sum())

    def moment(self, row: Float32, shift: float, power: int) -> tuple[float, int]:
        finite = row[row > -np.inf].astype(np.float64)
        return float(((finite - shift) ** power).sum()), len(finite)

    def top(self, row: Float32, maxima: Float32, ids: Int32, values: Float32) -> None:
        k = len(ids)
        bound = np.partition(maxima if k <= len(maxima) else row, -k)[-k]
        found = np.flatnonzero(row >= bound)
        ids[:] = found[np.lexsort((found, -row[found]))[:k]]
        values[:] = row[ids]

    def count_from(self, row: Float32, maxima: Float32, bound: float) -> int:
        return int(np.count_nonzero(row >= np.float32(bound)))

    def refresh(self, row: Float32, ids: Int32, maxima: Float32) -> None:
        for block in np.unique(ids // BLOCK):
            maxima[block] = row[block * BLOCK : (block + 1) * BLOCK].max()


@cache
def best_kernels() -> Kernels:
    """Those of the best ISA variant of this CPU. All variants give the same."""
    try:
        from corral import _native
    except ImportError:
        return NumpyKernels()
    assert _native.LOGIT_BLOCK == BLOCK
    kernels: Kernels = _native.LogitKernels("auto")
    return kernels
