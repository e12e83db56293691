"""The four messages between the server and the engine.

    Submit, Cancel    server -> engine
    Output, Status    engine -> server

A frame on the wire is a 4-byte little-endian length and a msgpack array of messages; the engine sends one
frame a step. `server/` and `engine/` share nothing else. Every submitted request ends with exactly one
`Output` that has a `finish_reason`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from corral.sampling.params import SamplingParams

FinishReason = Literal["stop", "length", "cancelled", "error"]


class Constraint(msgspec.Struct, frozen=True, array_like=True):
    """What the generated text has to be."""

    kind: Literal["json_schema", "gbnf", "regex", "lark"]
    text: str
    """The schema as JSON, or the grammar; `lark` is llguidance's dialect."""


class Submit(msgspec.Struct, tag="submit", frozen=True, kw_only=True, omit_defaults=True):
    """A request to generate from a prompt of token ids."""

    id: str
    prompt: list[int]
    max_tokens: int = -1
    """-1: until the end of the sequence or of the context."""
    stop: list[str] = []
    sampling: SamplingParams = SamplingParams()
    special: bool = False
    """Give the text of control tokens too."""
    client: str = ""
    """Whom the request is for; the scheduler is fair between clients."""


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """The client is gone: free what the request holds. Answered by an `Output` that is "cancelled"."""

    id: str


class TopToken(msgspec.Struct, frozen=True, array_like=True):
    id: int
    piece: bytes
    logprob: float


class TokenInfo(msgspec.Struct, frozen=True, array_like=True):
    """A generated token, its log probability (before the sampling chain) and the likeliest alternatives."""

    id: int
    piece: bytes
    logprob: float
    top: list[TopToken] = []


class Timings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Times in ms. A request is queued, then its prompt is computed, then tokens are predicted.

    `prompt_n + cache_n` is the length of the prompt. The first token is part of the prompt's time.
    """

    queue_ms: float = 0.0
    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request failed, for the error envelope."""

    status: int
    type: str
    message: str
    extra: dict[str, int] = {}


class Output(msgspec.Struct, tag="output", frozen=True, kw_only=True, omit_defaults=True):
    """What one step added to one request, or how the request ended (then `finish_reason` is set)."""

    id: str
    text: str = ""
    """Whole UTF-8 characters, never a part of a stop string."""
    tokens: list[int] = []
    """Ids sampled since the last Output; their text may still be held back."""
    infos: list[TokenInfo] = []
    """One per token, when the request asked for probabilities."""
    finish_reason: FinishReason | None = None
    stop_type: Literal["none", "eos", "word", "limit"] = "none"
    stopping_word: str = ""
    timings: Timings | None = None
    seed: int = 0
    error: ErrorInfo | None = None


class Stats(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counters since the engine started, and gauges of this moment."""

    running: int = 0
    waiting: int = 0
    blocks_used: int = 0
    blocks_total: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_ms: float = 0.0
    predicted_tokens: int = 0
    predicted_ms: float = 0.0
    steps: int = 0
    step_sequences: int = 0


class Ready(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the engine decided while loading, for the banner, /props and /v1/models."""

    n_ctx: int
    """Tokens one request may use."""
    kv_tokens: int
    """Tokens the pool holds."""
    parallel: int
    threads: int
    isa: str
    executor: str
    weights_bytes: int
    kv_bytes: int
    load_ms: float
    notes: list[str] = []


class Status(msgspec.Struct, tag="status", frozen=True, kw_only=True, omit_defaults=True):
    """Where the engine is: sent while loading, once when ready or failed, and then about once a second."""

    state: Literal["loading", "ready", "failed"]
    progress: float = 0.0
    """Share of the weights loaded, 0 to 1."""
    message: str = ""
    ready: Ready | None = None
    stats: Stats = Stats()


ToEngine = Submit | Cancel
ToServer = Output | Status
