"""The official OpenAI client, on a live port, with a fake engine behind it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import openai
import pytest
from fake_engine import READY, FakeEngine, fake_state
from replies import CALL_WORDS, HERMES

from corral.engine.messages import ErrorInfo, Output

Live = Callable[[Any], str]
HI: Any = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "Hello!"}]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(["Hel", "lo", " wörld"])


@pytest.fixture
def client(live: Live, engine: FakeEngine) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=live(fake_state(engine)) + "/v1", api_key="not-needed", max_retries=0
    ) as client:
        yield client


def test_a_chat_as_in_the_guide(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(
        model="local-model", messages=HI, max_tokens=512, temperature=0.7
    )
    assert response.choices[0].message.content == "Hello wörld"
    assert response.choices[0].finish_reason == "stop"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.prompt_tokens + 3


def test_a_chat_that_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="x", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello wörld"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def test_tools(live: Live, client: openai.OpenAI) -> None:
    url = live(fake_state(FakeEngine(CALL_WORDS), HERMES)) + "/v1"
    options: Any = {"model": "x", "messages": HI, "tools": [TOOL], "tool_choice": "required"}
    with client.with_options(base_url=url) as client:
        whole = client.chat.completions.create(**options)
        with client.chat.completions.stream(**options) as stream:
            streamed = stream.get_final_completion()
    for completion in (whole, streamed):
        (call,) = completion.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Oslo"}')
        assert completion.choices[0].finish_reason == "tool_calls"


def test_logprobs(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(
        model="x", messages=HI, logprobs=True, top_logprobs=2, extra_body={"top_k": 5, "min_p": 0.1}
    )
    logprobs = response.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [t.token for t in logprobs.content] == ["Hel", "lo", " wörld"]
    assert len(logprobs.content[0].top_logprobs) == 2


def test_text_completions(client: openai.OpenAI) -> None:
    response = client.completions.create(model="x", prompt=["a", "b"], logprobs=1)
    assert [c.text for c in response.choices] == ["Hello wörld"] * 2
    assert response.choices[0].logprobs is not None
    assert response.choices[0].logprobs.tokens == ["Hel", "lo", " wörld"]
    streamed = client.completions.create(model="x", prompt="a", stream=True)
    assert "".join(c.choices[0].text for c in streamed) == "Hello wörld"


def test_models(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "llamacpp"
    with pytest.raises(openai.NotFoundError, match="no-such"):
        client.models.retrieve("no-such")


def test_errors_are_those_of_the_client_library(live: Live, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Field 'top_p'"):
        client.chat.completions.create(model="x", messages=HI, top_p=2)
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        client.chat.completions.create(model="x", messages=[{"role": "user", "content": "x" * 500}])
    guarded = live(fake_state(api_keys=("k",))) + "/v1"
    with openai.OpenAI(base_url=guarded, api_key="wrong", max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError, match="Invalid API Key"):
            wrong.models.list()
        assert wrong.with_options(api_key="k").models.list().data[0].id == "tiny"
    failing = FakeEngine(
        ["a", Output(id="", finish_reason="error", error=ErrorInfo(500, "server_error", "broke"))]
    )
    with (
        openai.OpenAI(base_url=live(fake_state(failing)) + "/v1", api_key="k", max_retries=0) as broken,
        pytest.raises(openai.APIError, match="broke"),
    ):
        list(broken.chat.completions.create(model="x", messages=HI, stream=True))


def test_what_is_not_supported_is_not_tried_again(live: Live) -> None:
    state = fake_state()
    image: Any = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    with (
        openai.OpenAI(base_url=live(state) + "/v1", api_key="k", max_retries=1) as client,
        pytest.raises(openai.InternalServerError, match="this model takes text only"),
    ):
        client.chat.completions.create(model="x", messages=[{"role": "user", "content": image}])
    assert state.observer.responses == {("/v1/chat/completions", 501): 1}


@pytest.mark.parametrize("stream", [False, True])
def test_closing_the_connection_cancels(live: Live, stream: bool) -> None:
    engine = FakeEngine(hold=1)
    address = urlsplit(live(fake_state(engine)))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    connection.request("POST", "/v1/chat/completions", json.dumps({"messages": HI, "stream": stream}))
    if stream:
        assert connection.getresponse().read(20).startswith(b"data: ")
    wait_for(lambda: len(engine.submits) == 1)
    assert engine.cancelled == []
    connection.close()
    if connection.sock is not None:
        connection.sock.close()
    wait_for(lambda: len(engine.cancelled) == 1)


def test_keep_alive_chunks_and_expect(live: Live) -> None:
    address = urlsplit(live(fake_state()))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    body = json.dumps({"messages": HI}).encode()
    for headers in ({}, {"Transfer-Encoding": "chunked"}, {"Expect": "100-continue"}):
        content = iter([body[:9], body[9:]]) if "Transfer-Encoding" in headers else body
        connection.request("POST", "/v1/chat/completions", content, headers, encode_chunked=bool(headers))
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read())["choices"][0]["message"]["content"] == "Hello"
        assert response.getheader("Server") == "llama.cpp"
    connection.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < deadline, "not within 2 s"
        time.sleep(0.005)


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_tools_and_back(live: Live) -> None:
    """A call, and its result in the next request."""
    engine = FakeEngine(['{"name": "get_we', 'ather", "arguments": {"city": "Pa', 'ris"}}'])
    engine.status = msgspec.structs.replace(engine.status, ready=msgspec.structs.replace(READY, n_ctx=8192))
    with openai.OpenAI(base_url=live(fake_state(engine)) + "/v1", api_key="x", max_retries=0) as client:
        with client.chat.completions.stream(
            model="x", messages=HI, tools=[TOOL], tool_choice="required", parallel_tool_calls=False
        ) as stream:
            kinds = [event.type for event in stream]
            message = stream.get_final_completion().choices[0].message
        assert "tool_calls.function.arguments.delta" in kinds
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Paris"}')
        engine.words = ["It ", "rains."]
        talk = [*HI, message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
        answer = client.chat.completions.create(model="x", messages=talk, tools=[TOOL])
        assert answer.choices[0].message.content == "It rains."
        assert answer.choices[0].finish_reason == "stop"
