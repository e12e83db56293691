"""Anthropic's message and its events, as the types of the anthropic package want them: strictly."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter
from replies import ALL, CALLS, SAID, THOUGHT, steps

from corral.server.render.message import MessageBuilder

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def run(
    deltas: Any, stops: Any = (), thinking: bool = True, **end: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The message and all of its events."""
    builder = MessageBuilder("msg_1", "tiny", 7, stops, thinking)
    events = builder.begin()
    for made, output in steps(deltas, **end):
        events += builder.add(made, output)
    events += builder.end()
    return builder.message, events


@pytest.mark.parametrize("deltas", [[], SAID, THOUGHT, CALLS, ALL], ids=str)
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_strict_types(deltas: Any, finish_reason: str) -> None:
    message, events = run(deltas, finish_reason=finish_reason)
    Message.model_validate(message, strict=True)
    for event in events:
        assert EVENT.validate_python(event, strict=True).type == event["type"]


def test_the_message() -> None:
    message, _ = run(ALL)
    assert message == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [
            {"type": "thinking", "thinking": "Let me think", "signature": ""},
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "call_2", "name": "time", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "output_tokens": 9,
        },
    }


def test_the_events() -> None:
    message, events = run(ALL)
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["usage"]["input_tokens"] == 7
    assert [(e["index"], e["content_block"]["type"]) for e in events if "content_block" in e] == [
        (0, "thinking"),
        (1, "text"),
        (2, "tool_use"),
        (3, "tool_use"),
    ]
    deltas = [(e["index"], *e["delta"].values()) for e in events if e["type"] == "content_block_delta"]
    assert deltas == [
        (0, "thinking_delta", "Let me"),
        (0, "thinking_delta", " think"),
        (0, "signature_delta", ""),
        (1, "text_delta", "Hel"),
        (1, "text_delta", "lo"),
        (2, "input_json_delta", '{"city":'),
        (2, "input_json_delta", '"Oslo"}'),
        (3, "input_json_delta", "{}"),
    ]
    assert events[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": message["usage"],
    }
    assert events[-1] == {"type": "message_stop"}


def test_one_block_is_open_at_a_time() -> None:
    opened: list[int] = []
    for event in run(ALL)[1]:
        if event["type"] == "content_block_start":
            assert opened == []
            opened.append(event["index"])
        elif event["type"] == "content_block_stop":
            assert opened.pop() == event["index"]


@pytest.mark.parametrize(
    ("deltas", "end", "reason", "sequence"),
    [
        (SAID, {}, "end_turn", None),
        (SAID, {"finish_reason": "length"}, "max_tokens", None),
        (CALLS, {}, "tool_use", None),
        (CALLS, {"finish_reason": "length"}, "max_tokens", None),
        (SAID, {"stop_type": "word", "stopping_word": "END"}, "stop_sequence", "END"),
        (SAID, {"stop_type": "word", "stopping_word": "<|im_end|>"}, "end_turn", None),
    ],
)
def test_stop_reasons(deltas: Any, end: Any, reason: str, sequence: str | None) -> None:
    message, _ = run(deltas, stops=["END"], **end)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


def test_a_call_that_was_cut_off_is_text() -> None:
    message, _ = run(CALLS[:2], finish_reason="length")
    assert message["content"] == [{"type": "text", "text": 'weather({"city":'}]


def test_thinking_can_be_left_out() -> None:
    message, events = run(THOUGHT + SAID, thinking=False)
    assert [block["type"] for block in message["content"]] == ["text"]
    assert [e["index"] for e in events if "content_block" in e] == [0]
