"""llama-server's `generation_settings`: what a request asked for, every default filled in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from corral.engine.messages import Ready, Submit
from corral.sampling.params import SamplingParams

RANDOM_SEED = 0xFFFFFFFF
"""llama-server's seed for 'any'."""
OFF: dict[str, Any] = {
    "grammar_lazy": False,
    "grammar_triggers": [],
    "preserved_tokens": [],
    "chat_format": "Content-only",
    "reasoning_format": "none",
    "reasoning_in_content": False,
    "generation_prompt": "",
    "backend_sampling": False,
    "lora": [],
}
"""What llama-server reports of things that are off, or that a request can't change here."""
LONG = ("dry_sequence_breakers", "stop", "logit_bias", "grammar", "grammar_lazy", "grammar_triggers")
"""Left out of the short form, that /props and /slots have."""


def generation_settings(
    submit: Submit,
    ready: Ready,
    *,
    stream: bool = False,
    seed: int | None = None,
    eog: Iterable[int] = (),
) -> dict[str, Any]:
    """The settings of one generation.

    `seed` is the one that was drawn, if the request left it open. `eog`: the tokens that `ignore_eos` bans.
    """
    sampling = msgspec.structs.asdict(submit.sampling)
    biases = sampling.pop("logit_bias")
    if submit.sampling.ignore_eos:
        biases = {**biases, **dict.fromkeys(sorted(eog), -math.inf)}
    chosen = sampling.pop("seed")
    return {
        **OFF,
        "speculative.types": ",".join(ready.speculation) or "none",
        **sampling,
        "seed": next((s for s in (chosen, seed) if s is not None), RANDOM_SEED),
        "stop": submit.stop,
        "max_tokens": submit.max_tokens,
        "n_predict": submit.max_tokens,
        "n_keep": submit.n_keep,
        "n_discard": submit.n_discard,
        "stream": stream,
        "grammar": "" if submit.constraint is None else submit.constraint.text,
        # JSON has no infinity: a ban is null
        "logit_bias": [{"bias": b if abs(b) < 1e30 else None, "token": t} for t, b in biases.items()],
        "timings_per_token": submit.timings_per_token,
    }


def short_settings(submit: Submit, ready: Ready) -> dict[str, Any]:
    """The settings without the long lists."""
    settings = generation_settings(submit, ready)
    for name in (*LONG, "preserved_tokens"):
        del settings[name]
    return settings


def default_settings(sampling: SamplingParams, n_predict: int | None, ready: Ready) -> dict[str, Any]:
    """The settings of a request that asks for nothing."""
    max_tokens = -1 if n_predict is None else n_predict
    return short_settings(Submit(id="", prompt=[], max_tokens=max_tokens, sampling=sampling), ready)
