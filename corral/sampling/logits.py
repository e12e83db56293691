"""A row of logits: its largest entries in order, and sums over all of it. The sampler's V-sized work."""

from __future__ import annotations

import math

import numpy as np

from corral.sampling.kernels import BLOCK, Float32, Int32, Kernels, UInt32, best_kernels

_MOST_SCALE = 1e30
"""Sharper than that makes no difference, and would overflow."""


class Logits:
    """Logits [V] of the tokens. The array that it is made of is only read; `set` works on a copy.

    Where one is called for, some logit is not -inf.
    """

    def __init__(self, row: Float32, kernels: Kernels | None = None) -> None:
        self._kernels = kernels or best_kernels()
        self._row, self._owned = row, False
        self._maxima: Float32 = np.empty(-(-len(row) // BLOCK), np.float32)
        self.all_finite: bool = self._kernels.scan(row, self._maxima)
        """Whether no logit is NaN or infinite. If one is, all else means nothing."""

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, ids: Int32) -> Float32:
        return self._row[ids]

    def copy(self) -> Logits:
        """The same, to be changed by `set` without changing this."""
        result = object.__new__(Logits)
        result._kernels, result._row, result._owned = self._kernels, self._row, False
        result._maxima, result.all_finite = self._maxima.copy(), self.all_finite
        return result

    def masked(self, allowed: UInt32) -> Logits:
        """The same with -inf for tokens t whose bit t % 32 of allowed[t // 32] is 0."""
        result = object.__new__(Logits)
        result._kernels, result._owned, result.all_finite = self._kernels, True, False
        result._row, result._maxima = np.empty_like(self._row), np.empty_like(self._maxima)
        self._kernels.mask(self._row, allowed, result._row, result._maxima)
        return result

    def largest(self) -> float:
        return float(self._maxima.max())

    def top(self, count: int) -> tuple[Int32, Float32]:
        """Ids and values of the `count` largest (of all, if there are fewer), by falling value, then rising
        id."""
        count = min(count, len(self._row))
        ids, values = np.empty(count, np.int32), np.empty(count, np.float32)
        self._kernels.top(self._row, self._maxima, ids, values)
        return ids, values

    def count_from(self, logit: float) -> int:
        """How many are this or more."""
        return self._kernels.count_from(self._row, self._maxima, logit)

    def mass(self, scale: float = 1.0) -> float:
        """sum(exp(scale * (row - largest))), 1 or more, for scale > 0. The terms are in single precision."""
        return self._kernels.exp_sum(self._row, self.largest(), min(scale, _MOST_SCALE))

    def log_mass(self) -> float:
        """log(sum(exp(row)))."""
        return self.largest() + math.log(self.mass())

    def entropy(self, scale: float = 1.0) -> float:
        """Of softmax(scale * row), in nats, for scale > 0."""
        mass, weighted = self._kernels.exp_sums(self._row, self.largest(), min(scale, _MOST_SCALE))
        return math.log(mass) + weighted / mass

    def spread(self) -> float:
        """The standard deviation of those that are not -inf."""
        largest = self.largest()
        if largest == -math.inf:
            return 0.0
        total, count = self._kernels.moment(self._row, largest, 1)
        squares, _ = self._kernels.moment(self._row, largest + total / count, 2)
        return math.sqrt(squares / count)

    def set(self, ids: Int32, values: Float32) -> None:
        """Change some."""
        if not self._owned:
            self._row, self._owned = self._row.copy(), True
        self._row[ids] = values
        self._kernels.refresh(self._row, ids, self._maxima)
