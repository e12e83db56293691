"""Requests of Ollama's API as those for a chat or a completion."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from corral.errors import NotSupported, RequestError
from corral.server.decode import convert, shown
from corral.server.schema import (
    INT32,
    Bias,
    ChatRequest,
    Limit,
    Moderate,
    NativeRequest,
    Share,
    StopString,
)

DEPTHS = ("low", "medium", "high", "max")
"""Words for `think`, beside true and false."""


class Options(msgspec.Struct, kw_only=True):
    """`options`. Those that say how a model is loaded, such as `num_ctx`, are decided at the start here."""

    num_predict: Annotated[int, Meta(ge=-2, le=INT32)] | None = None
    num_keep: Limit | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=256)] | None = None
    temperature: Moderate | None = None
    top_k: Annotated[int, Meta(ge=-INT32, le=INT32)] | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    typical_p: Moderate | None = None
    repeat_last_n: Limit | None = None
    repeat_penalty: Annotated[float, Meta(ge=1e-6, le=1e4)] | None = None
    presence_penalty: Bias | None = None
    frequency_penalty: Bias | None = None
    mirostat: Annotated[int, Meta(ge=0, le=2)] | None = None
    mirostat_tau: Moderate | None = None
    mirostat_eta: Moderate | None = None


class OllamaRequest(msgspec.Struct, kw_only=True):
    """What /api/chat and /api/generate have in common."""

    model: str | None = None
    stream: bool | None = None
    options: Options | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    keep_alive: Any = None


class OllamaChatRequest(OllamaRequest, kw_only=True):
    """POST /api/chat."""

    messages: list[Any] | None = None
    tools: list[Any] | None = None


class OllamaGenerateRequest(OllamaRequest, kw_only=True):
    """POST /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None
    images: list[Any] | None = None
    template: str | None = None
    context: list[Any] | None = None


def chat_request(request: OllamaChatRequest) -> ChatRequest:
    """Raises RequestError, NotSupported."""
    messages = _messages(request.messages or [])
    return ChatRequest(
        messages=messages, tools=request.tools or None, **_thinking(request), **_fields(request)
    )


def generate_request(request: OllamaGenerateRequest) -> ChatRequest | NativeRequest:
    """A chat of one turn; with `raw` or a `suffix` a completion. Raises RequestError, NotSupported."""
    for name in ("images", "template", "context"):
        if getattr(request, name):
            raise NotSupported(f"Field '{name}': is not supported, expected none")
    prompt = request.prompt or ""
    if request.raw or request.suffix:
        return NativeRequest(prompt=prompt, **_fields(request))
    messages = [{"role": "system", "content": request.system}] if request.system else []
    messages.append({"role": "user", "content": prompt})
    return ChatRequest(messages=messages, **_thinking(request), **_fields(request))


def _fields(request: OllamaRequest) -> dict[str, Any]:
    """Sampling, limits and the form of the answer."""
    given = {} if request.options is None else msgspec.structs.asdict(request.options)
    fields = {name: value for name, value in given.items() if value is not None}
    if "num_predict" in fields:  # -2: until the context is full, which is where -1 ends too
        fields["n_predict"] = max(-1, fields.pop("num_predict"))
    if "num_keep" in fields:
        fields["n_keep"] = fields.pop("num_keep")
    format = request.format
    if isinstance(format, dict):
        fields["json_schema"] = format
    elif format == "json":
        fields["response_format"] = {"type": "json_object"}
    elif format:
        raise RequestError(f"Field 'format': expected \"json\" or a JSON schema, got {shown(format)}")
    return fields


def _thinking(request: OllamaRequest) -> dict[str, Any]:
    think = request.think
    if isinstance(think, str):
        if think not in DEPTHS:
            expected = "true, false, " + ", ".join(f'"{depth}"' for depth in DEPTHS)
            raise RequestError(f"Field 'think': expected one of {expected}, got {shown(think)}")
        return {"enable_thinking": True, "reasoning_effort": think}
    return {} if think is None else {"enable_thinking": think}


class Message(msgspec.Struct, kw_only=True):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[Any] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


def _messages(values: list[Any]) -> list[dict[str, Any]]:
    """Calls have no ids in this API: results follow in the order of the calls."""
    messages: list[dict[str, Any]] = []
    waiting: list[str] = []  # ids of the calls whose result has not come
    count = 0
    for i, value in enumerate(values):
        message = convert(value, Message, f"messages[{i}]")
        if message.images:
            raise NotSupported(f"Field 'messages[{i}].images': are not supported, this model reads text only")
        said: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.thinking:
            said["reasoning_content"] = message.thinking
        if message.tool_calls:
            waiting = [f"call{n:05}" for n in range(count, count + len(message.tool_calls))]
            count += len(waiting)
            said["tool_calls"] = [
                {**call, "id": id} if isinstance(call, dict) else call
                for call, id in zip(message.tool_calls, waiting, strict=True)
            ]
        if message.role == "tool":
            said["tool_call_id"] = waiting.pop(0) if waiting else ""
            said["name"] = message.tool_name
        messages.append(said)
    return messages
