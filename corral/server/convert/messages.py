"""A request to /v1/messages, in Anthropic's form, as one for a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corral.errors import NotSupported, RequestError
from corral.server.convert.fields import Kinds, one_of, passed_on, read_kind
from corral.server.decode import convert, shown
from corral.server.schema import ChatRequest, Count, GenerateRequest, Limit, check_supported

DEFAULT_MAX_TOKENS = 4096
EFFORTS = ("low", "medium", "high", "xhigh", "max")
ROLES = ("user", "assistant", "system")
THINKING = {"enabled": True, "adaptive": True, "between_tools": True, "disabled": False}
TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none", "tool": ""}


class Thinking(msgspec.Struct):
    type: str
    budget_tokens: Count | None = None
    display: str | None = None


class ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(msgspec.Struct):
    type: str
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: OutputFormat | None = None


class MessagesRequest(GenerateRequest, kw_only=True):
    """POST /v1/messages, /v1/messages/count_tokens. Fields of the completion endpoints mean here the same."""

    messages: list[Any]
    system: str | list[Any] | None = None
    stop_sequences: list[str] | None = None
    tools: list[Any] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    reasoning_budget_tokens: Limit | None = None

    def shows_thinking(self) -> bool:
        return self.thinking is None or self.thinking.display != "omitted"


class Message(msgspec.Struct):
    role: str
    content: str | list[Any]


class Text(msgspec.Struct):
    text: str


class ThinkingBlock(msgspec.Struct):
    thinking: str


class RedactedThinking(msgspec.Struct):
    pass


class ToolUse(msgspec.Struct):
    id: str
    name: str
    input: dict[str, Any]


class ToolResult(msgspec.Struct):
    tool_use_id: str
    content: str | list[Any] | None = None
    is_error: bool | None = None


class Document(msgspec.Struct):
    source: dict[str, Any]
    title: str | None = None


class TextSource(msgspec.Struct):
    data: str


class Image(msgspec.Struct):
    pass


TEXT: Kinds = {"text": Text, "image": Image, "document": Document}
BLOCKS: Mapping[str, Kinds] = {
    "system": {"text": Text},
    "user": {**TEXT, "tool_result": ToolResult},
    "assistant": {
        "text": Text,
        "thinking": ThinkingBlock,
        "redacted_thinking": RedactedThinking,
        "tool_use": ToolUse,
    },
}
"""The kinds of content block that the messages of a role may have."""


class Tool(msgspec.Struct):
    name: str
    input_schema: dict[str, Any]
    description: str | None = None


def chat_request(request: MessagesRequest) -> ChatRequest:
    """The same as a chat. Raises RequestError, NotSupported."""
    messages: list[dict[str, Any]] = []
    if request.system is not None:
        content = _plain(request.system, BLOCKS["system"], "system")
        messages.append({"role": "system", "content": content})
    for i, value in enumerate(request.messages):
        messages += _messages(convert(value, Message, f"messages[{i}]"), f"messages[{i}]")
    if not request.messages:  # Anthropic's clients may count the tokens of nothing
        messages.append({"role": "user", "content": ""})
    fields = passed_on(request, ("messages", "n", "n_cmpl", "tools", "tool_choice"))
    if request.limit() < 0 and request.max_tokens is None:
        fields["max_tokens"] = DEFAULT_MAX_TOKENS
    if request.stop_sequences:
        fields["stop"] = request.stop_sequences
    fields |= _thinking(request) | _output(request.output_config) | _tools(request)
    chat = ChatRequest(messages=messages, **fields)
    check_supported(chat)
    return chat


def _messages(message: Message, where: str) -> list[dict[str, Any]]:
    role = one_of(message.role, ROLES, f"{where}.role")
    where += ".content"
    if isinstance(message.content, str):
        return [{"role": role, "content": message.content}]
    blocks = [
        (read_kind(value, BLOCKS[role], f"{where}[{i}]"), f"{where}[{i}]")
        for i, value in enumerate(message.content)
    ]
    return [_assistant(blocks)] if role == "assistant" else _results_and_texts(role, blocks)


def _assistant(blocks: Sequence[tuple[Any, str]]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant"}
    said["content"] = _joined([b.text for b, _ in blocks if isinstance(b, Text)])
    if thoughts := [b.thinking for b, _ in blocks if isinstance(b, ThinkingBlock)]:
        said["reasoning_content"] = "\n".join(thoughts)
    calls = [
        {
            "id": b.id,
            "type": "function",
            "function": {"name": b.name, "arguments": msgspec.json.encode(b.input).decode()},
        }
        for b, _ in blocks
        if isinstance(b, ToolUse)
    ]
    if calls:
        said["tool_calls"] = calls
    return said


def _results_and_texts(role: str, blocks: Sequence[tuple[Any, str]]) -> list[dict[str, Any]]:
    """A message for each result of a tool, and one for the texts between two results, in their order."""
    messages: list[dict[str, Any]] = []
    texts: list[str] = []

    def flush() -> None:
        if texts or (role == "system" and not messages):
            messages.append({"role": role, "content": _joined(texts)})
            texts.clear()

    for block, where in blocks:
        if not isinstance(block, ToolResult):
            texts.append(_text(block, where))
            continue
        flush()
        content = _plain(block.content or "", TEXT, f"{where}.content")
        if block.is_error:
            content = [{"type": "text", "text": "Error:"}, *_as_parts(content)]
        messages.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
    flush()
    return messages or [{"role": role, "content": ""}]


def _plain(content: str | list[Any], kinds: Kinds, where: str) -> Any:
    """A content that has text only."""
    if isinstance(content, str):
        return content
    return _joined(
        [_text(read_kind(v, kinds, f"{where}[{i}]"), f"{where}[{i}]") for i, v in enumerate(content)]
    )


def _text(block: Any, where: str) -> str:
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Document):
        text: str = read_kind(block.source, {"text": TextSource}, f"{where}.source").data
        return f"{block.title}\n{text}" if block.title else text
    raise NotSupported(f"Field '{where}': 'image' is not supported, this model reads text only")


def _joined(texts: Sequence[str]) -> str | list[dict[str, str]]:
    return "".join(texts) if len(texts) < 2 else [{"type": "text", "text": text} for text in texts]


def _as_parts(content: Any) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _thinking(request: MessagesRequest) -> dict[str, Any]:
    thinking = request.thinking
    if thinking is None:
        return {}
    enabled = THINKING[one_of(thinking.type, THINKING, "thinking.type")]
    if thinking.display is not None:
        one_of(thinking.display, ("summarized", "omitted"), "thinking.display")
    fields: dict[str, Any] = {"enable_thinking": enabled}
    if thinking.type == "enabled" and thinking.budget_tokens is not None:
        fields["reasoning_budget_tokens"] = thinking.budget_tokens
    return fields


def _output(config: OutputConfig | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if config is not None and config.effort is not None:
        fields["reasoning_effort"] = one_of(config.effort, EFFORTS, "output_config.effort")
    if config is not None and config.format is not None:
        one_of(config.format.type, ("json_schema",), "output_config.format.type")
        schema = {"name": "output", "schema": config.format.schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


def _tools(request: MessagesRequest) -> dict[str, Any]:
    tools = [_chat_tool(value, f"tools[{i}]") for i, value in enumerate(request.tools or [])]
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": tools}
    given = request.tool_choice
    if given is not None:
        choice: Any = TOOL_CHOICES[one_of(given.type, TOOL_CHOICES, "tool_choice.type")]
        if given.type == "tool":
            names = [tool["function"]["name"] for tool in tools]
            name = one_of(given.name, names, "tool_choice.name")
            choice = {"type": "function", "function": {"name": name}}
        fields["tool_choice"] = choice
        if given.disable_parallel_tool_use is not None:
            fields["parallel_tool_calls"] = not given.disable_parallel_tool_use
    return fields


def _chat_tool(value: Any, where: str) -> dict[str, Any]:
    kind = value.get("type", "custom") if isinstance(value, dict) else "custom"
    if kind not in ("custom", None):
        raise RequestError(
            f"Field '{where}.type': {shown(kind)} is one of Anthropic's own tools, expected 'custom'"
        )
    tool = convert(value, Tool, where)
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}
