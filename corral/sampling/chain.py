"""The sampling chain of one request: a row of logits in, a token out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import msgspec

from corral.errors import InternalError, RequestError
from corral.sampling.candidates import Candidates
from corral.sampling.params import SamplingParams
from corral.sampling.samplers import SAMPLERS
from corral.sampling.select import Float32, all_finite, log_sum_exp, top_candidates

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class LogProbs(NamedTuple):
    """Logarithms of probabilities before the chain: of the chosen token, and of the most likely ones."""

    chosen: float
    top: list[tuple[int, float]]


class Chain:
    """Samples the tokens of one request.

    A token depends on the logits, the tokens before it, the parameters and the seed only: there is no state
    that neighbours or preemption could change.
    """

    def __init__(self, params: SamplingParams, seed: int, eog: Collection[int] = ()) -> None:
        if params.ignore_eos and eog:
            banned = dict.fromkeys(eog, -math.inf)
            params = msgspec.structs.replace(params, logit_bias={**params.logit_bias, **banned})
        self._params = params
        self.seed = seed
        active = [sampler for sampler in SAMPLERS if not sampler.is_identity(params)]
        self._edits = [sampler for sampler in active if sampler.edits]
        self._discards = [sampler for sampler in active if not sampler.edits]
        self._is_greedy = params.temperature <= 0 or params.top_k == 1

    def sample(self, row: Float32, tokens: Sequence[int]) -> int:
        """The token that follows `tokens` (prompt and generated ones), given its logits [V].

        Raises:
            InternalError: the logits are not finite numbers.
            RequestError: the request has banned every token.
        """
        if not all_finite(row):
            raise InternalError(f"the model's logits for token {len(tokens)} are not finite numbers")
        candidates = Candidates(row)
        for sampler in self._edits:
            sampler.apply(candidates, self._params, tokens)
        if self._params.logit_bias and candidates.largest() == -math.inf:
            raise RequestError(
                "logit_bias bans every token of the vocabulary, expected at least one to be left"
            )
        if self._is_greedy:
            return candidates.best()
        for sampler in self._discards:
            sampler.apply(candidates, self._params, tokens)
        count = candidates.count_reaching(uniform(self.seed, len(tokens)))
        return int(candidates.first(count)[0][-1])


def log_probs(row: Float32, chosen: int, count: int) -> LogProbs:
    """Log probabilities by `row` [V] of a token and of the `count` most likely ones."""
    log_mass = log_sum_exp(row)
    ids, logits = top_candidates(row, count)
    top = [(int(token), float(logit) - log_mass) for token, logit in zip(ids, logits, strict=True)]
    return LogProbs(float(row[chosen]) - log_mass, top)


def uniform(seed: int, index: int) -> float:
    """The number in [0, 1) for a place in a sequence: splitmix64 (Steele, Lea, Flood 2014)."""
    bits = _mix((_mix((seed & _MASK) + _GOLDEN) + _GOLDEN * (index + 1)) & _MASK)
    return (bits >> 11) * 2.0**-53


def _mix(bits: int) -> int:
    bits &= _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


_MOST = 1e6


def _is_moderate(value: float) -> bool:
    return abs(value) <= _MOST  # not so for NaN


_MODERATE = (_is_moderate, f"a number from {-_MOST:.0f} to {_MOST:.0f}")
_RULES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("temperature", *_MODERATE),
    ("top_p", *_MODERATE),
    ("min_p", *_MODERATE),
    (
        "repeat_penalty",
        lambda value: 1 / _MOST <= value <= _MOST,
        f"a number from {1 / _MOST:.6f} to {_MOST:.0f}",
    ),
    ("presence_penalty", *_MODERATE),
    ("frequency_penalty", *_MODERATE),
    ("repeat_last_n", lambda value: value >= -1, "-1 or more"),
    ("n_probs", lambda value: value >= 0, "0 or more"),
)


def check_params(params: SamplingParams, vocab_size: int) -> None:
    """Refuse values that no sampler has a meaning for.

    Raises:
        RequestError: naming the field, its value and what would be right.
    """
    for name, is_right, expected in _RULES:
        value = getattr(params, name)
        if not is_right(value):
            raise RequestError(f"{name} is {value}, expected {expected}")
    for token, bias in params.logit_bias.items():
        if not 0 <= token < vocab_size:
            raise RequestError(f"logit_bias names token {token}, expected one from 0 to {vocab_size - 1}")
        if bias != -math.inf and not _is_moderate(bias):
            raise RequestError(f"logit_bias of token {token} is {bias}, expected {_MODERATE[1]} or -inf")
