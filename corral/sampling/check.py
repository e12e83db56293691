"""Values of SamplingParams that no sampler has a meaning for."""

from __future__ import annotations

import math
from collections.abc import Callable

from corral.errors import RequestError
from corral.sampling.params import SamplingParams

_MOST = 1e6


def _is_moderate(value: float) -> bool:
    return abs(value) <= _MOST  # not so for NaN


_MODERATE = (_is_moderate, f"a number from {-_MOST:.0f} to {_MOST:.0f}")
_RULES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    *(
        (name, *_MODERATE)
        for name in (
            *("temperature", "dynatemp_range", "dynatemp_exponent", "top_p", "min_p", "typical_p"),
            *("top_n_sigma", "xtc_probability", "xtc_threshold", "presence_penalty", "frequency_penalty"),
            *("dry_multiplier", "dry_base", "mirostat_tau", "mirostat_eta"),
            *("adaptive_target", "adaptive_decay"),
        )
    ),
    (
        "repeat_penalty",
        lambda value: 1 / _MOST <= value <= _MOST,
        f"a number from {1 / _MOST:.6f} to {_MOST:.0f}",
    ),
    ("repeat_last_n", lambda value: value >= -1, "-1 or more"),
    ("dry_penalty_last_n", lambda value: value >= -1, "-1 or more"),
    *(
        (name, lambda value: value >= 0, "0 or more")
        for name in ("n_probs", "min_keep", "dry_allowed_length")
    ),
    ("mirostat", lambda value: value in (0, 1, 2), "0, 1 or 2"),
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
    _check_lists(params)
    for token, bias in params.logit_bias.items():
        if not 0 <= token < vocab_size:
            raise RequestError(f"logit_bias names token {token}, expected one from 0 to {vocab_size - 1}")
        if bias != -math.inf and not _is_moderate(bias):
            raise RequestError(f"logit_bias of token {token} is {bias}, expected {_MODERATE[1]} or -inf")


MOST_SAMPLERS = 64
MOST_BREAKERS = 128
LONGEST_BREAKER = 128


def _check_lists(params: SamplingParams) -> None:
    if len(params.samplers) > MOST_SAMPLERS:
        raise RequestError(f"samplers has {len(params.samplers)} names, expected at most {MOST_SAMPLERS}")
    if len(params.dry_sequence_breakers) > MOST_BREAKERS:
        count = len(params.dry_sequence_breakers)
        raise RequestError(f"dry_sequence_breakers has {count} texts, expected at most {MOST_BREAKERS}")
    longest = max(map(len, params.dry_sequence_breakers), default=0)
    if longest > LONGEST_BREAKER:
        raise RequestError(
            f"dry_sequence_breakers has a text of {longest} characters, expected at most {LONGEST_BREAKER}"
        )
