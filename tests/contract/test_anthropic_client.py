"""The official Anthropic client, on a live port, with a fake engine behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest
from fake_engine import FakeEngine, fake_state
from replies import ALL, CALL_WORDS, CALLS, HERMES, parse_as

from corral.engine.messages import ErrorInfo, Output, Status

Live = Callable[[Any], str]
HI: Any = [{"role": "user", "content": "Hello!"}]


def connect(live: Live, state: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=live(state), api_key="k", max_retries=0)


@pytest.fixture
def client(live: Live) -> Iterator[anthropic.Anthropic]:
    with connect(live, fake_state(FakeEngine(["Hel", "lo", " wörld"]), api_keys=("k",))) as client:
        yield client


def test_a_message(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="x", max_tokens=50, messages=HI, system="be kind")
    assert [(b.type, b.text) for b in message.content if b.type == "text"] == [("text", "Hello wörld")]
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 3


def test_the_stream_helper_ends_with_the_same_message(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="x", max_tokens=50, messages=HI) as stream:
        assert list(stream.text_stream) == ["Hel", "lo", " wörld"]
        final = stream.get_final_message()
    whole = client.messages.create(model="x", max_tokens=50, messages=HI)
    assert final.content[0].model_dump() == whole.content[0].model_dump()
    assert final.usage.model_dump() == whole.usage.model_dump()
    assert final.stop_reason == "end_turn"


def test_thinking_and_calls(client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_as(monkeypatch, ALL)
    whole = client.messages.create(model="x", max_tokens=50, messages=HI)
    with client.messages.stream(model="x", max_tokens=50, messages=HI) as stream:
        final = stream.get_final_message()
    assert [b.type for b in whole.content] == ["thinking", "text", "tool_use", "tool_use"]
    dumps = [[b.model_dump(exclude_none=True) for b in m.content] for m in (whole, final)]
    assert dumps[0] == [{k: v for k, v in b.items() if k != "parsed_output"} for b in dumps[1]]
    assert whole.stop_reason == final.stop_reason == "tool_use"


def test_a_message_can_be_the_history_of_the_next(
    client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse_as(monkeypatch, CALLS)
    message = client.messages.create(model="x", max_tokens=50, messages=HI)
    results = [
        {"type": "tool_result", "tool_use_id": b.id, "content": "21 °C"}
        for b in message.content
        if b.type == "tool_use"
    ]
    history: Any = [
        *HI,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": results},
    ]
    assert client.messages.create(model="x", max_tokens=50, messages=history).stop_reason


def test_tools(live: Live) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    options: Any = {
        "model": "x",
        "max_tokens": 50,
        "messages": HI,
        "tools": [{"name": "weather", "description": "of a city", "input_schema": schema}],
        "tool_choice": {"type": "tool", "name": "weather"},
    }
    with connect(live, fake_state(FakeEngine(CALL_WORDS), HERMES)) as client:
        whole = client.messages.create(**options)
        with client.messages.stream(**options) as stream:
            streamed: Any = stream.get_final_message()
    for message in (whole, streamed):
        call = message.content[1]
        assert (call.type, call.name, call.input) == ("tool_use", "weather", {"city": "Oslo"})
        assert message.stop_reason == "tool_use"


def test_counting(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="x", max_tokens=50, messages=HI)
    count = client.messages.count_tokens(model="x", messages=HI)
    assert count.input_tokens == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def test_errors_are_those_of_the_client_library(live: Live, client: anthropic.Anthropic) -> None:
    options: Any = {"model": "x", "max_tokens": 50, "messages": HI}
    with pytest.raises(anthropic.BadRequestError, match="thinking") as caught:
        client.messages.create(**{**options, "thinking": {"type": "on"}})
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        client.messages.create(**{**options, "messages": [{"role": "user", "content": "x" * 500}]})
    with pytest.raises(anthropic.AuthenticationError, match="Invalid API Key"):
        client.with_options(api_key="wrong").messages.create(**options)


@pytest.mark.parametrize(
    ("status", "error"), [(429, anthropic.RateLimitError), (503, anthropic.InternalServerError)]
)
def test_errors_of_the_engine(live: Live, status: int, error: type[anthropic.APIError]) -> None:
    end = Output(id="", finish_reason="error", error=ErrorInfo(status, "unavailable_error", "full"))
    with connect(live, fake_state(FakeEngine([end]))) as client, pytest.raises(error, match="full"):
        client.messages.create(model="x", max_tokens=50, messages=HI)


def test_an_error_in_the_stream(live: Live) -> None:
    end = Output(id="", finish_reason="error", error=ErrorInfo(500, "server_error", "broke"))
    with connect(live, fake_state(FakeEngine(["a", end]))) as client:
        stream = client.messages.create(model="x", max_tokens=50, messages=HI, stream=True)
        with pytest.raises(anthropic.APIError, match="broke"):
            list(stream)


def test_loading_is_an_overload(live: Live) -> None:
    engine = FakeEngine()
    engine.status = Status(state="loading")
    with connect(live, fake_state(engine)) as client, pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="x", max_tokens=50, messages=HI)
    assert (caught.value.status_code, caught.value.type) == (503, "overloaded_error")
