"""The tokens a sampler may still choose from."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from corral.sampling.kernels import Float32, Int32
from corral.sampling.logits import Logits

Float64 = NDArray[np.float64]

_FIRST_LOOK = 128
_NEXT_LOOK = 8
"""How many candidates are put in order at first, and the factor when that turns out too few."""
_MOST_SCALE = 1e30
"""Sharper than that makes no difference, and would overflow."""
_MOST_LOGIT = 3e38
"""Almost the largest float32."""


class Candidates:
    """The first `size` tokens in the order of falling logit, then rising id.

    Most samplers that discard keep a beginning of this order: they lower `size`, and the order itself is
    worked out only as far as somebody looks. Once all of it has been looked at the candidates are a list,
    which the other samplers may change in any way.
    """

    def __init__(self, row: Logits) -> None:
        self._row = row  # [V]
        self.vocab_size = len(row)
        self.size: int = self.vocab_size
        self._scale = 1.0  # of the logits, but for those of the row
        self._ids: Int32 = np.empty(0, np.int32)
        self._logits: Float64 = np.empty(0, np.float64)
        self._mass: float | None = None  # of the whole row, once it is needed

    # -- looking ---------------------------------------------------------------------------------------------

    def first(self, count: int) -> tuple[Int32, Float64]:
        """Ids and logits of the first `count` tokens, at most `size`."""
        count = min(count, self.size)
        if count > len(self._ids):
            self._ids, logits = self._row.top(count)
            self._logits = logits.astype(np.float64)
        return self._ids[:count], self._logits[:count] * self._scale

    def all(self) -> tuple[Int32, Float64]:
        """Ids and logits of all candidates."""
        return self.first(self.size)

    def largest(self) -> float:
        """The logit of the first."""
        return float(self._logits[0] if len(self._ids) else self._row.largest()) * self._scale

    def mass(self) -> float:
        """sum(exp(logit - largest)): 1 or more."""
        if not self._is_whole:
            logits = self.all()[1]
            return float(np.exp(logits - logits[0]).sum())
        if self._mass is None:
            self._mass = self._row.mass(self._scale)
        return self._mass

    def prob(self, token: int) -> float:
        """The probability of a candidate among the others; 0 for what is none."""
        logit = float(self.logits_of(np.array([token], np.int32))[0])
        return math.exp(logit - self.largest()) / self.mass()

    def entropy(self) -> float:
        """Of the candidates' probabilities, in nats."""
        if self._is_whole:
            return self._row.entropy(self._scale)
        logits = self.all()[1]
        below = logits[0] - logits
        terms = np.exp(-below)
        kept = terms > 0
        total = terms.sum()
        return float(math.log(total) + (terms[kept] * below[kept]).sum() / total)

    def spread(self) -> float:
        """The standard deviation of the logits that are not -inf."""
        if self._is_whole:
            return self._row.spread() * self._scale
        logits = self.all()[1]
        return float(logits[logits > -math.inf].std()) if logits[0] > -math.inf else 0.0

    def count_from(self, logit: float) -> int:
        """How many candidates have this logit or more."""
        if self._is_whole:
            return self._row.count_from(logit / self._scale)
        return int(np.count_nonzero(self.all()[1] >= logit))

    def count_reaching(self, share: float) -> int:
        """The fewest first tokens whose probabilities, among the `size`, add up to `share` or more."""
        looked_at = _FIRST_LOOK if self._is_whole else self.size
        while True:
            logits = self.first(looked_at)[1]
            sums = np.cumsum(np.exp(logits - logits[0]))  # probabilities times a constant
            is_all = looked_at >= self.size
            goal = share * float(sums[-1] if is_all else self.mass())
            if goal <= sums[-1] or is_all:
                # a share of 1 or more is that of the last token that adds anything
                return int(sums.searchsorted(min(goal, sums[-1]))) + 1
            looked_at *= _NEXT_LOOK

    def logits_of(self, ids: Int32) -> Float64:
        """The logits of some tokens; -inf for those that are no candidates."""
        if self._is_whole:
            return self._row[ids].astype(np.float64) * self._scale
        own, logits = self.all()
        places, found = _find(ids, own)
        return np.where(found, logits[places], -math.inf)

    # -- changing --------------------------------------------------------------------------------------------

    def keep(self, count: int) -> None:
        """Discard all but the first `count`; one always stays."""
        self.size = min(self.size, max(1, count))

    def keep_only(self, places: NDArray[np.intp]) -> None:
        """Discard all but those at these places of the order, ascending; at least one."""
        ids, logits = self.all()
        self._become(ids[places], logits[places])

    def drop(self, count: int) -> None:
        """Discard the first `count`, fewer than `size`."""
        if self._is_whole:
            self._change(self.first(count)[0], np.full(count, -math.inf))
        else:
            ids, logits = self.all()
            self._become(ids[count:], logits[count:])

    def sharpen(self, temperature: float) -> None:
        """Divide the logits by a temperature above 0."""
        self._scale *= 1.0 / max(temperature, 1 / _MOST_SCALE)
        self._scale = min(max(self._scale, 1 / _MOST_SCALE), _MOST_SCALE)
        self._mass = None

    def set_logits(self, ids: Int32, logits: Float64) -> None:
        """Give these tokens other logits; those that are no candidates stay out."""
        if self._is_whole:
            self._change(ids, logits)
            return
        own, old = self.all()
        places, found = _find(ids, own)
        new = old.copy()
        new[places[found]] = logits[found]
        self.replace(own, new)

    def replace(self, ids: Int32, logits: Float64) -> None:
        """Become these tokens, in the order of these logits."""
        order = np.lexsort((ids, -logits))
        self._become(ids[order], logits[order])

    @property
    def _is_whole(self) -> bool:
        """Whether the row says it all."""
        return bool(self.size == self.vocab_size)

    def _become(self, ids: Int32, logits: Float64) -> None:
        self._ids, self._logits, self._scale, self._mass = ids, logits, 1.0, None
        self.size = len(ids)
        if self._is_whole:  # of a whole vocabulary, it is the row that counts
            row = np.empty(self.vocab_size, np.float32)
            row[ids] = _bounded(logits)
            self._row = Logits(row)

    def _change(self, ids: Int32, logits: Float64) -> None:
        """Of the row, as it is after scaling."""
        if self._scale != 1.0:
            every = np.arange(self.vocab_size, dtype=np.int32)
            self._row.set(every, _bounded(self._row[every].astype(np.float64) * self._scale))
            self._scale = 1.0
        self._row.set(ids, _bounded(logits))
        self._forget()

    def _forget(self) -> None:
        self._ids, self._logits, self._mass = self._ids[:0], self._logits[:0], None


def _bounded(logits: Float64) -> Float32:
    """Within what a float32 can hold; -inf stays."""
    kept = np.where(logits == -math.inf, logits, np.clip(logits, -_MOST_LOGIT, _MOST_LOGIT))
    return kept.astype(np.float32)


def _find(ids: Int32, among: Int32) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Of each id its place in `among`, and whether it is there at all."""
    order = np.argsort(among)
    places = order[np.minimum(among.searchsorted(ids, sorter=order), len(among) - 1)]
    return places, among[places] == ids
