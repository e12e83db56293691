"""POST /v1/responses and the paths below it."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, fake_state
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from replies import CALL_WORDS, CALLS, HERMES, parse_as

from corral.engine.messages import ErrorInfo, Output, Timings

URL = "/v1/responses"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
BROKE = Output(id="", finish_reason="error", error=ErrorInfo(500, "server_error", "broke"))


def events(response: httpx.Response) -> list[Any]:
    """The JSON of each event; checks the framing and the strict types."""
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    *frames, end = response.text.split("\n\n")
    assert end == ""
    found = []
    for frame in frames:
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == "event: " + event["type"]
        EVENT.validate_python(event, strict=True)
        found.append(event)
    return found


@pytest.mark.parametrize("url", [URL, "/responses"])
async def test_the_response(client: httpx.AsyncClient, url: str) -> None:
    body = (await client.post(url, json={"input": "hi", "temperature": 0.5})).json()
    Response.model_validate(body, strict=True)
    assert re.fullmatch(r"resp_[A-Za-z0-9]{32}", body.pop("id"))
    (message,) = body.pop("output")
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
    }
    assert body.pop("created_at") <= body.pop("completed_at")
    assert body.pop("top_p") == pytest.approx(0.95)
    assert body == {
        "object": "response",
        "model": "tiny",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "background": False,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "truncation": "disabled",
        "user": None,
        "usage": {
            "input_tokens": len(PROMPT) + 1,
            "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": len(PROMPT) + 3,
        },
    }


async def test_the_stream_ends_with_the_response(client: httpx.AsyncClient) -> None:
    request = {"input": "hi", "instructions": "be kind", "metadata": {"a": "b"}}
    streamed = events(await client.post(URL, json={**request, "stream": True}))
    whole = (await client.post(URL, json=request)).json()
    last = streamed[-1]["response"]
    assert streamed[-1]["type"] == "response.completed"
    for response in (last, whole):
        del response["id"], response["created_at"], response["completed_at"], response["output"][0]["id"]
    assert last == whole


async def test_fields_reach_the_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post(URL, json={"input": "hi", "max_output_tokens": 7, "top_k": 3, "stop": "x"})
    (submit,) = engine.submits
    assert (submit.max_tokens, submit.sampling.top_k, submit.stop) == (7, 3, ["x"])
    assert "".join(map(chr, submit.prompt[1:])) == PROMPT


async def test_probabilities(client: httpx.AsyncClient) -> None:
    request = {"input": "hi", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    body = (await client.post(URL, json=request)).json()
    found = Response.model_validate(body, strict=False).output[0].content[0].logprobs  # type: ignore[union-attr]
    assert [(p.token, len(p.top_logprobs)) for p in found or []] == [("Hel", 2), ("lo", 2)]
    streamed = events(await client.post(URL, json={**request, "stream": True}))
    deltas = [e["logprobs"] for e in streamed if e["type"] == "response.output_text.delta"]
    assert [[p["token"] for p in delta] for delta in deltas] == [["Hel"], ["lo"]]


async def test_calls_of_tools(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_as(monkeypatch, CALLS)
    body = (await client.post(URL, json={"input": "hi"})).json()
    assert [(i["call_id"], i["name"], i["arguments"]) for i in body["output"]] == [
        ("call_1", "weather", '{"city":"Oslo"}'),
        ("call_2", "time", "{}"),
    ]


WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def test_tools_from_the_request_to_the_call(connected: Any) -> None:
    engine = FakeEngine(CALL_WORDS)
    request = {"input": "hi", "tools": [WEATHER], "tool_choice": "auto"}
    async with connected(fake_state(engine, HERMES)) as client:
        body = (await client.post(URL, json=request)).json()
        streamed = events(await client.post(URL, json={**request, "stream": True}))
    Response.model_validate(body, strict=True)
    message, call = body["output"]
    assert message["content"][0]["text"] == "Wait."
    assert (call["name"], call["arguments"]) == ("weather", '{"city": "Oslo"}')
    assert body["tools"] == [{**WEATHER, "description": None, "strict": None}]
    assert engine.submits[0].constraint is not None
    assert "".join(e["delta"] for e in streamed if "arguments.delta" in e["type"]) == call["arguments"]
    assert [i["type"] for i in streamed[-1]["response"]["output"]] == ["message", "function_call"]


async def test_going_on_from_a_response(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    first = (await client.post(URL, json={"input": "hi", "instructions": "be kind"})).json()
    request = {"input": "more", "previous_response_id": first["id"], "stream": True}
    second = events(await client.post(URL, json=request))[-1]["response"]
    assert second["previous_response_id"] == first["id"]
    third = {"input": "last", "previous_response_id": second["id"], "store": False}
    assert (await client.post(URL, json=third)).status_code == 200
    said = "".join(map(chr, engine.submits[-1].prompt[1:]))
    assert re.findall(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>|$)", said) == [
        ("user", "hi"),
        ("assistant", "Hello"),
        ("user", "more"),
        ("assistant", "Hello"),
        ("user", "last"),
        ("assistant", ""),
    ]


async def test_a_stored_response(client: httpx.AsyncClient) -> None:
    made = (await client.post(URL, json={"input": "hi"})).json()
    path = f"{URL}/{made['id']}"
    assert (await client.get(path)).json() == made
    items = (await client.get(path + "/input_items")).json()
    assert [(i["type"], i["role"], i["content"]) for i in items["data"]] == [("message", "user", "hi")]
    assert (await client.delete(path)).json() == {"id": made["id"], "object": "response", "deleted": True}
    for response in (await client.get(path), await client.delete(path)):
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "not_found_error"
        assert made["id"] in response.json()["error"]["message"]


async def test_store_false(client: httpx.AsyncClient) -> None:
    made = (await client.post(URL, json={"input": "hi", "store": False})).json()
    assert made["store"] is False
    assert (await client.get(f"{URL}/{made['id']}")).status_code == 404
    request = {"input": "more", "previous_response_id": made["id"]}
    response = await client.post(URL, json=request)
    assert response.status_code == 400
    assert "'previous_response_id'" in response.json()["error"]["message"]


@pytest.mark.parametrize("url", [URL + "/input_tokens", "/responses/input_tokens"])
async def test_counting(client: httpx.AsyncClient, engine: FakeEngine, url: str) -> None:
    body = (await client.post(url, json={"input": "hi"})).json()
    assert body == {"object": "response.input_tokens", "input_tokens": len(PROMPT) + 1}
    body = (await client.post(url, json={"input": "x" * 1000})).json()
    assert body["input_tokens"] == len(PROMPT) + 999
    assert engine.submits == []


async def test_cut_by_the_limit(connected: Any) -> None:
    end = Output(id="", finish_reason="length", stop_type="limit", timings=Timings())
    async with connected(fake_state(FakeEngine(["Hel", end]))) as client:
        body = (await client.post(URL, json={"input": "hi"})).json()
        assert body["status"] == "incomplete"
        assert body["incomplete_details"] == {"reason": "max_output_tokens"}
        streamed = events(await client.post(URL, json={"input": "hi", "stream": True}))
    assert streamed[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_token_is_a_response(connected: Any, stream: bool) -> None:
    async with connected(fake_state(FakeEngine([BROKE]))) as client:
        response = await client.post(URL, json={"input": "hi", "stream": stream})
    assert response.status_code == 500
    assert response.json() == {"error": {"code": 500, "message": "broke", "type": "server_error"}}


async def test_an_error_in_the_stream(connected: Any) -> None:
    state = fake_state(FakeEngine(["Hel", BROKE]))
    async with connected(state) as client:
        streamed = events(await client.post(URL, json={"input": "hi", "stream": True}))
        last = streamed[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["error"] == {"code": "server_error", "message": "broke"}
        assert (await client.get(f"{URL}/{last['response']['id']}")).status_code == 404


async def test_a_prompt_that_does_not_fit(client: httpx.AsyncClient) -> None:
    error = (await client.post(URL, json={"input": "x" * 500, "stream": True})).json()["error"]
    assert error["type"] == "exceed_context_size_error"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"input":3}', b'{"input":"x","stream":"yes"}', b'{"input":[[]]}', b"{}"]
)
async def test_bad_bodies(client: httpx.AsyncClient, body: bytes) -> None:
    for url in (URL, URL + "/input_tokens"):
        response = await client.post(url, content=body)
        assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
