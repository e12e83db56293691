"""The samplers, each a row of `SAMPLERS`, in the order in which they run.

A sampler is skipped when its parameters make it the identity. Definitions and order are those of llama.cpp.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corral.sampling.candidates import Candidates
from corral.sampling.params import SamplingParams


@dataclass(frozen=True)
class Sampler:
    """`apply` changes the candidates, given the request's parameters and its prompt and tokens so far."""

    name: str
    edits: bool
    """Whether it changes logits. Those that discard or sharpen leave the most likely token what it is."""
    is_identity: Callable[[SamplingParams], bool]
    apply: Callable[[Candidates, SamplingParams, Sequence[int]], None]


def logit_bias(candidates: Candidates, params: SamplingParams, _tokens: Sequence[int]) -> None:
    logits = candidates.edit()
    for token, bias in params.logit_bias.items():
        logits[token] += bias


def penalties(candidates: Candidates, params: SamplingParams, tokens: Sequence[int]) -> None:
    """Make the last `repeat_last_n` tokens less likely: once for being there, and again for each time."""
    recent = tokens if params.repeat_last_n < 0 else tokens[-params.repeat_last_n :]
    logits = candidates.edit()
    for token, times in Counter(recent).items():
        logit = float(logits[token])
        logit = logit * params.repeat_penalty if logit <= 0 else logit / params.repeat_penalty
        logits[token] = logit - times * params.frequency_penalty - params.presence_penalty


def top_k(candidates: Candidates, params: SamplingParams, _tokens: Sequence[int]) -> None:
    """Keep the `top_k` most likely."""
    candidates.keep(params.top_k)


def top_p(candidates: Candidates, params: SamplingParams, _tokens: Sequence[int]) -> None:
    """Keep the fewest, most likely tokens with `top_p` of the probability (Holtzman et al. 2020)."""
    candidates.keep(candidates.count_reaching(params.top_p))


def min_p(candidates: Candidates, params: SamplingParams, _tokens: Sequence[int]) -> None:
    """Keep what is at least `min_p` times as likely as the most likely token (Nguyen et al. 2024)."""
    candidates.keep(candidates.count_from(candidates.largest() + math.log(params.min_p)))


def temperature(candidates: Candidates, params: SamplingParams, _tokens: Sequence[int]) -> None:
    """Divide the logits by the temperature. (At 0 or less the chain is greedy and this does not run.)"""
    candidates.sharpen(params.temperature)


def _no_penalty(params: SamplingParams) -> bool:
    neutral = (params.repeat_penalty, params.presence_penalty, params.frequency_penalty) == (1.0, 0.0, 0.0)
    return neutral or params.repeat_last_n == 0


SAMPLERS = (
    Sampler("logit_bias", True, lambda params: not params.logit_bias, logit_bias),
    Sampler("penalties", True, _no_penalty, penalties),
    Sampler("top_k", False, lambda params: params.top_k <= 0, top_k),
    Sampler("top_p", False, lambda params: params.top_p >= 1, top_p),
    Sampler("min_p", False, lambda params: params.min_p <= 0, min_p),
    Sampler("temperature", False, lambda params: params.temperature == 1, temperature),
)
