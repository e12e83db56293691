"""Replies as deltas, for the tests of what renders them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corral.chat.deltas import Content, Delta, Reasoning, ToolArguments, ToolCall
from corral.engine.messages import Output, Timings
from corral.server.chat_turn import ChatTurn

THOUGHT: list[Delta] = [Reasoning("Let me"), Reasoning(" think")]
SAID: list[Delta] = [Content("Hel"), Content("lo")]
CALLS: list[Delta] = [
    ToolCall(0, "call_1", "weather"),
    ToolArguments(0, '{"city":'),
    ToolArguments(0, '"Oslo"}'),
    ToolCall(1, "call_2", "time"),
    ToolArguments(1, "{}"),
]
ALL = THOUGHT + SAID + CALLS

HERMES = (
    "{% for t in tools or [] %}<tool_call>{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""A template that has tools."""
CALL_WORDS = [
    "Wait.",
    "<tool_",
    'call>\n{"name": "wea',
    'ther", "arguments": {"city"',
    ': "Oslo"}}\n</tool_call>',
]
"""What a model with that template says."""


def steps(deltas: Sequence[Delta], **end: Any) -> list[tuple[list[Delta], Output]]:
    """One delta and one token a step, then an Output that ends it all."""
    last = {"finish_reason": "stop", "stop_type": "eos", "timings": Timings(cache_n=2, prompt_n=5)}
    made = [([delta], Output(id="", tokens=[1])) for delta in deltas]
    return [*made, ([], Output(id="", **{**last, **end}))]


class Parser:
    """Takes the n-th piece of text for the n-th delta."""

    def __init__(self, deltas: Sequence[Delta]) -> None:
        self._deltas = list(deltas)

    def feed(self, text: str) -> list[Delta]:
        return [self._deltas.pop(0)] if text else []

    def finish(self) -> list[Delta]:
        return self._deltas


def parse_as(monkeypatch: Any, deltas: Sequence[Delta]) -> None:
    """Every reply of every turn is read as these deltas."""
    real = ChatTurn.of

    async def of(*args: Any) -> ChatTurn:
        turn = await real(*args)
        turn.parsers = [Parser(deltas) for _ in turn.submits]
        return turn

    monkeypatch.setattr(ChatTurn, "of", of)
