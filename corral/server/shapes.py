"""The JSON of the answers, as types: what /openapi.json says of them.

Handlers build these objects as dictionaries; the tests hold the answers against the types.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from corral.engine.messages import Progress


class Status(TypedDict):
    status: Literal["ok"]


class ErrorBody(TypedDict):
    code: int
    message: str
    type: str
    n_prompt_tokens: NotRequired[int]
    n_ctx: NotRequired[int]


class Error(TypedDict):
    """llama-server's envelope of an error."""

    error: ErrorBody


class AnthropicErrorBody(TypedDict):
    type: str
    message: str


class AnthropicError(TypedDict):
    """Anthropic's form of an error."""

    type: Literal["error"]
    error: AnthropicErrorBody


class CachedTokens(TypedDict):
    cached_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class PromptUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class Timings(TypedDict):
    """Milliseconds, tokens, and tokens per second. The first token is part of the prompt's time."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    draft_n: NotRequired[int]
    draft_n_accepted: NotRequired[int]


class Alternative(TypedDict):
    """`logprob` before the sampling chain, `prob` after it."""

    id: int
    token: str
    bytes: list[int]
    logprob: NotRequired[float]
    prob: NotRequired[float]


class TokenProbability(Alternative):
    top_logprobs: NotRequired[list[Alternative]]
    top_probs: NotRequired[list[Alternative]]


class ChatLogprobs(TypedDict):
    content: list[TokenProbability]


class CompletionLogprobs(ChatLogprobs):
    """llama-server's form and OpenAI's older one in one object."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CalledFunction(TypedDict):
    name: str
    arguments: str


class ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]


class ChatChoice(TypedDict):
    index: int
    message: AssistantMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: NotRequired[ChatLogprobs]


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings


class ChatDelta(TypedDict):
    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]


class ChatChunkChoice(TypedDict):
    index: int
    delta: ChatDelta
    finish_reason: Literal["stop", "length", "tool_calls"] | None
    logprobs: NotRequired[ChatLogprobs]


class ChatChunk(TypedDict):
    """An event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: NotRequired[Usage]
    timings: NotRequired[Timings]
    prompt_progress: NotRequired[Progress]


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(TypedDict):
    """The whole answer, or an event of a stream, where all but the last are without `usage`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: NotRequired[Usage]
    timings: NotRequired[Timings]
    prompt_progress: NotRequired[Progress]


class NativeCompletion(TypedDict, total=False):
    """The whole answer, or an event of a stream; with `response_fields` only what these name."""

    index: int
    content: str
    tokens: list[int]
    id_slot: int
    stop: bool
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    generation_settings: dict[str, Any]
    prompt: str
    has_new_line: bool
    truncated: bool
    stop_type: Literal["none", "eos", "word", "limit"]
    stopping_word: str
    tokens_cached: int
    timings: Timings
    completion_probabilities: list[TokenProbability]
    prompt_progress: Progress


class Response(TypedDict):
    """OpenAI's response object; it says also what was asked for."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[dict[str, Any]]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    usage: dict[str, Any] | None


class Event(TypedDict):
    """An event that has its name in `type`; other members depend on that."""

    type: str


class DeletedResponse(TypedDict):
    id: str
    object: Literal["response"]
    deleted: bool


class InputItems(TypedDict):
    object: Literal["list"]
    data: list[dict[str, Any]]
    has_more: bool


class MessageUsage(TypedDict):
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: NotRequired[int]


class AnthropicMessage(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageTokens(TypedDict):
    input_tokens: int


class InputTokens(TypedDict):
    object: Literal["response.input_tokens"]
    input_tokens: int


class Embedding(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    encoding_format: NotRequired[Literal["base64"]]


class Embeddings(TypedDict):
    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: PromptUsage


class NativeEmbedding(TypedDict):
    """One vector, or without pooling one for each token."""

    index: int
    embedding: list[list[float]]


class Ranked(TypedDict):
    index: int
    relevance_score: float


class Ranking(TypedDict):
    object: Literal["list"]
    model: str
    results: list[Ranked]
    usage: PromptUsage


class TeiRanked(TypedDict):
    index: int
    score: float
    text: NotRequired[str]


class Piece(TypedDict):
    """`piece` is a text, or bytes that alone are no text."""

    id: int
    piece: str | list[int]


class Tokens(TypedDict):
    tokens: list[int | Piece]


class Text(TypedDict):
    content: str


class Prompt(TypedDict):
    prompt: str


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    tags: list[str]
    meta: dict[str, Any]


class Models(TypedDict):
    """OpenAI's list in `data`, Ollama's in `models`."""

    object: Literal["list"]
    data: list[Model]
    models: list[dict[str, Any]]


class Props(TypedDict):
    default_generation_settings: dict[str, Any]
    total_slots: int
    model_alias: str
    model_path: str
    model_ftype: str
    modalities: dict[str, bool]
    chat_template: str
    chat_template_caps: dict[str, bool]
    bos_token: str
    eos_token: str
    build_info: str
    is_sleeping: bool


class Success(TypedDict):
    success: bool


class Slot(TypedDict):
    id: int
    n_ctx: int
    speculative: bool
    is_processing: bool
    id_task: NotRequired[int]
    n_prompt_tokens: NotRequired[int]
    n_prompt_tokens_processed: NotRequired[int]
    n_prompt_tokens_cache: NotRequired[int]
    params: NotRequired[dict[str, Any]]
    next_token: NotRequired[list[dict[str, Any]]]


class SlotDone(TypedDict):
    id_slot: int
    filename: NotRequired[str | None]
    n_saved: NotRequired[int]
    n_written: NotRequired[int]
    n_restored: NotRequired[int]
    n_read: NotRequired[int]
    n_erased: NotRequired[int]
    timings: NotRequired[dict[str, float]]
