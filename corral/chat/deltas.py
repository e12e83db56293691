"""What a reply is made of, as it grows: pieces that a parser of model output yields and the APIs render."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    """More of the answer. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of what the model thought before it answered. Never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool begins; `index` counts the calls of the reply from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """More of the arguments of call `index`: together they are the text of a JSON object. Never empty."""

    index: int
    text: str


Delta = Content | Reasoning | ToolCall | ToolArguments
