"""The object of /v1/responses and its events, as the types of the openai package want them: strictly."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from replies import ALL, CALLS, SAID, THOUGHT, steps

from corral.chat.deltas import Content, ToolCall
from corral.engine.messages import Output, Progress, Timings, TokenInfo
from corral.errors import InternalError, Overloaded
from corral.server.render.response import ResponseBuilder

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
HEAD = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "tiny", "parallel_tool_calls": True,
    "tool_choice": "auto", "tools": [],
}  # fmt: skip
PROMPT = [1] * 7


def run(deltas: Any, **end: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The response and all of its events."""
    builder = ResponseBuilder(dict(HEAD), PROMPT)
    events = builder.begin()
    for made, output in steps(deltas, **end):
        events += builder.add(made, output)
    events += builder.end(now=9.5)
    return builder.response, events


def types(events: list[dict[str, Any]]) -> list[str]:
    return [e["type"].removeprefix("response.") for e in events]


@pytest.mark.parametrize("deltas", [[], SAID, THOUGHT, CALLS, ALL], ids=str)
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_strict_types(deltas: Any, finish_reason: str) -> None:
    response, events = run(deltas, finish_reason=finish_reason)
    Response.model_validate(response, strict=True)
    for event in events:
        assert EVENT.validate_python(event, strict=True).type == event["type"]


def test_the_events_of_a_text() -> None:
    _, events = run(SAID)
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [e["delta"] for e in events if "delta" in e] == ["Hel", "lo"]
    assert events[6]["text"] == events[7]["part"]["text"] == "Hello"
    assert events[2]["item"]["content"] == []
    assert events[8]["item"]["content"][0]["text"] == "Hello"


def test_the_events_of_a_call() -> None:
    _, events = run(CALLS[:3])
    assert types(events)[2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert events[2]["item"] == {
        "type": "function_call",
        "id": events[2]["item"]["id"],
        "call_id": "call_1",
        "name": "weather",
        "arguments": "",
        "status": "in_progress",
    }
    assert (events[5]["arguments"], events[5]["name"]) == ('{"city":"Oslo"}', "weather")


def test_the_id_of_a_call_looks_like_openais() -> None:
    response, _ = run([ToolCall(0, "Ed1Xgc9Dg", "weather")])
    assert response["output"][0]["call_id"] == "call_Ed1Xgc9Dg"


def test_the_events_of_a_thought() -> None:
    _, events = run(THOUGHT)
    assert types(events)[2:-1] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert events[6]["text"] == "Let me think"


def test_the_items_in_their_order() -> None:
    response, events = run(ALL)
    kinds = [item["type"] for item in response["output"]]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    assert [item["id"].split("_")[0] for item in response["output"]] == ["rs", "msg", "fc", "fc"]
    assert events[-1]["response"] == response
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == response["output"]


def test_numbers_and_ids_of_events() -> None:
    response, events = run(ALL)
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    ids = [item["id"] for item in response["output"]]
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == ids[event["output_index"]]
        if "item" in event:
            assert event["item"]["id"] == ids[event["output_index"]]
    assert len(set(ids)) == 4


def test_usage() -> None:
    response, _ = run(ALL)
    assert response["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 16,
    }


def test_a_response_that_was_cut_is_incomplete() -> None:
    response, events = run(CALLS, finish_reason="length")
    assert events[-1]["type"] == "response.incomplete"
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["completed_at"] is None
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


@pytest.mark.parametrize(
    ("error", "code"), [(InternalError("broke"), "server_error"), (Overloaded("full"), "rate_limit_exceeded")]
)
def test_a_failure(error: Any, code: str) -> None:
    builder = ResponseBuilder(dict(HEAD), PROMPT)
    builder.begin()
    builder.add([Content("Hel")], Output(id=""))
    events = builder.fail(error)
    assert types(events) == ["output_text.done", "content_part.done", "output_item.done", "failed"]
    assert events[-1]["response"]["error"] == {"code": code, "message": str(error)}
    assert events[-1]["response"]["status"] == "failed"
    for event in events:
        EVENT.validate_python(event, strict=True)


def test_earlier_events_do_not_change() -> None:
    builder = ResponseBuilder(dict(HEAD), PROMPT)
    created = builder.begin()[0]
    for made, output in steps(SAID):
        builder.add(made, output)
    builder.end(now=9.5)
    assert created["response"]["output"] == []
    assert created["response"]["status"] == "in_progress"


def test_probabilities_go_with_the_text() -> None:
    builder = ResponseBuilder(dict(HEAD), PROMPT)
    held = builder.add([], Output(id="", tokens=[1], infos=[TokenInfo(1, b"H", -0.5)]))
    (*_, delta) = builder.add([Content("Hi")], Output(id="", tokens=[2], infos=[TokenInfo(2, b"i", -0.1)]))
    assert held == []
    assert [p["token"] for p in delta["logprobs"]] == ["H", "i"]
    done = builder.end(now=1)
    assert done[0]["logprobs"] == delta["logprobs"]
    assert builder.response["output"][0]["content"][0]["logprobs"] == delta["logprobs"]
    for event in done:
        EVENT.validate_python(event, strict=True)


def test_the_events_tell_of_the_work() -> None:
    builder = ResponseBuilder(dict(HEAD), PROMPT)
    builder.begin()
    (report,) = builder.add([], Output(id="", progress=Progress(total=9, cache=2, processed=5, time_ms=1.5)))
    assert report["type"] == "response.in_progress"
    assert report["prompt_progress"] == {"total": 9, "cache": 2, "processed": 5, "time_ms": 1.5}
    said = builder.add([Content("x")], Output(id="", text="x", timings=Timings(predicted_n=1)))
    assert ["timings" in e for e in said] == [False, False, True]
    builder.add([], Output(id="", finish_reason="stop", timings=Timings(predicted_n=2)))
    assert builder.end(now=9.5)[-1]["timings"]["predicted_n"] == 2
