"""How far one implementation's logits are from another's: the arithmetic, without models.

Everything is computed in float64. A score is a number per row; a row is a place in the text.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

ROWS_AT_ONCE = 64
"""Rows turned to float64 at a time: 64 rows of a vocabulary of 262,144 are 128 MiB."""


def log_softmax(logits: NDArray[Any]) -> Float:
    """[n, V] -> log probabilities [n, V]."""
    x: Float = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


def kl_divergence(p: Float, q: Float) -> Float:
    """KL(p || q) in nats of each row; p and q are log probabilities [n, V]. Where p is 0 a term is 0."""
    weights = np.exp(p)
    terms: Float = weights * np.subtract(p, q, out=np.zeros_like(p), where=weights > 0)
    return np.asarray(terms.sum(axis=1))


@dataclass(frozen=True)
class Scores:
    """One implementation against the reference, row by row."""

    kl: Float  # [n], KL(reference || implementation), nats
    same_top: NDArray[np.bool_]  # [n], both find the same token most likely
    nll: Float  # [m], -log probability of the token that follows, nats; the last row of a window has none

    @classmethod
    def join(cls, parts: list[Scores]) -> Scores:
        return cls(
            np.concatenate([part.kl for part in parts]),
            np.concatenate([part.same_top for part in parts]),
            np.concatenate([part.nll for part in parts]),
        )

    def summary(self) -> Summary:
        return Summary(
            tokens=len(self.kl),
            kl_mean=float(self.kl.mean()),
            kl_median=float(np.median(self.kl)),
            kl_p99=float(np.quantile(self.kl, 0.99)),
            kl_max=float(self.kl.max()),
            same_top=float(self.same_top.mean()),
            perplexity=float(np.exp(self.nll.mean())),
        )


@dataclass(frozen=True)
class Summary:
    """KL in nats; same_top is a share of 1."""

    tokens: int
    kl_mean: float
    kl_median: float
    kl_p99: float
    kl_max: float
    same_top: float
    perplexity: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def score_window(
    reference: NDArray[Any], others: list[NDArray[Any]], tokens: NDArray[np.int32]
) -> list[Scores]:
    """Scores of the reference itself, then of each of `others`: logits [n, V] of the same n tokens."""
    found: list[list[Scores]] = [[] for _ in range(1 + len(others))]
    for start in range(0, len(tokens), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        follows = tokens[start + 1 : start + 1 + ROWS_AT_ONCE]
        p = log_softmax(reference[rows])
        top = p.argmax(axis=1)
        for logits, into in zip([None, *others], found, strict=True):
            q = p if logits is None else log_softmax(logits[rows])
            nll = -q[np.arange(len(follows)), follows]
            into.append(Scores(kl_divergence(p, q), q.argmax(axis=1) == top, nll))
    return [Scores.join(parts) for parts in found]


@dataclass(frozen=True)
class Difference:
    """mean(a - b) of two scores of the same rows, with a 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """About a, for scores of which less is better."""
        if self.low > 0:
            return "worse"
        return "better" if self.high < 0 else "no measurable difference"


def paired_bootstrap(a: Float, b: Float, *, block: int = 32, resamples: int = 10_000) -> Difference:
    """Compare scores [n] of the same rows.

    Neighbouring rows share their context, and with it part of their error: so whole blocks of `block`
    consecutive rows are drawn, with replacement, not single rows. What is left over at the end joins the
    last block.
    """
    difference = a - b
    starts = np.arange(max(len(difference) // block, 1)) * block
    sums = np.add.reduceat(difference, starts)
    counts = np.diff([*starts, len(difference)])
    drawn = np.random.default_rng(0).integers(len(starts), size=(resamples, len(starts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(difference.mean()), float(low), float(high))


def logit_error(logits: NDArray[Any], reference: NDArray[Any]) -> float:
    """Root mean square error of a row of logits [V]; a shift of them all changes nothing and is left out."""
    error = logits.astype(np.float64) - reference
    return float(error.std())
