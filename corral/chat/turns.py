"""Turns in the order that a template insists on: who may speak first, after whom, and how often in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

ACKNOWLEDGED = "OK."
"""What the assistant says where a template wants a reply that the conversation does not have."""


def fold_system(messages: list[Message]) -> list[Message]:
    """Puts each system text in front of the next user message; the last one, if none follows, becomes one."""
    folded: list[Message] = []
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


def one_system(messages: list[Message], late: bool) -> list[Message]:
    """Joins the system messages at the beginning; folds those that follow unless `late` ones are possible."""
    first = 0
    while first < len(messages) and messages[first]["role"] == "system":
        first += 1
    rest = messages[first:] if late else fold_system(messages[first:])
    if not first:
        return rest
    return [{**messages[0], "content": "\n\n".join(m["content"] for m in messages[:first])}, *rest]


def with_user(messages: list[Message]) -> list[Message]:
    """A conversation without any user: the last system message is the user's, else an empty one is."""
    if any(m["role"] == "user" for m in messages):
        return messages
    said = list(messages)
    for i in reversed(range(len(said))):
        if said[i]["role"] == "system":
            said[i] = {**said[i], "role": "user"}
            return said
    return [{"role": "user", "content": ""}, *said]


def alternate(messages: Sequence[Message]) -> list[Message]:
    """User and assistant in turn, the user first; calls and their results are no turns.

    What one of them says in a row is one turn. Between two turns of a kind that can't be joined, and before
    an assistant who begins, comes a turn of the other.
    """
    said: list[Message] = []
    last = "assistant"  # who had the last turn
    for i, message in enumerate(messages):
        role = message["role"]
        if role not in ("user", "assistant") or message.get("tool_calls"):
            said.append(message)
            continue
        silent = role == "assistant" and not message["content"] and not message.get("reasoning_content")
        if silent and i + 1 < len(messages):
            continue
        if role == last and said and said[-1]["role"] == role and not said[-1].get("tool_calls"):
            texts = filter(None, (said[-1]["content"], message["content"]))
            said[-1] = {**said[-1], "content": "\n\n".join(texts)}
            continue
        if role == last:
            user = role == "assistant"
            said.append(
                {"role": "user", "content": ""} if user else {"role": "assistant", "content": ACKNOWLEDGED}
            )
        said.append(message)
        last = role
    return said
