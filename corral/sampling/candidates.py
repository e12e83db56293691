"""The tokens a sampler may still choose from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corral.sampling.select import Float32, Int32, mass, top_candidates

Float64 = NDArray[np.float64]

_FIRST_LOOK = 128
_NEXT_LOOK = 8
"""How many candidates are put in order at first, and the factor when that turns out too few."""


class Candidates:
    """The first `size` tokens in the order of falling logit, then rising id.

    Every sampler that discards keeps a beginning of this order, so all that it does is to lower `size`; the
    order itself is worked out only as far as somebody looks.
    """

    def __init__(self, row: Float32) -> None:
        self._row = row  # [V], read only until `edit`
        self._owned = False
        self.size = row.shape[0]
        self._scale = 1.0
        self._ids: Int32 = np.empty(0, np.int32)
        self._logits: Float64 = np.empty(0, np.float64)
        self._mass: float | None = None  # of the whole row, once it is needed

    def edit(self) -> Float32:
        """The logits [V], to be changed in place; only before anything else."""
        assert self.size == self._row.shape[0], "logits are edited before tokens are discarded"
        if not self._owned:
            self._row, self._owned = self._row.copy(), True
        return self._row

    def first(self, count: int) -> tuple[Int32, Float64]:
        """Ids and logits of the first `count` tokens, at most `size`."""
        count = min(count, self.size)
        if count > len(self._ids):
            self._ids, logits = top_candidates(self._row, count)
            self._logits = logits.astype(np.float64)
        return self._ids[:count], self._logits[:count]

    def best(self) -> int:
        return int(self._row.argmax())  # the first of equals

    def largest(self) -> float:
        return float(self._row.max())

    def keep(self, count: int) -> None:
        """Discard all but the first `count`; one always stays."""
        count = max(1, count)
        if count < self.size:
            self.size = count

    def sharpen(self, temperature: float) -> None:
        """Divide the logits by a temperature above 0."""
        self._scale = 1.0 / max(temperature, 1e-30)
        self._mass = None

    def count_from(self, logit: float) -> int:
        """How many tokens have this logit or more."""
        if self.size == self._row.shape[0]:
            return int(np.count_nonzero(self._row >= logit))
        return int(np.count_nonzero(self.first(self.size)[1] >= logit))

    def count_reaching(self, share: float) -> int:
        """The fewest first tokens whose probabilities, among the `size`, add up to `share` or more."""
        looked_at = _FIRST_LOOK if self.size == self._row.shape[0] else self.size
        while True:
            logits = self.first(looked_at)[1]
            sums = np.cumsum(np.exp((logits - logits[0]) * self._scale))  # probabilities times a constant
            is_all = looked_at >= self.size
            goal = share * float(sums[-1] if is_all else self._mass_of_row())
            if goal <= sums[-1] or is_all:
                # a share of 1 or more is that of the last token that adds anything
                return int(sums.searchsorted(min(goal, sums[-1]))) + 1
            looked_at *= _NEXT_LOOK

    def _mass_of_row(self) -> float:
        if self._mass is None:
            self._mass = mass(self._row, self._scale)
        return self._mass
