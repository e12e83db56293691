"""What a request asks of the sampler."""

from __future__ import annotations

import msgspec

from corral.sampler_order import DEFAULT_ORDER


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parameters of the sampling chain. The defaults are llama-server's.

    The chain runs the samplers of `samplers`, in that order; one whose parameters make it the identity is
    skipped. Mirostat, when it is on, takes the place of them all.
    """

    samplers: tuple[str, ...] = DEFAULT_ORDER
    """Names of rows of `corral.sampling.samplers.SAMPLERS`."""
    min_keep: int = 0
    """Tokens that top_p, min_p, typ_p and xtc leave, however unlikely."""
    seed: int | None = None
    """None: drawn at random by the engine and reported in the result."""

    temperature: float = 0.8
    """0 or less: only the most likely token is left."""
    dynatemp_range: float = 0.0
    """How far the temperature moves with the entropy, up and down; 0 or less: off."""
    dynatemp_exponent: float = 1.0
    top_k: int = 40
    """0 or less: off."""
    top_p: float = 0.95
    """1: off."""
    min_p: float = 0.05
    """0: off."""
    typical_p: float = 1.0
    """1: off."""
    top_n_sigma: float = -1.0
    """0 or less: off."""
    xtc_probability: float = 0.0
    """0: off."""
    xtc_threshold: float = 0.1
    """More than 0.5: off, as no two tokens can be that likely."""

    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    """Tokens looked back at by the penalties; 0: off, -1: the whole context."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    """0: off."""
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    """Tokens looked back at by DRY; 0: off, -1: the whole context."""
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    """A repeat ends at each of these texts."""

    mirostat: int = 0
    """1, 2: the version; 0: off."""
    mirostat_tau: float = 5.0
    """The surprise aimed at, in bits."""
    mirostat_eta: float = 0.1
    """The share of the error that is corrected at each token."""
    adaptive_target: float = -1.0
    """The probability that adaptive_p aims at; negative: off."""
    adaptive_decay: float = 0.9

    logit_bias: dict[int, float] = {}
    """Added to the logits before anything else; -inf bans a token."""
    ignore_eos: bool = False
    n_probs: int = 0
    """Report this many most likely tokens (and the chosen one) with each token."""
    post_sampling_probs: bool = False
    """Report the probabilities that the chain has left, not those of the model."""
