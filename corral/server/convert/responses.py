"""A request to /v1/responses as one for a chat.

The items of a turn of the assistant (reasoning, text, calls) become one message.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from corral.errors import NotSupported, RequestError
from corral.server.convert.fields import Kinds, one_of, passed_on, read_kind
from corral.server.schema import ChatRequest, GenerateRequest, Limit, check_supported

log = logging.getLogger("corral.server")

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
ROLES = ("user", "assistant", "system", "developer")
CHOICES = ("auto", "none", "required")


class TextConfig(msgspec.Struct):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ReasoningConfig(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(GenerateRequest, kw_only=True):
    """POST /v1/responses. Fields of the completion endpoints mean here what they mean there."""

    input: str | list[Any]
    instructions: str | None = None
    max_output_tokens: Limit | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    truncation: str | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None

    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    reasoning_format: str | None = None
    reasoning_budget_tokens: Limit | None = None
    thinking_budget_tokens: Limit | None = None
    reasoning_budget_message: str | None = None


class FormatText(msgspec.Struct):
    pass


class FormatSchema(msgspec.Struct):
    schema: dict[str, Any]
    name: str = "response"
    description: str | None = None
    strict: bool | None = None


FORMATS: Kinds = {"text": FormatText, "json_object": FormatText, "json_schema": FormatSchema}


class Message(msgspec.Struct):
    role: str
    content: str | list[Any]


class FunctionCall(msgspec.Struct):
    call_id: str
    name: str
    arguments: str


class FunctionCallOutput(msgspec.Struct):
    call_id: str
    output: str | list[Any]


class Reasoning(msgspec.Struct):
    summary: list[Any] | None = None
    content: list[Any] | None = None


ITEMS: Kinds = {
    "message": Message,
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
    "reasoning": Reasoning,
}


class TextPart(msgspec.Struct):
    text: str


class Refusal(msgspec.Struct):
    refusal: str


class Unsupported(msgspec.Struct):
    """A part that this server can't read."""


PARTS: Kinds = {
    "input_text": TextPart,
    "output_text": TextPart,
    "text": TextPart,
    "refusal": Refusal,
    "input_image": Unsupported,
    "input_audio": Unsupported,
    "input_file": Unsupported,
}
REASONING_PARTS: Kinds = {"reasoning_text": TextPart, "summary_text": TextPart}


