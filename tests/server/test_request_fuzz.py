"""No request is a 500, whatever is in it; what is accepted reaches the engine in bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from fake_engine import FakeEngine, fake_state
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.server.app import build_app
from corral.server.convert.messages import MessagesRequest
from corral.server.convert.ollama import OllamaChatRequest, OllamaGenerateRequest, Options
from corral.server.convert.responses import ResponsesRequest
from corral.server.schema import ChatRequest, CompletionRequest, NativeRequest

pytestmark = pytest.mark.slow

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
likely = st.sampled_from(
    [
        0,
        1,
        -1,
        2,
        0.5,
        1e300,
        -1e300,
        2**31,
        2**63,
        2**64,
        True,
        False,
        None,
        "",
        "x",
        [],
        {},
        [1],
        ["x"],
        {"1": 1},
    ]
)
parts = st.fixed_dictionaries({}, optional={"type": likely | st.just("text"), "text": likely | st.just("hi")})
message = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "developer", "tool", "x"]) | likely,
        "content": st.text(max_size=8) | likely | st.lists(parts, max_size=2),
        "tool_calls": likely,
        "name": likely,
    },
)


def fields(request: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(request.__struct_fields__)
    return st.dictionaries(names | st.text(max_size=5), likely | json_values, max_size=6)


chat = st.builds(
    lambda body, messages: {"messages": messages, **body}, fields(ChatRequest), st.lists(message, max_size=3)
)
completion = st.builds(
    lambda body, prompt: {"prompt": prompt, **body}, fields(CompletionRequest), likely | json_values
)

items = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning"]) | likely,
        "role": st.sampled_from(["user", "assistant", "system"]) | likely,
        "content": likely | st.lists(parts, max_size=2),
        "call_id": likely,
        "name": likely,
        "arguments": st.just("{}") | likely,
        "output": likely | st.lists(parts, max_size=2),
        "summary": likely,
    },
)
responses = st.builds(
    lambda body, given: {"input": given, **body},
    fields(ResponsesRequest),
    likely | st.lists(items, max_size=4),
)
kinds = st.sampled_from(["text", "tool_use", "tool_result", "thinking", "image", "document"])
blocks = st.fixed_dictionaries(
    {"type": kinds | likely},
    optional={
        "text": likely,
        "id": likely,
        "name": likely,
        "input": likely,
        "tool_use_id": likely,
        "content": likely | st.lists(parts, max_size=2),
        "is_error": likely,
        "thinking": likely,
        "source": likely | st.just({"type": "text", "data": "x"}),
    },
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | likely},
    optional={"content": likely | st.lists(blocks, max_size=3)},
)
messages = st.builds(
    lambda body, said: {"messages": said, **body}, fields(MessagesRequest), st.lists(turns, max_size=4)
)

native = st.builds(
    lambda body, prompt: {"prompt": prompt, **body}, fields(NativeRequest), likely | st.just("a")
)
ollama_options = st.fixed_dictionaries({}, optional={"options": likely | fields(Options)})
ollama_chat = st.builds(
    lambda body, options, said: {"messages": said, **body, **options},
    fields(OllamaChatRequest),
    ollama_options,
    st.lists(message, max_size=3),
)
ollama_generate = st.builds(
    lambda body, options: {"prompt": "a", **body, **options}, fields(OllamaGenerateRequest), ollama_options
)

STATE = fake_state()
APP = build_app(STATE)


def post(path: str, content: bytes) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://test") as client:
            return await client.post(path, content=content)

    engine = STATE.engine = FakeEngine()
    response = asyncio.run(send())
    assert response.status_code in (200, 400, 501), response.text
    if response.status_code != 200:
        error = response.json()["error"]
        assert error if path.startswith("/api/") else error["message"]
        if not path.startswith(("/api/", "/v1/messages")):
            assert error["code"] == response.status_code
    for submit in engine.submits:
        assert -1 <= submit.max_tokens < 2**31
        assert all(0 <= token < 1000 for token in (*submit.prompt, *submit.sampling.logit_bias))
        assert 0 <= submit.sampling.top_p <= 1
        assert submit.sampling.seed is None or 0 <= submit.sampling.seed < 2**32
        msgspec.msgpack.encode(submit)
    return response


@settings(max_examples=150, deadline=None)
@given(chat)
def test_chat_requests(body: dict[str, Any]) -> None:
    post("/v1/chat/completions", msgspec.json.encode(body))


@settings(max_examples=150, deadline=None)
@given(completion)
def test_completion_requests(body: dict[str, Any]) -> None:
    post("/v1/completions", msgspec.json.encode(body))


@settings(max_examples=150, deadline=None)
@given(responses, st.booleans())
def test_responses_requests(body: dict[str, Any], counting: bool) -> None:
    post("/v1/responses" + "/input_tokens" * counting, msgspec.json.encode(body))


@settings(max_examples=150, deadline=None)
@given(messages, st.booleans())
def test_messages_requests(body: dict[str, Any], counting: bool) -> None:
    post("/v1/messages" + "/count_tokens" * counting, msgspec.json.encode(body))


@settings(max_examples=150, deadline=None)
@given(native)
def test_native_requests(body: dict[str, Any]) -> None:
    post("/completion", msgspec.json.encode(body))


@settings(max_examples=150, deadline=None)
@given(ollama_chat)
def test_ollama_chats(body: dict[str, Any]) -> None:
    post("/api/chat", msgspec.json.encode(body))


@settings(max_examples=150, deadline=None)
@given(ollama_generate)
def test_ollama_completions(body: dict[str, Any]) -> None:
    post("/api/generate", msgspec.json.encode(body))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=8))
def test_bytes(junk: bytes, more: bytes) -> None:
    post("/v1/chat/completions", junk)
    post(
        "/v1/chat/completions", b'{"messages":[{"role":"user","content":"' + junk + b'"}],"n":' + more + b"}"
    )


def test_accepted_requests_are_not_only_refused() -> None:
    assert post("/v1/chat/completions", b'{"messages":[{"role":"user","content":"hi"}]}').status_code == 200
