"""From the messages of a request to the ones a template is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corral.chat.capabilities import Capabilities
from corral.errors import RequestError

ROLES = {"developer": "system"}
"""Names for a role that a template knows under another."""


def normalise(messages: Sequence[Any], capabilities: Capabilities) -> list[dict[str, Any]]:
    """Checks the messages and says them the way the template understands.

    `developer` becomes `system`; null content becomes ""; the text parts of a content are joined; a system
    text goes into the first user message of a template that has no place for it. Raises RequestError.
    """
    if not messages:
        raise RequestError("Field 'messages': expected at least one message, got an empty array")
    said = [_message(m, f"messages[{i}]") for i, m in enumerate(messages)]
    if len(said) > 1 and said[-1]["role"] == said[-2]["role"] == "assistant":
        raise RequestError("Cannot have 2 or more assistant messages at the end of the list.")
    if not capabilities.system:
        said = _fold_system(said)
    if capabilities.typed_content:
        said = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in said]
    return said


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RequestError(f"Field '{where}': expected an object, got {_kind(message)}")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise RequestError(f"Field '{where}.role': expected a string, got {_kind(role)}")
    if "content" not in message and role != "assistant":
        raise RequestError(f"Field '{where}.content': missing; every message but an assistant's needs it")
    if role != "assistant" or not message.get("tool_calls"):
        message = {k: v for k, v in message.items() if k != "tool_calls"}
    return {**message, "role": ROLES.get(role, role), "content": _text(message.get("content"), where)}


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


def _fold_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Puts each system text in front of the next user message; the last one, if none follows, becomes one."""
    folded: list[dict[str, Any]] = []
    pending: list[str] = []
    for message in messages:
        if message["role"] == "system":
            pending.append(message["content"])
            continue
        if pending and message["role"] == "user":
            message = {**message, "content": "\n".join((*pending, message["content"]))}
            pending = []
        folded.append(message)
    if pending:
        folded.append({"role": "user", "content": "\n".join(pending)})
    return folded


def _kind(value: Any) -> str:
    """A value's JSON type, in words."""
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), f"the number {value}")
