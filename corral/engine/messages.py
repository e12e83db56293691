"""The messages between the server and the engine.

    Submit, Cancel, SlotAction    server -> engine
    Output, Status, SlotResult    engine -> server

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
    constraint: Constraint | None = None
    special: bool = False
    """Give the text of control tokens too."""
    client: str = ""
    """Whom the request is for; the scheduler is fair between clients, ..."""
    connection: str = ""
    """... and between the connections of one client."""
    cache_prompt: bool = True
    """Begin behind the longest prefix whose keys and values are still there."""
    id_slot: int = -1
    """The slot it would like to run in; it gets another one when that is taken."""
    n_keep: int = 0
    """Tokens kept at a context shift; -1: the whole prompt."""
    n_discard: int = 0
    """Tokens dropped at a context shift; 0: half of those that are not kept."""
    max_predict_ms: int = 0
    """Time for the text, from its first token; looked at once there was a line break. 0: no limit."""
    least_indent: int = 0
    """Spaces and tabs that further lines begin with; the text ends before one with fewer. 0: no limit."""
    timings_per_token: bool = False
    """Give `timings` with every Output, not with the last one only."""
    progress: bool = False
    """Give an Output with `progress` for every step of the prompt."""
    prompt_probs: bool = False
    """Give `prompt_infos`, with `sampling.n_probs` alternatives. All of the prompt is computed."""


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """The client is gone: free what the request holds. Answered by an `Output` that is "cancelled"."""

    id: str


class SlotAction(msgspec.Struct, tag="slot_action", frozen=True, kw_only=True):
    """Save what the cache has of a slot's tokens, bring it back, or forget it. Answered by a SlotResult."""

    id: str
    action: Literal["save", "restore", "erase"]
    id_slot: int
    filename: str = ""
    """In the folder of --slot-save-path."""


class TopToken(msgspec.Struct, frozen=True, array_like=True):
    id: int
    piece: bytes
    logprob: float


class TokenInfo(msgspec.Struct, frozen=True, array_like=True):
    """A generated token, its log probability and the likeliest alternatives."""

    id: int
    piece: bytes
    logprob: float
    top: list[TopToken] = []
    post_sampling: bool = False
    """The probabilities are those after the sampling chain, not the model's."""


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
    draft_n: int = 0
    """Tokens that were guessed, and those of them that the model chose too; 0 without speculation."""
    draft_n_accepted: int = 0


class Progress(msgspec.Struct, frozen=True):
    """How far the prompt has been computed, tokens."""

    total: int
    cache: int
    """Of them, found in the prefix cache."""
    processed: int
    """Of them, done; the cached ones too."""
    time_ms: float


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request failed, for the error envelope."""

    status: int
    type: str
    message: str
    extra: dict[str, int] = {}
    retry_after: int = 0
    """Seconds after which trying again makes sense; 0: it does not."""


class Output(msgspec.Struct, tag="output", frozen=True, kw_only=True, omit_defaults=True):
    """What one step added to one request, or how the request ended (then `finish_reason` is set)."""

    id: str
    text: str = ""
    """Whole UTF-8 characters, never a part of a stop string."""
    tokens: list[int] = []
    """Ids sampled since the last Output; their text may still be held back."""
    infos: list[TokenInfo] = []
    """One per token, when the request asked for probabilities."""
    prompt_infos: list[TokenInfo] = []
    """The same for tokens of the prompt: those behind the ones of the last Output, from the second one on."""
    finish_reason: FinishReason | None = None
    stop_type: Literal["none", "eos", "word", "limit"] = "none"
    stopping_word: str = ""
    timings: Timings | None = None
    seed: int = 0
    id_slot: int = -1
    """The slot the request runs in; -1 before it ran."""
    truncated: bool = False
    """Tokens were lost to a context shift, or the context was full before the text had ended."""
    progress: Progress | None = None
    error: ErrorInfo | None = None
    embedding: bytes = b""
    """What a model makes of the prompt that does not generate: float32 [n, width], little-endian. One row, or
    without pooling one for each token; for ranking, the score."""


class SlotResult(msgspec.Struct, tag="slot_result", frozen=True, kw_only=True, omit_defaults=True):
    """What became of a SlotAction."""

    id: str
    n_tokens: int = 0
    """Tokens saved, restored or forgotten."""
    n_bytes: int = 0
    """Of the file."""
    ms: float = 0.0
    error: ErrorInfo | None = None


class SlotStats(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the sequences that can run at a time: the request in it, or the last that was."""

    id: int
    is_processing: bool = False
    request: str = ""
    """Its Submit's id; empty before the first one."""
    task: int = -1
    """Rising number of its submission."""
    n_prompt_tokens: int = 0
    n_prompt_tokens_processed: int = 0
    """Computed so far, without the cached ones."""
    n_prompt_tokens_cache: int = 0
    n_decoded: int = 0
    n_remain: int = -1
    """Tokens it may still generate; -1 when idle."""


class Stats(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counters since the engine started, and gauges of this moment."""

    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    """Prompt tokens of those that wait."""
    blocks_used: int = 0
    blocks_cached: int = 0
    """Free, but what is in them can be found again."""
    blocks_total: int = 0
    slots: list[SlotStats] = []
    """One for each sequence that can run at a time, by id."""

    prompt_tokens: int = 0
    """Computed; those of `cached_tokens` are not among them."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache."""
    cache_hits: int = 0
    """Requests that began behind a cached prefix, and those that had to begin at the start."""
    cache_misses: int = 0
    prompt_ms: float = 0.0
    predicted_tokens: int = 0
    predicted_ms: float = 0.0
    steps: int = 0
    step_sequences: int = 0
    """Sum over the steps of the requests in each."""
    most_tokens: int = 0
    """The longest sequence there was, prompt and generated."""
    preemptions: int = 0
    rejected: int = 0
    """Requests turned away because the queue was full or they had waited too long."""
    drafts: int = 0
    draft_tokens: int = 0
    draft_accepted: int = 0
    draft_accepted_at: list[int] = []
    """[i]: drafts of which the token at place i was accepted."""


INPUTS_AT_ONCE = 64
"""Most Submits that the server has under way for one HTTP request that has many prompts or texts."""

Pooling = Literal["none", "mean", "cls", "last", "rank"]
"""What becomes of the hidden states of a text: all of them, their mean, the first, the last, or a score."""


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
    pooling: Pooling | None = None
    """How embeddings are made; None: the engine generates, and makes none."""
    encoder: bool = False
    """The model can't generate."""
    speculation: tuple[str, ...] = ()
    """How tokens are guessed ahead, by the names of --spec-type."""


class Status(msgspec.Struct, tag="status", frozen=True, kw_only=True, omit_defaults=True):
    """Where the engine is: sent while loading, once when ready or failed, and then about once a second."""

    state: Literal["loading", "ready", "failed"]
    progress: float = 0.0
    """Share of the weights loaded, 0 to 1."""
    message: str = ""
    ready: Ready | None = None
    stats: Stats = Stats()


ToEngine = Submit | Cancel | SlotAction
ToServer = Output | Status | SlotResult
