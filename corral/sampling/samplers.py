"""The samplers, each a row of `SAMPLERS`. What picks the token in the end is in `selectors.py`.

A sampler is skipped when its parameters make it the identity. Definitions, names and letters are those of
llama.cpp, with one difference: what top_n_sigma discards is gone, instead of staying with a logit of -inf.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from corral.sampling.candidates import Candidates
from corral.sampling.dry import breaks_a_repeat, longest_repeats, tokens_since_break
from corral.sampling.params import SamplingParams


class Place(NamedTuple):
    """Where in its sequence a token is sampled."""

    params: SamplingParams
    tokens: Sequence[int]
    """The prompt and what was generated so far."""
    pieces: Sequence[bytes]
    """[V] the bytes of each token."""
    eog: frozenset[int]
    """Tokens that end the generation."""
    chance: float
    """A number in [0, 1) that picks the token, ..."""
    other_chance: float
    """... and one for samplers that toss a coin. They depend on the seed and the number of tokens only."""


class Sampler(NamedTuple):
    """`apply` changes the candidates. `keeps_best`: the most likely candidate stays what it is, and first."""

    name: str
    keeps_best: bool
    is_identity: Callable[[SamplingParams], bool]
    apply: Callable[[Candidates, Place], None]


# -- samplers that change logits -----------------------------------------------------------------------------


def logit_bias(candidates: Candidates, place: Place) -> None:
    biases = place.params.logit_bias
    ids = np.fromiter(biases.keys(), np.int32, len(biases))
    values = np.fromiter(biases.values(), np.float64, len(biases))
    candidates.set_logits(ids, candidates.logits_of(ids) + values)


def penalties(candidates: Candidates, place: Place) -> None:
    """Make the last `repeat_last_n` tokens less likely: once for being there, and again for each time."""
    params = place.params
    counts = Counter(_last(place.tokens, params.repeat_last_n))
    ids = np.fromiter(counts.keys(), np.int32, len(counts))
    times = np.fromiter(counts.values(), np.float64, len(counts))
    logits = candidates.logits_of(ids)
    # dividing a negative logit would make the token more likely
    logits = np.where(logits <= 0, logits * params.repeat_penalty, logits / params.repeat_penalty)
    candidates.set_logits(ids, logits - times * params.frequency_penalty - params.presence_penalty)


_LOG_OF_MOST = 88.7228391
"""Of the largest float32: bounds the exponent of DRY."""


def dry(candidates: Candidates, place: Place) -> None:
    """Make a token less likely that would continue a repeat, the more so the longer it is.

    The penalty is multiplier * base ** (length of the repeat so far - allowed length). (Weidmann 2024,
    text-generation-webui pull request 5677.)
    """
    params = place.params
    window = _last(place.tokens, params.dry_penalty_last_n)
    limit = tokens_since_break(window, place.pieces, params.dry_sequence_breakers)
    if len(window) <= params.dry_allowed_length or limit < params.dry_allowed_length:
        return
    repeats = {
        token: length
        for token, length in longest_repeats(window, limit).items()
        if length >= params.dry_allowed_length
        and not breaks_a_repeat(token, place.pieces, params.dry_sequence_breakers)
    }
    ids = np.fromiter(repeats.keys(), np.int32, len(repeats))
    exponents = np.fromiter(repeats.values(), np.float64, len(repeats)) - params.dry_allowed_length
    if params.dry_base > 1.000001:
        most = int(_LOG_OF_MOST / math.log(params.dry_base))
        exponents = np.minimum(exponents, most) if most > 0 else exponents
    with np.errstate(over="ignore"):
        penalty = np.clip(params.dry_multiplier * params.dry_base**exponents, -1e38, 1e38)
    candidates.set_logits(ids, candidates.logits_of(ids) - penalty)


def _last(tokens: Sequence[int], count: int) -> Sequence[int]:
    return tokens if count < 0 else tokens[max(0, len(tokens) - count) :]


# -- samplers that discard -----------------------------------------------------------------------------------


def top_n_sigma(candidates: Candidates, place: Place) -> None:
    """Keep what is within `top_n_sigma` standard deviations of the largest logit (Tang et al. 2024)."""
    if candidates.size > 1:
        limit = candidates.largest() - place.params.top_n_sigma * candidates.spread()
        candidates.keep(candidates.count_from(limit))


def top_k(candidates: Candidates, place: Place) -> None:
    """Keep the `top_k` most likely."""
    candidates.keep(place.params.top_k)


def typ_p(candidates: Candidates, place: Place) -> None:
    """Keep the fewest tokens with more than `typical_p` of the probability whose surprise is nearest to the
    expected one, the entropy (Meister et al. 2022)."""
    logits = candidates.all()[1]
    log_probs = logits - logits[0] - math.log(candidates.mass())
    probs = np.exp(log_probs)
    order = np.argsort(np.abs(-log_probs - candidates.entropy()), kind="stable")
    sums = np.cumsum(probs[order])
    count = 1 + int((sums <= place.params.typical_p).sum())
    candidates.keep_only(np.sort(order[: max(count, place.params.min_keep)]))


def top_p(candidates: Candidates, place: Place) -> None:
    """Keep the fewest, most likely tokens with `top_p` of the probability (Holtzman et al. 2020)."""
    candidates.keep(max(candidates.count_reaching(place.params.top_p), place.params.min_keep))


def min_p(candidates: Candidates, place: Place) -> None:
    """Keep what is at least `min_p` times as likely as the most likely token (Nguyen et al. 2024)."""
    count = candidates.count_from(candidates.largest() + math.log(place.params.min_p))
    candidates.keep(max(count, place.params.min_keep))


_LEAST_THRESHOLD = 1e-300
"""Of XTC: a banned token does not count as one that could be chosen instead."""


def xtc(candidates: Candidates, place: Place) -> None:
    """With a chance of `xtc_probability`, discard of the tokens with a probability of `xtc_threshold` or more
    all but the least likely one. (Weidmann 2024, text-generation-webui pull request 6335.)"""
    params = place.params
    if candidates.size < 2 or place.other_chance > params.xtc_probability:
        return
    threshold = max(params.xtc_threshold, _LEAST_THRESHOLD)
    count = candidates.count_from(candidates.largest() + math.log(threshold) + math.log(candidates.mass()))
    if count >= 2 and candidates.size - (count - 1) >= params.min_keep:
        candidates.drop(count - 1)


# -- temperature ---------------------------------------------------------------------------------------------

_MOST_TEMPERATURE = 1e30


def temperature(candidates: Candidates, place: Place) -> None:
    """Divide the logits by the temperature; at 0 or less only the most likely token is left.

    With a range, the temperature goes from `temperature - range` to `temperature + range` as the entropy goes
    from 0 to the largest that so many candidates can have, along a curve with that exponent.
    """
    params = place.params
    value = params.temperature
    if params.dynatemp_range > 0:
        if candidates.size <= 1:
            return
        low, high = max(0.0, value - params.dynatemp_range), value + params.dynatemp_range
        with np.errstate(all="ignore"):
            share = np.float64(candidates.entropy() / math.log(candidates.size)) ** params.dynatemp_exponent
            value = float(low + (high - low) * share)
        value = min(value, _MOST_TEMPERATURE) if value == value else low  # inf or NaN: an exponent below 0
    if value <= 0:
        candidates.keep(1)
    else:
        candidates.sharpen(value)


# -- the table -----------------------------------------------------------------------------------------------


def _no_penalty(params: SamplingParams) -> bool:
    neutral = (params.repeat_penalty, params.presence_penalty, params.frequency_penalty) == (1.0, 0.0, 0.0)
    return neutral or params.repeat_last_n == 0


def _no_dry(params: SamplingParams) -> bool:
    return params.dry_multiplier == 0 or params.dry_base < 1 or params.dry_penalty_last_n == 0


def _no_xtc(params: SamplingParams) -> bool:
    return params.xtc_probability <= 0 or params.xtc_threshold > 0.5


def _no_temperature(params: SamplingParams) -> bool:
    return params.temperature == 1 and params.dynatemp_range <= 0


SAMPLERS = {
    sampler.name: sampler
    for sampler in (
        Sampler("penalties", False, _no_penalty, penalties),
        Sampler("dry", False, _no_dry, dry),
        Sampler("top_n_sigma", True, lambda params: params.top_n_sigma <= 0, top_n_sigma),
        Sampler("top_k", True, lambda params: params.top_k <= 0, top_k),
        Sampler("typ_p", False, lambda params: params.typical_p >= 1, typ_p),
        Sampler("top_p", True, lambda params: params.top_p >= 1, top_p),
        Sampler("min_p", True, lambda params: params.min_p <= 0, min_p),
        Sampler("xtc", False, _no_xtc, xtc),
        Sampler("temperature", True, _no_temperature, temperature),
    )
}
"""By name, in the default order. `adaptive_p` is no row: it picks, and does so at the end wherever its name
stands."""

LOGIT_BIAS = Sampler("logit_bias", False, lambda params: not params.logit_bias, logit_bias)
"""It has no name in a request's list: it always comes first."""


def leaves_one(sampler: Sampler, params: SamplingParams) -> bool:
    """Whether the sampler discards all but the most likely candidate."""
    if sampler.name == "temperature":
        return params.temperature <= 0 and params.dynatemp_range <= 0
    return sampler.name == "top_k" and params.top_k == 1
