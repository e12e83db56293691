"""POST /v1/messages and /v1/messages/count_tokens, in Anthropic's form, errors too."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from fake_engine import FakeEngine, fake_state
from pydantic import TypeAdapter
from replies import CALL_WORDS, CALLS, HERMES, THOUGHT, parse_as

from corral.engine.messages import ErrorInfo, Output, Status

URL = "/v1/messages"
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
HI = [{"role": "user", "content": "hi"}]
PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def events(response: httpx.Response) -> list[Any]:
    """The JSON of each event; checks the framing."""
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    *frames, end = response.text.split("\n\n")
    assert end == ""
    found = []
    for frame in frames:
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == "event: " + found[-1]["type"]
    return found


async def test_the_message(client: httpx.AsyncClient) -> None:
    body = (await client.post(URL, json={"model": "x", "max_tokens": 50, "messages": HI})).json()
    Message.model_validate(body, strict=True)
    assert re.fullmatch(r"msg_[A-Za-z0-9]{32}", body.pop("id"))
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(PROMPT),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 1,
            "output_tokens": 2,
        },
    }


async def test_the_stream(client: httpx.AsyncClient) -> None:
    found = events(await client.post(URL, json={"messages": HI, "stream": True}))
    for event in found:
        EVENT.validate_python(event, strict=True)
    assert [e["type"] for e in found] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert found[0]["message"]["usage"]["input_tokens"] == len(PROMPT) + 1
    assert found[-2]["usage"]["output_tokens"] == 2


async def test_thinking_and_calls(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_as(monkeypatch, THOUGHT + CALLS)
    body = (await client.post(URL, json={"messages": HI})).json()
    assert body["stop_reason"] == "tool_use"
    assert [b["type"] for b in body["content"]] == ["thinking", "tool_use", "tool_use"]
    assert body["content"][1]["input"] == {"city": "Oslo"}


async def test_tools_from_the_request_to_the_call(connected: Any) -> None:
    engine = FakeEngine(CALL_WORDS)
    tool = {"name": "weather", "input_schema": {"type": "object"}}
    request = {"messages": HI, "tools": [tool], "tool_choice": {"type": "any"}}
    async with connected(fake_state(engine, HERMES)) as client:
        body = (await client.post(URL, json=request)).json()
        streamed = events(await client.post(URL, json={**request, "stream": True}))
    text, call = body["content"]
    assert text == {"type": "text", "text": "Wait."}
    assert (call["name"], call["input"], body["stop_reason"]) == ("weather", {"city": "Oslo"}, "tool_use")
    assert engine.submits[0].constraint is not None
    pieces = [e["delta"]["partial_json"] for e in streamed if "partial_json" in e.get("delta", {})]
    assert json.loads("".join(pieces)) == call["input"]


async def test_thinking_as_agents_ask_for_it(client: httpx.AsyncClient) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert (await client.post(URL, json={"messages": HI, "thinking": thinking})).status_code == 200


async def test_the_limit_has_a_default(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post(URL, json={"messages": HI})
    await client.post(URL, json={"messages": HI, "max_tokens": 9, "stop_sequences": ["a"]})
    assert [(s.max_tokens, s.stop) for s in engine.submits] == [(4096, []), (9, ["a"])]


async def test_a_stop_sequence(connected: Any) -> None:
    end = Output(id="", finish_reason="stop", stop_type="word", stopping_word="END")
    async with connected(fake_state(FakeEngine(["Hi", end]))) as client:
        body = (await client.post(URL, json={"messages": HI, "stop_sequences": ["END"]})).json()
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", "END")


async def test_counting(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    url = URL + "/count_tokens"
    assert (await client.post(url, json={"messages": HI})).json() == {"input_tokens": len(PROMPT) + 1}
    long = [{"role": "user", "content": "x" * 1000}]
    assert (await client.post(url, json={"messages": long})).json() == {"input_tokens": len(PROMPT) + 999}
    assert (await client.post(url, json={"messages": [], "system": "s"})).json()["input_tokens"] > 0
    assert engine.submits == []


def error(status: int, type: str) -> Output:
    return Output(id="", finish_reason="error", error=ErrorInfo(status, type, "why"))


@pytest.mark.parametrize(
    ("status", "engines", "type"),
    [
        (500, "server_error", "api_error"),
        (503, "unavailable_error", "overloaded_error"),
        (429, "unavailable_error", "rate_limit_error"),
        (501, "not_supported_error", "api_error"),
    ],
)
async def test_errors_of_the_engine(connected: Any, status: int, engines: str, type: str) -> None:
    expected = {"type": "error", "error": {"type": type, "message": "why"}}
    async with connected(fake_state(FakeEngine([error(status, engines)]))) as client:
        for stream in (False, True):
            response = await client.post(URL, json={"messages": HI, "stream": stream})
            assert (response.status_code, response.json()) == (status, expected)
    async with connected(fake_state(FakeEngine(["Hel", error(status, engines)]))) as client:
        found = events(await client.post(URL, json={"messages": HI, "stream": True}))
    assert found[-1] == expected
    assert found[-2]["type"] == "content_block_delta"


@pytest.mark.parametrize(
    ("method", "headers", "body", "status", "type", "words"),
    [
        ("POST", {}, b"", 401, "authentication_error", "Invalid API Key"),
        ("POST", {"x-api-key": "k"}, b"{", 400, "invalid_request_error", "JSON"),
        ("POST", {"x-api-key": "k"}, b"{}", 400, "invalid_request_error", "'messages'"),
        ("GET", {"x-api-key": "k"}, b"", 405, "invalid_request_error", "POST"),
        ("POST", {"x-api-key": "k"}, b" " * 101, 413, "request_too_large", "101"),
        ("POST", {"authorization": "Bearer k"}, b'{"messages":7}', 400, "invalid_request_error", "array"),
    ],
)
async def test_errors_of_the_client(
    connected: Any, method: str, headers: Any, body: bytes, status: int, type: str, words: str
) -> None:
    state = fake_state(api_keys=("k",), api_prefix="/api")
    state.max_body = 100
    async with connected(state) as client:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            response = await client.request(method, "/api" + path, headers=headers, content=body)
            assert response.status_code == status
            assert response.json()["type"] == "error"
            assert response.json()["error"]["type"] == type
            assert words in response.json()["error"]["message"]
        other = await client.request(method, "/api/v1/chat/completions", headers=headers, content=body)
        assert "code" in other.json()["error"]


async def test_while_the_model_loads(connected: Any) -> None:
    engine = FakeEngine()
    engine.status = Status(state="loading")
    async with connected(fake_state(engine)) as client:
        response = await client.post(URL, json={"messages": HI})
    assert response.status_code == 503
    assert response.json()["error"] == {"type": "overloaded_error", "message": "Loading model"}
    assert response.headers["retry-after"] == "1"


async def test_a_prompt_that_does_not_fit(client: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": "x" * 500}], "stream": True}
    response = await client.post(URL, json=body)
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert message.startswith(f"prompt is too long: {len(PROMPT) + 499} tokens > 256 maximum")
    assert "exceeds the available context size" in message
