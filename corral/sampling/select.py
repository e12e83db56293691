"""Reading a row of logits: its largest entries in order, and its mass. The sampler's V-sized work."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

_GROUPS_LEAST = 512
_GROUPS_PER_CANDIDATE = 8


def top_candidates(row: Float32, k: int) -> tuple[Int32, Float32]:
    """Ids and values of the `k` largest of `row` [V] (of all, if k > V), by falling value, then rising id."""
    k = min(k, row.shape[0])
    if k == 1:
        best = np.array([row.argmax()], np.int32)  # the first of equals
        return best, row[best]
    ids = np.flatnonzero(row >= _bound(row, k))
    # One integer per candidate, in the order wanted: numpy sorts them several times faster than it argsorts
    # floats. As integers, floats above 0 rise with their value and those below fall; + 0 makes -0 the 0 it
    # equals.
    bits = (row[ids] + np.float32(0)).view(np.int32)
    falling = np.where(bits < 0, bits & 0x7FFFFFFF, ~bits).astype(np.int64)
    keys = np.sort((falling << 32) | ids)[:k]
    chosen = (keys & 0xFFFFFFFF).astype(np.int32)
    return chosen, row[chosen]


def _bound(row: Float32, k: int) -> float:
    """A value that at least `k` entries reach, and few more do.

    Of the maxima of G groups, k are not below the k-th largest. That takes one vectorised pass instead of a
    selection over all of the row.
    """
    groups = max(_GROUPS_LEAST, _GROUPS_PER_CANDIDATE * k)
    depth = row.shape[0] // groups
    if depth < 4:
        return float(np.partition(row, -k)[-k])
    maxima = row[: depth * groups].reshape(depth, groups).max(axis=0)
    return float(np.partition(maxima, -k)[-k])


def mass(row: Float32, scale: float = 1.0) -> float:
    """sum(exp(scale * (row - max(row)))), 1 or more, for scale > 0 and a finite maximum.

    The terms are in single precision.
    """
    terms = row - row.max()  # [V], 0 or less
    if scale != 1.0:
        terms *= np.float32(min(scale, 1e30))  # more would overflow, and makes no difference
    np.exp(terms, out=terms)
    return float(terms.sum(dtype=np.float64))


def surprise(row: Float32, scale: float = 1.0) -> float:
    """The entropy of softmax(scale * row) in nats, for scale > 0 and a finite maximum."""
    below = (row.max() - row).astype(np.float64) * scale  # [V], 0 or more
    terms = np.exp(-below)
    total = terms.sum()
    return float(math.log(total) + np.multiply(terms, below, where=terms > 0, out=terms).sum() / total)


def moments(row: Float32) -> tuple[float, float]:
    """Mean and standard deviation of the entries that are not -inf; zeros when there are none."""
    finite = row[row > -np.inf]
    if not finite.size:
        return 0.0, 0.0
    return float(finite.mean(dtype=np.float64)), float(finite.std(dtype=np.float64))


def log_sum_exp(row: Float32) -> float:
    """log(sum(exp(row))), for a finite maximum."""
    return float(row.max()) + math.log(mass(row))


def all_finite(row: Float32) -> bool:
    """Whether no entry is NaN or infinite."""
    # the sum of a row with such an entry is not finite; the reverse holds but for absurd magnitudes
    with np.errstate(over="ignore", invalid="ignore"):
        total = row.sum()
    return bool(np.isfinite(total)) or bool(np.isfinite(row).all())