class FunctionTool(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionChoice(msgspec.Struct):
    name: str


class AllowedTools(msgspec.Struct):
    mode: str
    tools: list[FunctionChoice]


TOOL_CHOICES: Kinds = {"function": FunctionChoice, "allowed_tools": AllowedTools}


def chat_request(request: ResponsesRequest, items: Sequence[Any], history: Sequence[Any] = ()) -> ChatRequest:
    """The same as a chat; `history` has the items of the responses it goes on from.

    Raises RequestError, NotSupported.
    """
    for name in ("conversation", "prompt"):
        if getattr(request, name) is not None:
            raise NotSupported(f"Field '{name}': this server keeps none, expected null")
    if request.background:
        raise NotSupported("Field 'background': true is not supported, expected false")
    if request.truncation is not None:
        one_of(request.truncation, ["disabled"], "truncation")
    fields = passed_on(request, ("messages", "n", "n_cmpl", "tools", "tool_choice", "max_tokens"))
    messages = [] if request.instructions is None else [{"role": "system", "content": request.instructions}]
    tools, choice = _tools(request)
    if tools:
        fields.update(tools=tools, tool_choice=choice)
    if request.max_output_tokens is not None:
        fields["max_tokens"] = request.max_output_tokens
    elif request.max_tokens is not None:
        fields["max_tokens"] = request.max_tokens
    if request.text is not None and request.text.format is not None:
        fields["response_format"] = _format(request.text.format)
    if request.reasoning is not None and request.reasoning.effort is not None:
        fields["reasoning_effort"] = one_of(request.reasoning.effort, EFFORTS, "reasoning.effort")
    if "message.output_text.logprobs" in (request.include or ()):
        fields["logprobs"] = True
    else:
        fields.pop("top_logprobs", None)
    messages += _messages([*history, *items], len(history))
    chat = ChatRequest(messages=messages, **fields)
    check_supported(chat)
    return chat


def input_items(request: ResponsesRequest) -> list[Any]:
    """The input as items."""
    if isinstance(request.input, str):
        return [{"type": "message", "role": "user", "content": request.input}]
    return request.input


def _messages(items: Sequence[Any], n_history: int) -> list[dict[str, Any]]:
    """`n_history` items are not this request's: the error of one of its own names its own index."""
    messages: list[dict[str, Any]] = []
    turn: dict[str, Any] | None = None  # the assistant's message that further items add to
    for i, value in enumerate(items):
        where = f"input[{i - n_history}]"
        item = read_kind(value, ITEMS, where, default="message")
        if isinstance(item, FunctionCallOutput):
            content = _content(item.output, f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
            turn = None
            continue
        if isinstance(item, Message):
            role = one_of(item.role, ROLES, f"{where}.role")
            content = _content(item.content, f"{where}.content")
            if role != "assistant":
                messages.append({"role": role, "content": content})
                turn = None
                continue
        if turn is None or (isinstance(item, (Message, Reasoning)) and _begins_another(item, turn)):
            turn = {"role": "assistant", "content": ""}
            messages.append(turn)
        if isinstance(item, Message):
            turn["content"] = content
        elif isinstance(item, Reasoning):
            turn["reasoning_content"] = _reasoning(item, where)
        else:
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            turn.setdefault("tool_calls", []).append(call)
    return messages


def _begins_another(item: Message | Reasoning, turn: dict[str, Any]) -> bool:
    """A turn is reasoning, then text, then calls."""
    return bool(turn["content"]) or "tool_calls" in turn or isinstance(item, Reasoning)


def _content(content: str | list[Any], where: str) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    parts = []
    for i, value in enumerate(content):
        part = read_kind(value, PARTS, f"{where}[{i}]")
        if isinstance(part, Unsupported):
            kind = value["type"]
            if kind == "input_file":
                raise RequestError(f"Field '{where}[{i}]': 'input_file' is not supported, send its text")
            raise NotSupported(f"Field '{where}[{i}]': '{kind}' is not supported, this model reads text only")
        parts.append({"type": "text", "text": part.refusal if isinstance(part, Refusal) else part.text})
    return parts[0]["text"] if len(parts) == 1 else parts


def _reasoning(item: Reasoning, where: str) -> str:
    """What was thought, or else its summary."""
    for name, parts in (("content", item.content), ("summary", item.summary)):
        if parts:
            return "\n".join(
                read_kind(part, REASONING_PARTS, f"{where}.{name}[{i}]").text for i, part in enumerate(parts)
            )
    return ""


def _tools(request: ResponsesRequest) -> tuple[list[dict[str, Any]], Any]:
    """The functions that may be called, and the choice among them, in the form of a chat request."""
    tools = [_chat_tool(tool) for tool in functions(request)]
    value = request.tool_choice
    if value is None or isinstance(value, str):
        return tools, one_of("auto" if value is None else value, CHOICES, "tool_choice")
    choice = read_kind(value, TOOL_CHOICES, "tool_choice")
    if isinstance(choice, FunctionChoice):
        return tools, {"type": "function", "function": {"name": _known(choice, tools, "tool_choice")}}
    allowed = [_known(tool, tools, f"tool_choice.tools[{i}]") for i, tool in enumerate(choice.tools)]
    mode = one_of(choice.mode, ("auto", "required"), "tool_choice.mode")
    return [tool for tool in tools if tool["function"]["name"] in allowed], mode


def functions(request: ResponsesRequest) -> list[FunctionTool]:
    """The tools that are functions. Others run at OpenAI: agents offer them everywhere, so they are left out.

    Raises RequestError.
    """
    found = []
    for i, value in enumerate(request.tools or []):
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind != "function":
            log.warning("left out a tool of type %r of a request: this server has functions only", kind[:64])
        else:
            found.append(read_kind(value, {"function": FunctionTool}, f"tools[{i}]"))
    return found


def _chat_tool(tool: FunctionTool) -> dict[str, Any]:
    function = {k: v for k, v in msgspec.structs.asdict(tool).items() if v is not None}
    return {"type": "function", "function": function}


def _known(choice: FunctionChoice, tools: Sequence[dict[str, Any]], where: str) -> str:
    return one_of(choice.name, [tool["function"]["name"] for tool in tools], f"{where}.name")


def _format(value: dict[str, Any]) -> dict[str, Any]:
    read = read_kind(value, FORMATS, "text.format")
    if isinstance(read, FormatSchema):
        schema = {"name": read.name, "schema": read.schema, "strict": read.strict}
        return {"type": "json_schema", "json_schema": schema}
    return {"type": value["type"]}
