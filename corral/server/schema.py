"""Requests that generate: every field with its type and bounds, and what this version does not do yet."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from corral.errors import NotSupported
from corral.server.decode import Schema, shown

INT32 = 2**31 - 1

Limit = Annotated[int, Meta(ge=-1, le=INT32)]
"""A count where -1 means no limit."""
Count = Annotated[int, Meta(ge=0, le=INT32)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Moderate = Annotated[float, Meta(ge=-1e6, le=1e6)]
Bias = Annotated[float, Meta(ge=-1e4, le=1e4)]
Choices = Annotated[int, Meta(ge=1, le=1024)]
StopString = Annotated[str, Meta(max_length=4096)]
MOST_BIASES = 1 << 16
Biases = Annotated[dict[str, Any], Meta(max_length=MOST_BIASES)]
BiasPairs = Annotated[list[Any], Meta(max_length=MOST_BIASES)]
FieldPaths = Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=256)]
"""Names of members, those of inner objects after a slash."""


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class GenerateRequest(msgspec.Struct, kw_only=True):
    """What the completion endpoints have in common."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n_predict: Limit | None = None
    max_completion_tokens: Limit | None = None
    max_tokens: Limit | None = None
    n: Choices | None = None
    n_cmpl: Choices | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=256)] | None = None
    sse_ping_interval: Limit | None = None

    temperature: Moderate | None = None
    top_k: Annotated[int, Meta(ge=-INT32, le=INT32)] | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=1e-6, le=1e4)] | None = None
    repeat_last_n: Limit | None = None
    presence_penalty: Bias | None = None
    frequency_penalty: Bias | None = None
    logit_bias: Biases | BiasPairs | None = None
    ignore_eos: bool | None = None
    n_probs: Annotated[int, Meta(ge=0, le=1024)] | None = None
    typical_p: Moderate | None = None
    top_n_sigma: Moderate | None = None
    xtc_probability: Share | None = None
    xtc_threshold: Share | None = None
    dry_multiplier: Moderate | None = None
    dry_base: Moderate | None = None
    dry_allowed_length: Count | None = None
    dry_penalty_last_n: Limit | None = None
    dry_sequence_breakers: list[str] | None = None
    dynatemp_range: Moderate | None = None
    dynatemp_exponent: Moderate | None = None
    mirostat: Annotated[int, Meta(ge=0, le=2)] | None = None
    mirostat_tau: Moderate | None = None
    mirostat_eta: Moderate | None = None
    adaptive_target: Annotated[float, Meta(ge=-1e6, le=1.0)] | None = None
    adaptive_decay: Annotated[float, Meta(ge=0.0, le=0.99)] | None = None
    samplers: list[str] | str | None = None
    min_keep: Count | None = None
    post_sampling_probs: bool | None = None

    cache_prompt: bool | None = None
    id_slot: Annotated[int, Meta(ge=-1, le=1023)] | None = None
    n_keep: Limit | None = None
    n_discard: Count | None = None
    n_cache_reuse: Count | None = None
    """Without effect on the text: what is behind a changed passage is computed anew."""

    grammar: str | None = None
    json_schema: Any = None
    response_format: dict[str, Any] | None = None

    t_max_predict_ms: Annotated[int, Meta(ge=-1, le=2**63 - 1)] | None = None
    return_tokens: bool | None = None
    return_progress: bool | None = None
    timings_per_token: bool | None = None
    response_fields: FieldPaths | None = None
    verbose: bool | None = None

    n_indent: Count | None = None
    # Not built yet: see NOT_YET.
    lora: list[Any] | None = None

    def limit(self) -> int:
        """Most tokens asked for; -1: no limit."""
        for value in (self.n_predict, self.max_completion_tokens, self.max_tokens):
            if value is not None:
                return value
        return -1

    def choices(self) -> int:
        """How many results of each prompt the response has."""
        return self.n or self.n_cmpl or 1

    def results(self) -> int:
        """How many are generated."""
        return self.choices()

    def stops(self) -> list[str]:
        stop = self.stop or []
        return [s for s in ([stop] if isinstance(stop, str) else stop) if s]

    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(GenerateRequest, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Any]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    reasoning_effort: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    parallel_tool_calls: bool | None = None
    parse_tool_calls: bool | None = None
    reasoning_format: str | None = None
    reasoning_budget_tokens: Limit | None = None
    thinking_budget_tokens: Limit | None = None
    reasoning_budget_message: str | None = None
    reasoning_control: bool | None = None


class CompletionRequest(GenerateRequest, kw_only=True):
    """POST /v1/completions."""

    prompt: Any
    logprobs: Annotated[int, Meta(ge=0, le=1024)] | bool | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Choices | None = None

    def results(self) -> int:
        return self.best_of or self.choices()


class NativeRequest(GenerateRequest, kw_only=True):
    """POST /completion."""

    prompt: Any
    logprobs: Annotated[int, Meta(ge=0, le=1024)] | bool | None = None


class ExtraFile(msgspec.Struct):
    text: str
    filename: str | None = None


class InfillRequest(NativeRequest, kw_only=True):
    """POST /infill."""

    input_prefix: str
    input_suffix: str
    input_extra: Annotated[list[ExtraFile], Meta(max_length=1024)] | None = None
    prompt: str | None = None


NOT_YET: dict[str, tuple[Any, ...]] = {
    "lora": ([],),
    "functions": ([],),
    "reasoning_control": (False,),
}
"""Fields that are not built yet, with the values that ask for what happens anyway."""


def check_supported(request: msgspec.Struct) -> None:
    """Raises NotSupported."""
    for name, same in NOT_YET.items():
        value = getattr(request, name, None)
        if value is not None and value not in same:
            raise NotSupported(f"Field '{name}': {shown(value)} is not supported yet")


CHAT = Schema(ChatRequest, check_supported)
COMPLETION = Schema(CompletionRequest, check_supported)
NATIVE = Schema(NativeRequest, check_supported)
INFILL = Schema(InfillRequest, check_supported)
