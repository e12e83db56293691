"""From the messages of a request to the ones a template is given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from corral.chat.capabilities import Capabilities
from corral.chat.tool_formats.format import ToolFormat
from corral.chat.turns import alternate, fold_system, one_system, with_user
from corral.errors import NotSupported, RequestError

ROLES = {"developer": "system", "function": "tool"}
"""Names for a role that a template knows under another."""
MEDIA = ("image_url", "input_audio", "input_video", "video_url")
"""Parts of a content that llama-server knows, and no model here can take."""

Message = dict[str, Any]


def normalise(
    messages: Sequence[Any], capabilities: Capabilities, format: ToolFormat, instructions: str = ""
) -> list[Message]:
    """Checks the messages and says them the way the template understands.

    `format` writes calls for a template that can't; `instructions` go in front of the system message. Raises
    RequestError.
    """
    if not messages:
        raise RequestError("Field 'messages': expected at least one message, got an empty array")
    said = [_message(m, f"messages[{i}]") for i, m in enumerate(messages)]
    if len(said) > 1 and said[-1]["role"] == said[-2]["role"] == "assistant":
        raise RequestError("Cannot have 2 or more assistant messages at the end of the list.")
    if capabilities.object_arguments:
        _check_arguments(said)
    if instructions:
        said.insert(0, {"role": "system", "content": instructions})
    if capabilities.calls:
        said = _say_calls(said, capabilities)
    else:
        said = _write_calls(said, capabilities, format)
    if capabilities.thinking_key:
        said = [_rename_reasoning(m, capabilities.thinking_key) for m in said]
    if not capabilities.system:
        said = fold_system(said)
    elif not capabilities.late_system or instructions:
        said = one_system(said, capabilities.late_system)
    if not capabilities.lone_system:
        said = with_user(said)
    if capabilities.alternation:
        said = alternate(said)
    if capabilities.typed_content:
        said = [{**m, "content": _typed(m["content"])} for m in said]
    return said


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise RequestError(f"Field '{where}': expected an object, got {_kind(message)}")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise RequestError(f"Field '{where}.role': expected a string, got {_kind(role)}")
    if "content" not in message and role != "assistant":
        raise RequestError(f"Field '{where}.content': missing; every message but an assistant's needs it")
    said = {**message, "role": ROLES.get(role, role), "content": _text(message.get("content"), where)}
    calls = said.pop("tool_calls", None)
    one = said.pop("function_call", None)  # OpenAI's older form; its result has a name instead of an id
    if role == "assistant" and one and not calls:
        calls = [{"id": where, "function": one}]
    if role == "assistant" and calls:
        said["tool_calls"] = _calls(calls, f"{where}.tool_calls")
    for name in ("reasoning_content", "tool_call_id", "name"):
        if name in said and not isinstance(said[name], str):
            if said[name] is not None:
                raise RequestError(
                    f"Field '{where}.{name}': expected a string or null, got {_kind(said[name])}"
                )
            del said[name]
    return said


def _calls(calls: Any, where: str) -> list[Message]:
    """Calls of an earlier reply, their arguments as an object where they are one."""
    if not isinstance(calls, list):
        raise RequestError(f"Field '{where}': expected an array, got {_kind(calls)}")
    said = []
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise RequestError(f"Field '{where}[{i}].function': expected an object, got {_kind(function)}")
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(name, str) or not name:
            raise RequestError(f"Field '{where}[{i}].function.name': expected a string, got {_kind(name)}")
        if arguments is not None and not isinstance(arguments, (str, dict)):
            raise RequestError(
                f"Field '{where}[{i}].function.arguments': expected a string, got {_kind(arguments)}"
            )
        id = call.get("id")
        if id is not None and not isinstance(id, str):
            raise RequestError(f"Field '{where}[{i}].id': expected a string, got {_kind(id)}")
        said.append(
            {
                **call,
                "type": "function",
                "id": id or f"call{i:05}",
                "function": {**function, "name": name, "arguments": _object(arguments)},
            }
        )
    return said


def _object(arguments: str | dict[str, Any] | None) -> str | dict[str, Any]:
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _check_arguments(messages: list[Message]) -> None:
    """For a template that goes through the members of the arguments."""
    for i, message in enumerate(messages):
        for n, call in enumerate(message.get("tool_calls", ())):
            arguments = call["function"]["arguments"]
            if isinstance(arguments, str):
                raise RequestError(
                    f"Field 'messages[{i}].tool_calls[{n}].function.arguments': expected the text of a JSON "
                    f"object, as the chat template needs it, got {arguments[:80]!r}"
                )


def _argument_text(arguments: str | dict[str, Any]) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _say_calls(messages: list[Message], capabilities: Capabilities) -> list[Message]:
    """Calls and results as messages of their own, in the details that templates differ in."""
    names = {c["id"]: c["function"]["name"] for m in messages for c in m.get("tool_calls", ())}
    said: list[Message] = []
    for i, message in enumerate(messages):
        if message["role"] == "tool":
            id = message.get("tool_call_id", "")
            said.append({**message, "tool_call_id": _id(id, capabilities), "name": names.get(id, "")})
            if not said[-1]["name"]:
                said[-1]["name"] = message.get("name") or "unknown"
            continue
        if "tool_calls" not in message:
            said.append(message)
            continue
        calls = [_say_call(c, capabilities) for c in message["tool_calls"]]
        if message["content"] and capabilities.calls_apart:  # what it said is a reply of its own
            said.append({k: v for k, v in message.items() if k != "tool_calls"})
            message = {**message, "content": ""}
        content = message["content"] or (None if capabilities.null_content else "")
        if not capabilities.single_calls or len(calls) == 1:
            said.append({**message, "content": content, "tool_calls": calls})
            continue
        # a reply for each call, its result behind it
        results = {
            _id(m.get("tool_call_id", ""), capabilities): m
            for m in messages[i + 1 : i + 1 + len(calls)]
            if m["role"] == "tool"
        }
        for n, call in enumerate(calls):
            said.append({**message, "content": "" if n else content, "tool_calls": [call]})
            if n + 1 < len(calls) and call["id"] in results:
                result = results[call["id"]]
                said.append({**result, "tool_call_id": call["id"], "name": call["function"]["name"]})
                result["content"] = None  # said
    return [m for m in said if m["content"] is not None or m["role"] != "tool"]


def _say_call(call: Message, capabilities: Capabilities) -> Message:
    function = call["function"]
    if capabilities.string_arguments:
        function = {**function, "arguments": _argument_text(function["arguments"])}
    return {**call, "id": _id(call["id"], capabilities), "function": function}


def _id(id: str, capabilities: Capabilities) -> str:
    """An id that a strict template takes: nine letters and digits, the same for the same id."""
    if not capabilities.short_ids or (len(id) == 9 and id.isalnum() and id.isascii()):
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:9]


def _write_calls(messages: list[Message], capabilities: Capabilities, format: ToolFormat) -> list[Message]:
    """Calls as the text they were written in, and their results in the user's name if need be."""
    names = {c["id"]: c["function"]["name"] for m in messages for c in m.get("tool_calls", ())}
    said: list[Message] = []
    for message in messages:
        if "tool_calls" in message:
            calls = [c["function"] for c in message["tool_calls"]]
            text = format.write([(c["name"], _argument_text(c["arguments"])) for c in calls])
            content = "\n".join(filter(None, (message["content"], text)))
            message = {k: v for k, v in message.items() if k != "tool_calls"} | {"content": content}
        elif message["role"] == "tool":
            name = names.get(message.get("tool_call_id", "")) or message.get("name")
            if capabilities.tool_role:
                message = {**message, "name": name or "unknown"}
            else:
                text = f"Result of {name or 'the function'}:\n{message['content']}"
                message = {"role": "user", "content": text}
        said.append(message)
    return said


def _rename_reasoning(message: Message, key: str) -> Message:
    """Another key for `reasoning_content`. Beside content and calls there is no place for it."""
    if "reasoning_content" not in message or (message["content"] and message.get("tool_calls")):
        return message
    rest = {k: v for k, v in message.items() if k != "reasoning_content"}
    return {**rest, key: message["reasoning_content"]}


def _text(content: Any, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(
            f"Field '{where}.content': expected a string, null or an array of parts, got {_kind(content)}"
        )
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in MEDIA:
            raise NotSupported(f"Field '{where}.content[{i}].type': {kind!r}: this model takes text only")
        if kind != "text":
            raise RequestError(
                f"unsupported content[].type: {where}.content[{i}] is {str(kind)[:64]!r}, expected 'text'"
            )
        if not isinstance(part.get("text"), str):
            raise RequestError(
                f"Field '{where}.content[{i}].text': expected a string, got {_kind(part.get('text'))}"
            )
        texts.append(part["text"])
    return "\n".join(texts)


def _typed(content: str | None) -> list[Message] | None:
    return None if content is None else [{"type": "text", "text": content}]


def _kind(value: Any) -> str:
    """A value's JSON type, in words."""
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), f"the number {value}")
