"""What a request asks of the sampler."""

from __future__ import annotations

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parameters of the sampling chain. The defaults are llama-server's.

    The chain runs in the order penalties, top-k, top-p, min-p, temperature; a sampler whose parameter is the
    identity is skipped.
    """

    temperature: float = 0.8
    """0 or less: greedy."""
    top_k: int = 40
    """0 or less: off."""
    top_p: float = 0.95
    """1: off."""
    min_p: float = 0.05
    """0: off."""
    seed: int | None = None
    """None: drawn at random by the engine and reported in the result."""
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    """Tokens looked back at by the penalties; 0: off, -1: the whole context."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    """Added to the logits before anything else; -inf bans a token."""
    ignore_eos: bool = False
    n_probs: int = 0
    """Report this many most likely tokens (and the chosen one) with each token."""
