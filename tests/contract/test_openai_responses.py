"""The official OpenAI client's Responses API, on a live port, with a fake engine behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from fake_engine import FakeEngine, fake_state
from replies import ALL, CALL_WORDS, CALLS, HERMES, THOUGHT, parse_as

from corral.engine.messages import ErrorInfo, Output

Live = Callable[[Any], str]


@pytest.fixture
def client(live: Live) -> Iterator[openai.OpenAI]:
    url = live(fake_state(FakeEngine(["Hel", "lo", " wörld"]))) + "/v1"
    with openai.OpenAI(base_url=url, api_key="not-needed", max_retries=0) as client:
        yield client


def test_a_response(client: openai.OpenAI) -> None:
    response = client.responses.create(model="x", input="hi", instructions="be kind", max_output_tokens=20)
    assert response.output_text == "Hello wörld"
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens == 3


def test_the_stream_helper_ends_with_the_same_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model="x", input=[{"role": "user", "content": "hi"}]) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert deltas == ["Hel", "lo", " wörld"]
    assert final.output_text == "Hello wörld"
    assert client.responses.retrieve(final.id).output_text == final.output_text


def test_the_stream_helper_takes_thoughts_and_calls(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse_as(monkeypatch, ALL)
    with client.responses.stream(model="x", input="hi") as stream:
        arguments = [e.snapshot for e in stream if e.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert arguments == ['{"city":', '{"city":"Oslo"}', "{}"]
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]


def test_the_output_can_be_the_next_input(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_as(monkeypatch, THOUGHT + CALLS)
    response = client.responses.create(model="x", input="hi")
    items: list[Any] = [item.model_dump(exclude_none=True) for item in response.output]
    results = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "21 °C"}
        for item in items
        if item["type"] == "function_call"
    ]
    history: Any = [{"role": "user", "content": "hi"}, *items, *results]
    assert client.responses.create(model="x", input=history).status == "completed"


def test_tools(live: Live, client: openai.OpenAI) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool: Any = {"type": "function", "name": "weather", "parameters": parameters, "strict": False}
    url = live(fake_state(FakeEngine(CALL_WORDS), HERMES)) + "/v1"
    with client.with_options(base_url=url) as client:
        whole = client.responses.create(model="x", input="hi", tools=[tool])
        with client.responses.stream(model="x", input="hi", tools=[tool]) as stream:
            streamed: Any = stream.get_final_response()
    for response in (whole, streamed):
        call = response.output[1]
        assert call.type == "function_call"
        assert (call.name, call.arguments) == ("weather", '{"city": "Oslo"}')
    assert whole.tools[0].type == "function"


def test_stored_responses(client: openai.OpenAI) -> None:
    first = client.responses.create(model="x", input="hi")
    second = client.responses.create(model="x", input="more", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert client.responses.retrieve(first.id) == first
    assert [item.type for item in client.responses.input_items.list(second.id)] == ["message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model="x", input="more", previous_response_id=first.id)


def test_counting(client: openai.OpenAI) -> None:
    response = client.responses.create(model="x", input="hi")
    assert response.usage is not None
    count = client.responses.input_tokens.count(model="x", input="hi")
    assert count.input_tokens == response.usage.input_tokens


def test_errors(live: Live, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Field 'top_p'"):
        client.responses.create(model="x", input="hi", top_p=2)
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        client.responses.create(model="x", input="x" * 500)
    broke = Output(id="", finish_reason="error", error=ErrorInfo(500, "server_error", "broke"))
    client = client.with_options(base_url=live(fake_state(FakeEngine(["a", broke]))) + "/v1")
    (*_, last) = client.responses.create(model="x", input="hi", stream=True)
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "broke"
