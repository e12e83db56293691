"""Ollama's API: /api/chat, /api/generate and what its clients ask before."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from fake_engine import READY, FakeEngine, fake_state
from replies import ALL, CALL_WORDS, HERMES, parse_as

from corral.engine.messages import ErrorInfo, Output, Status, Submit
from corral.server.convert.ollama import OllamaChatRequest, chat_request

HI = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def lines(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def prompt_of(submit: Submit) -> str:
    return "".join(map(chr, submit.prompt[1:]))


async def test_a_chat(client: httpx.AsyncClient) -> None:
    body = (await client.post("/api/chat", json={"messages": HI, "stream": False})).json()
    assert body["message"] == {"role": "assistant", "content": "Hello"}
    assert (body["model"], body["done"], body["done_reason"]) == ("tiny", True, "stop")
    assert body["created_at"].endswith("Z")
    assert (body["eval_count"], body["eval_duration"], body["prompt_eval_duration"]) == (2, 4e6, 2e6)
    assert body["total_duration"] == 9e6
    assert body["prompt_eval_count"] > 2


async def test_it_streams_unless_told_not_to(client: httpx.AsyncClient) -> None:
    *parts, last = lines(await client.post("/api/chat", json={"messages": HI}))
    assert [(p["message"]["content"], p["done"]) for p in parts] == [("Hel", False), ("lo", False)]
    whole = (await client.post("/api/chat", json={"messages": HI, "stream": False})).json()
    same = {"message": {"role": "assistant", "content": ""}, "created_at": whole["created_at"]}
    assert last | same == whole | same


async def test_generate(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"prompt": "hi", "system": "be kind", "stream": False}
    assert (await client.post("/api/generate", json=body)).json()["response"] == "Hello"
    assert (await client.post("/api/generate", json={**body, "raw": True})).json()["response"] == "Hello"
    templated, raw = map(prompt_of, engine.submits)
    assert raw == "hi"
    assert "<|im_start|>system\nbe kind" in templated
    assert "<|im_start|>user\nhi" in templated
    for extra in ({}, {"raw": True}):
        *parts, last = lines(await client.post("/api/generate", json={"prompt": "hi", **extra}))
        assert [p["response"] for p in parts] == ["Hel", "lo"]
        assert (last["response"], last["done_reason"]) == ("", "stop")


@pytest.mark.parametrize(
    ("path", "body"), [("/api/chat", {"messages": []}), ("/api/chat", {}), ("/api/generate", {"model": "x"})]
)
async def test_nothing_to_say_loads_the_model(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, body: Any
) -> None:
    answer = (await client.post(path, json=body)).json()
    assert (answer["done"], answer["done_reason"]) == (True, "load")
    assert engine.submits == []


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_and_calls(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    parse_as(monkeypatch, ALL)
    response = await client.post("/api/chat", json={"messages": HI, "stream": stream})
    messages = [line["message"] for line in (lines(response) if stream else [response.json()])]
    assert "".join(m.get("thinking", "") for m in messages) == "Let me think"
    assert "".join(m["content"] for m in messages) == "Hello"
    (calls,) = [m["tool_calls"] for m in messages if "tool_calls" in m]
    assert [(c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("weather", {"city": "Oslo"}),
        ("time", {}),
    ]


async def test_tools_constrain_the_text(connected: Any) -> None:
    engine = FakeEngine(CALL_WORDS)
    async with connected(fake_state(engine, HERMES)) as client:
        body = {"messages": HI, "tools": [TOOL], "stream": False}
        message = (await client.post("/api/chat", json=body)).json()["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert engine.submits[0].constraint is not None


async def test_a_call_that_was_cut_off_is_text(connected: Any) -> None:
    engine = FakeEngine([*CALL_WORDS[:2], Output(id="", finish_reason="length")])
    async with connected(fake_state(engine, HERMES)) as client:
        for stream in (False, True):
            response = await client.post(
                "/api/chat", json={"messages": HI, "tools": [TOOL], "stream": stream}
            )
            answers = lines(response) if stream else [response.json()]
            assert answers[-1]["done_reason"] == "length"
            assert "".join(a["message"]["content"] for a in answers)
            assert not any("tool_calls" in a["message"] for a in answers)


def test_results_belong_to_the_calls_before_them() -> None:
    calls = [{"function": {"name": name, "arguments": {}}} for name in ("a", "b")]
    talk = [
        *HI,
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_name": "a", "content": "1"},
        {"role": "tool", "tool_name": "b", "content": "2"},
        {"role": "assistant", "content": "", "tool_calls": calls[:1]},
        {"role": "tool", "content": "3"},
    ]
    said = chat_request(OllamaChatRequest(messages=talk)).messages
    ids = [[c["id"] for c in m["tool_calls"]] if "tool_calls" in m else m.get("tool_call_id") for m in said]
    assert ids == [None, ["call00000", "call00001"], "call00000", "call00001", ["call00002"], "call00002"]
    assert [m.get("name") for m in said if m["role"] == "tool"] == ["a", "b", None]


async def test_options(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    options = {
        "num_predict": 7, "num_keep": 3, "seed": 5, "stop": ["x"], "temperature": 0.25, "top_k": 9,
        "top_p": 0.5, "min_p": 0.125, "typical_p": 0.75, "repeat_last_n": 8, "repeat_penalty": 1.5,
        "presence_penalty": 0.5, "frequency_penalty": 0.25, "mirostat": 2, "mirostat_tau": 4.0,
        "mirostat_eta": 0.5, "num_ctx": 99999,
    }  # fmt: skip
    for path, body in (
        ("/api/chat", {"messages": HI}),
        ("/api/generate", {"prompt": "a"}),
        ("/api/generate", {"prompt": "a", "raw": True}),
    ):
        await client.post(path, json={**body, "options": options, "stream": False})
        submit = engine.submits[-1]
        assert (submit.max_tokens, submit.n_keep, submit.stop) == (7, 3, ["x"])
        skipped = ("num_predict", "num_keep", "stop", "num_ctx")
        assert all(getattr(submit.sampling, k) == v for k, v in options.items() if k not in skipped)
        await client.post(path, json={**body, "options": {"num_predict": -2}, "stream": False})
        assert engine.submits[-1].max_tokens == -1


@pytest.mark.parametrize(
    ("format", "text"),
    [("json", '{"type":"object"}'), ({"const": 1}, '{"const":1}'), ("", None), (None, None)],
)
async def test_formats(client: httpx.AsyncClient, engine: FakeEngine, format: Any, text: str | None) -> None:
    await client.post("/api/chat", json={"messages": HI, "format": format, "stream": False})
    constraint = engine.submits[0].constraint
    assert (constraint and constraint.text) == text


async def test_thinking_reaches_the_template(connected: Any) -> None:
    engine = FakeEngine()
    async with connected(fake_state(engine, "{{ enable_thinking }}{{ reasoning_effort }}")) as client:
        for think in (True, False, "high"):
            body = {"messages": HI, "think": think, "stream": False}
            assert (await client.post("/api/chat", json=body)).status_code == 200
    assert list(map(prompt_of, engine.submits)) == ["True", "False", "Truehigh"]


IMAGE = {"role": "user", "content": "x", "images": ["AA=="]}


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/chat", {"messages": "hi"}, 400, "Field 'messages'"),
        ("/api/chat", {"messages": ["hi"]}, 400, "messages[0]"),
        ("/api/chat", {"messages": [IMAGE]}, 501, "messages[0].images"),
        ("/api/chat", {"messages": HI, "think": "a bit"}, 400, "Field 'think'"),
        ("/api/chat", {"messages": HI, "format": "xml"}, 400, "Field 'format'"),
        ("/api/chat", {"messages": HI, "options": {"top_p": 2}}, 400, "top_p"),
        ("/api/chat", {"messages": [{"role": "user", "content": "x" * 500}]}, 400, "context size"),
        ("/api/generate", {"prompt": "a", "images": ["AA=="]}, 501, "Field 'images'"),
        ("/api/generate", {"prompt": "a", "context": [1]}, 501, "Field 'context'"),
        ("/api/generate", {"prompt": "a", "suffix": "b"}, 501, "Infill is not supported"),
        ("/api/embed", {"input": "a"}, 501, "--embeddings"),
        ("/api/pull", {"model": "x"}, 501, "-m"),
    ],
)
async def test_errors_are_a_text(
    client: httpx.AsyncClient, path: str, body: Any, status: int, words: str
) -> None:
    response = await client.post(path, json=body)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert words in response.json()["error"]


async def test_an_error_in_a_stream_is_its_last_line(connected: Any) -> None:
    broke = Output(id="", finish_reason="error", error=ErrorInfo(500, "server_error", "broke"))
    async with connected(fake_state(FakeEngine(["a", broke]))) as client:
        found = lines(await client.post("/api/chat", json={"messages": HI}))
    assert found[0]["message"]["content"] == "a"
    assert found[1:] == [{"error": "broke"}]


async def test_silence_has_no_pings(connected: Any) -> None:
    """A line must be an object; the headers come early all the same."""
    state = fake_state(FakeEngine(["a"]))
    state.ping_seconds = 1e-9
    async with connected(state) as client:
        assert len(lines(await client.post("/api/chat", json={"messages": HI}))) == 2


async def test_what_is_there(client: httpx.AsyncClient) -> None:
    (tag,) = (await client.get("/api/tags")).json()["models"]
    (loaded,) = (await client.get("/api/ps")).json()["models"]
    assert tag["name"] == tag["model"] == "tiny"
    assert tag.items() <= loaded.items()
    assert loaded["context_length"] == 256
    shown = (await client.post("/api/show", json={"model": "tiny"})).json()
    assert shown["capabilities"] == ["completion", "tools"]
    assert "<|im_start|>" in shown["template"]
    arch = shown["model_info"]["general.architecture"]
    assert shown["model_info"][f"{arch}.context_length"] == 256
    assert "version" in (await client.get("/api/version")).json()


class Lengths(FakeEngine):
    """The vector of a prompt is [its tokens, 0, 1]."""

    def __init__(self, pooling: Any = "mean") -> None:
        super().__init__()
        self.status = Status(state="ready", ready=msgspec.structs.replace(READY, pooling=pooling))

    async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
        vector = np.array([len(submit.prompt), 0, 1], "<f4")
        yield Output(id=submit.id, finish_reason="stop", embedding=vector.tobytes())


async def test_embeddings(connected: Any) -> None:
    async with connected(fake_state(Lengths(), embd_normalize=-1)) as client:
        body = (await client.post("/api/embed", json={"input": ["ab", "cde"]})).json()
        assert (body["embeddings"], body["prompt_eval_count"]) == ([[3, 0, 1], [4, 0, 1]], 7)
        assert (await client.post("/api/embed", json={"input": "a"})).json()["embeddings"] == [[2, 0, 1]]
        assert (await client.post("/api/embeddings", json={"prompt": "a"})).json() == {"embedding": [2, 0, 1]}
        assert (await client.post("/api/chat", json={"messages": HI})).status_code == 501
        assert (await client.post("/api/show", json={})).json()["capabilities"] == ["embedding"]
    async with connected(fake_state(Lengths("none"))) as client:
        assert "Pooling" in (await client.post("/api/embed", json={"input": "a"})).json()["error"]


async def test_keys_and_the_prefix(connected: Any) -> None:
    async with connected(fake_state(api_prefix="/llm", api_keys=("k",))) as client:
        refused = await client.get("/llm/api/tags")
        assert (refused.status_code, refused.json()) == (401, {"error": "Invalid API Key"})
        headers = {"Authorization": "Bearer k"}
        assert (await client.get("/llm/api/tags", headers=headers)).status_code == 200
        assert (await client.post("/llm/api/chat", json={"messages": 1}, headers=headers)).json().keys() == {
            "error"
        }


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_is_cancelled(connected: Any, stream: bool) -> None:
    """Also behind the change of the stream's type."""
    engine = FakeEngine(["a", "b"], hold=1)
    async with connected(fake_state(engine)) as client:
        body = {"messages": HI, "stream": stream}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.post("/api/chat", json=body)
    assert engine.cancelled == [engine.submits[0].id]
