"""What picks a token of the candidates that are left, each a row of a table.

Some remember something from token to token: two numbers, that go in with a place and come out for the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from corral.sampling.candidates import Candidates
from corral.sampling.params import SamplingParams
from corral.sampling.samplers import Place

Memory = tuple[float, float]
_NOTHING: Memory = (0.0, 0.0)


class Selector(NamedTuple):
    """`select` leaves the candidates as the distribution that the token was drawn from."""

    start: Callable[[SamplingParams], Memory]
    select: Callable[[Candidates, Place, Memory], tuple[int, Memory]]


def by_chance(candidates: Candidates, place: Place, memory: Memory) -> tuple[int, Memory]:
    return _draw(candidates, place), memory


def _draw(candidates: Candidates, place: Place) -> int:
    """The first candidate at which the probabilities add up to the place's number."""
    count = candidates.count_reaching(place.chance)
    return int(candidates.first(count)[0][-1])


# -- mirostat (Basu et al. 2021): memory is mu, twice the surprise to cut at --------------------------------

_FOR_ESTIMATE = 100
"""Tokens from which version 1 estimates how fast the probabilities fall."""
_MOST_MU = 1e6


def mirostat(candidates: Candidates, place: Place, memory: Memory) -> tuple[int, Memory]:
    """Version 1: the exponent of Zipf's law that fits the candidates says how many to keep."""
    logits = candidates.first(_FOR_ESTIMATE)[1]
    logits = logits[logits > -math.inf]
    if len(logits) > 1:
        ranks = np.arange(1, len(logits))
        steps = np.log((ranks + 1) / ranks)
        exponent = np.float64((steps * -np.diff(logits)).sum() / (steps * steps).sum())
        with np.errstate(all="ignore"):
            excess = exponent - 1
            normal = excess / (1 - np.float64(candidates.vocab_size) ** -excess)
            if not np.isfinite(normal):
                normal = np.float64(1 / math.log(candidates.vocab_size))  # its limit for an excess of 0
            count = float((normal * np.float64(2.0) ** memory[0]) ** (1 / exponent))
        candidates.keep(int(min(count, candidates.size)) if count == count else 1)
    return _correct(candidates, place, memory)


def mirostat_2(candidates: Candidates, place: Place, memory: Memory) -> tuple[int, Memory]:
    """Version 2: keep the tokens whose surprise is at most mu bits."""
    bound = candidates.largest() + math.log(candidates.mass()) - memory[0] * math.log(2)
    candidates.keep(candidates.count_from(bound))
    return _correct(candidates, place, memory)


def _correct(candidates: Candidates, place: Place, memory: Memory) -> tuple[int, Memory]:
    token = _draw(candidates, place)
    surprise = -math.log2(max(candidates.prob(token), 1e-300))
    error = surprise - place.params.mirostat_tau
    mu = memory[0] - place.params.mirostat_eta * error
    return token, (min(max(mu, -_MOST_MU), _MOST_MU), 0.0)


# -- adaptive-p (llama.cpp pull request 17927): memory is a weighted sum of probabilities, and the weights ---

_WIDTH = 0.3
_PEAK = 5.0
_SHARPNESS = 10.0
_MOST_DECAY = 0.99


def adaptive_p(candidates: Candidates, place: Place, memory: Memory) -> tuple[int, Memory]:
    """Prefer tokens whose probability is near the target; move that so that the average comes to the target.

    The new logit falls as the square of the distance near the target, and as the distance far from it.
    """
    params = place.params
    if params.adaptive_target < 0:
        return _draw(candidates, place), memory
    goal = min(params.adaptive_target, 1.0)
    aim = min(max(2 * goal - memory[0] / memory[1], 0.0), 1.0)
    ids, logits = candidates.all()
    probs = np.exp(logits - logits[0])
    probs /= probs.sum()
    distance = np.abs(probs - aim) / _WIDTH
    changed = _PEAK - _SHARPNESS * distance * distance / (1 + distance)
    candidates.replace(ids, np.where(logits == -math.inf, logits, changed))
    token = _draw(candidates, place)
    prob = float(probs[ids == token][0])
    decay = _decay(params)
    return token, (prob + decay * memory[0], 1 + decay * memory[1])


def _decay(params: SamplingParams) -> float:
    return min(max(params.adaptive_decay, 0.0), _MOST_DECAY)


def _as_if_on_target(params: SamplingParams) -> Memory:
    weight = 1 / (1 - _decay(params))
    return params.adaptive_target * weight, weight


BY_CHANCE = Selector(lambda _params: _NOTHING, by_chance)
MIROSTAT = {
    1: Selector(lambda params: (2 * params.mirostat_tau, 0.0), mirostat),
    2: Selector(lambda params: (2 * params.mirostat_tau, 0.0), mirostat_2),
}
"""By version."""
ADAPTIVE_P = Selector(_as_if_on_target, adaptive_p)


def selector(params: SamplingParams) -> Selector:
    if params.mirostat:
        return MIROSTAT[params.mirostat]
    return ADAPTIVE_P if "adaptive_p" in params.samplers else BY_CHANCE
