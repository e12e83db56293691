"""POST /v1/chat/completions: the shapes of the contract, key by key."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, fake_state

from corral.engine.messages import ErrorInfo, Output, Progress, Timings, TokenInfo, TopToken
from corral.sampling.params import SamplingParams

URL = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
N_PROMPT = len(PROMPT) + 1  # a token a character, and the one to begin with

TIMINGS = {
    "cache_n": 1,
    "prompt_n": N_PROMPT - 1,
    "prompt_ms": 2.0,
    "prompt_per_token_ms": 2.0 / (N_PROMPT - 1),
    "prompt_per_second": 1000 / 2.0 * (N_PROMPT - 1),
    "predicted_n": 2,
    "predicted_ms": 4.0,
    "predicted_per_token_ms": 4.0,
    "predicted_per_second": 250.0,
}
USAGE = {
    "completion_tokens": 2,
    "prompt_tokens": N_PROMPT,
    "total_tokens": N_PROMPT + 2,
    "prompt_tokens_details": {"cached_tokens": 1},
}


def events(response: httpx.Response) -> list[Any]:
    """The JSON of each event; checks the framing and that [DONE] is last."""
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    *frames, end = response.text.split("\n\n")
    assert end == ""
    assert frames.pop() == "data: [DONE]"
    assert all(f.startswith("data: {") and "\n" not in f for f in frames)
    return [json.loads(f.removeprefix("data: ")) for f in frames]


@pytest.mark.parametrize("url", [URL, "/chat/completions"])
async def test_the_response(client: httpx.AsyncClient, url: str) -> None:
    response = await client.post(url, json={"messages": HI, "temperature": 0.7, "max_tokens": 256})
    assert response.status_code == 200
    body = response.json()
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{32}", body.pop("id"))
    assert abs(body.pop("created") - __import__("time").time()) < 60
    assert body.pop("system_fingerprint").startswith("b1-corral")
    assert body == {
        "choices": [
            {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "Hello"}}
        ],
        "model": "tiny",
        "object": "chat.completion",
        "usage": USAGE,
        "timings": TIMINGS,
    }


async def test_the_stream(client: httpx.AsyncClient) -> None:
    chunks = events(await client.post(URL, json={"messages": HI, "stream": True}))
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["model"] == "tiny"
        assert chunk["id"] == chunks[0]["id"]
        assert chunk["created"] == chunks[0]["created"]
        assert chunk["system_fingerprint"].startswith("b")
        assert "usage" not in chunk
    assert [c["choices"] for c in chunks] == [
        [{"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}],
        [{"finish_reason": None, "index": 0, "delta": {"content": "Hel"}}],
        [{"finish_reason": None, "index": 0, "delta": {"content": "lo"}}],
        [{"finish_reason": "stop", "index": 0, "delta": {}}],
    ]
    assert [c.get("timings") for c in chunks] == [None, None, None, TIMINGS]


async def test_the_usage_chunk_comes_last_and_has_the_timings(client: httpx.AsyncClient) -> None:
    request = {"messages": HI, "stream": True, "stream_options": {"include_usage": True}}
    chunks = events(await client.post(URL, json=request))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == USAGE
    assert [("timings" in c, "usage" in c) for c in chunks] == [(False, False)] * 4 + [(True, True)]


async def test_held_back_text_makes_no_empty_chunks(connected: Any) -> None:
    words = [Output(id="", tokens=[1]), "é", Output(id="", tokens=[2])]
    async with connected(fake_state(FakeEngine(words))) as client:
        chunks = events(await client.post(URL, json={"messages": HI, "stream": True}))
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert deltas == [{"role": "assistant", "content": None}, {"content": "é"}, {}]


async def test_an_answer_without_text(connected: Any) -> None:
    end = Output(id="", finish_reason="length", timings=Timings(prompt_n=5, prompt_ms=1.0))
    async with connected(fake_state(FakeEngine([end]))) as client:
        body = (await client.post(URL, json={"messages": HI})).json()
        chunks = events(await client.post(URL, json={"messages": HI, "stream": True}))
    assert body["choices"][0]["message"]["content"] == ""
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["timings"]["predicted_per_second"] == body["timings"]["predicted_per_token_ms"] == 0.0
    assert [c["choices"][0]["delta"] for c in chunks] == [{"role": "assistant", "content": None}, {}]


async def test_one_token_has_no_rate(connected: Any) -> None:
    timings = Timings(prompt_n=5, prompt_ms=1.0, predicted_n=1, predicted_ms=0.1)
    async with connected(fake_state(FakeEngine([Output(id="", finish_reason="stop", timings=timings)]))) as c:
        assert (await c.post(URL, json={"messages": HI})).json()["timings"]["predicted_per_second"] == 0.0


LOGPROB = {
    "id": 0,
    "token": "Hel",
    "bytes": [72, 101, 108],
    "logprob": -0.5,
    "top_logprobs": [
        {"id": 0, "token": "Hel", "bytes": [72, 101, 108], "logprob": -0.5},
        {"id": 99, "token": "\ufffd", "bytes": [255], "logprob": -3.4028234663852886e38},
    ],
}


async def test_logprobs(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    request = {"messages": HI, "logprobs": True, "top_logprobs": 2}
    body = (await client.post(URL, json=request)).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert content[0] == LOGPROB
    assert [c["token"] for c in content] == ["Hel", "lo"]
    chunks = events(await client.post(URL, json={**request, "stream": True}))
    streamed = [c["choices"][0]["logprobs"]["content"] for c in chunks if "logprobs" in c["choices"][0]]
    assert streamed == [[content[0]], [content[1]]]
    await client.post(URL, json={"messages": HI, "logprobs": True})
    assert [s.sampling.n_probs for s in engine.submits] == [2, 2, 20]


async def test_logprobs_without_alternatives(client: httpx.AsyncClient) -> None:
    request = {"messages": HI, "logprobs": True, "top_logprobs": 0}
    (first, _) = (await client.post(URL, json=request)).json()["choices"][0]["logprobs"]["content"]
    assert first == {**LOGPROB, "top_logprobs": []}
    (_, chunk, *_) = events(await client.post(URL, json={**request, "stream": True}))
    assert chunk["choices"][0]["logprobs"]["content"] == [first]


async def test_several_choices(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = (await client.post(URL, json={"messages": HI, "n": 3, "seed": 7})).json()
    assert [c["index"] for c in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 6
    assert body["usage"]["prompt_tokens"] == N_PROMPT
    assert [s.sampling.seed for s in engine.submits] == [7, 8, 9]
    assert len({s.id for s in engine.submits}) == 3
    chunks = events(await client.post(URL, json={"messages": HI, "n": 2, "stream": True}))
    for index in (0, 1):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": None}
        assert "".join(c["delta"].get("content") or "" for c in own) == "Hello"
        assert own[-1]["finish_reason"] == "stop"


async def test_what_the_engine_is_told(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post(URL, json={"messages": HI})
    (plain,) = engine.submits
    assert plain.prompt == [1] + [ord(c) for c in PROMPT]
    assert (plain.max_tokens, plain.stop, plain.sampling) == (-1, [], SamplingParams())
    request = {
        "model": "whatever", "messages": HI, "max_tokens": 9, "stop": ["a", ""], "temperature": 0, "top_k": 5,
        "top_p": 0.5, "min_p": 0.25, "seed": -1, "repeat_penalty": 1.1,
        "repeat_last_n": -1, "presence_penalty": 1, "frequency_penalty": -1, "ignore_eos": True,
        "logit_bias": {"5": -1, "7": False},
        "user": "me", "store": True, "metadata": {"a": 1}, "service_tier": "auto", "tool_choice": "auto",
    }  # fmt: skip
    assert (await client.post(URL, json=request)).status_code == 200
    told = engine.submits[1]
    assert (told.max_tokens, told.stop) == (9, ["a"])
    assert told.sampling == SamplingParams(
        temperature=0.0, top_k=5, top_p=0.5, min_p=0.25, seed=None, repeat_penalty=1.1, repeat_last_n=-1,
        presence_penalty=1.0, frequency_penalty=-1.0, ignore_eos=True, logit_bias={5: -1.0, 7: float("-inf")},
    )  # fmt: skip


async def test_null_means_the_default(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    from corral.server.schema import ChatRequest

    request = dict.fromkeys(ChatRequest.__struct_fields__) | {"messages": HI}
    response = await client.post(URL, json=request)
    assert response.status_code == 200, response.text
    assert engine.submits[0].sampling == SamplingParams()


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, 50),
        ({"max_tokens": 10}, 10),
        ({"max_tokens": 99}, 50),
        ({"max_tokens": -1}, 50),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "max_completion_tokens": 20, "n_predict": 30}, 30),
        ({"max_tokens": 16.0}, 16),
        ({"max_tokens": 0}, 0),
    ],
)
async def test_the_limit_is_the_smaller_of_the_request_and_the_server(
    connected: Any, limits: dict[str, Any], told: int
) -> None:
    engine = FakeEngine()
    async with connected(fake_state(engine, n_predict=50)) as client:
        await client.post(URL, json={"messages": HI, **limits})
    assert engine.submits[0].max_tokens == told


async def test_the_servers_sampling_defaults_hold(connected: Any) -> None:
    engine = FakeEngine()
    async with connected(fake_state(engine, sampling=SamplingParams(temperature=0.1, seed=5))) as client:
        await client.post(URL, json={"messages": HI, "top_k": 3})
        await client.post(URL, json={"messages": HI, "seed": 2**40 + 3})
    assert engine.submits[0].sampling == SamplingParams(temperature=0.1, seed=5, top_k=3)
    assert engine.submits[1].sampling.seed == 3


async def test_template_variables(connected: Any) -> None:
    engine = FakeEngine()
    template = "{{ messages[0].content }}{{ enable_thinking }}{{ reasoning_effort }}{{ a }}{{ b }}"
    async with connected(fake_state(engine, template, chat_template_kwargs={"a": 1, "b": 2})) as client:
        for extra in (
            {},
            {"chat_template_kwargs": {"b": 3}, "enable_thinking": False, "reasoning_effort": "low"},
            {"reasoning_effort": "none"},
        ):
            assert (await client.post(URL, json={"messages": HI, **extra})).status_code == 200
    texts = ["".join(map(chr, s.prompt[1:])) for s in engine.submits]
    assert texts == ["hi12", "hiFalselow13", "hiFalse12"]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"messages": None}, 400, "Field 'messages': expected an array, got null"),
        ({"messages": "hi"}, 400, "Field 'messages': expected an array, got \"hi\""),
        ({"messages": []}, 400, "at least one message"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            501,
            "'messages[0].content[0].type': 'image_url': this model takes text only",
        ),
        ({"messages": [{"role": "user", "content": [{"type": []}]}]}, 400, "unsupported content[].type"),
        ({"messages": [{"role": "assistant", "content": "a"}] * 2}, 400, "Cannot have 2 or more assistant"),
        ({"temperature": "hot"}, 400, "Field 'temperature': expected a number, got \"hot\""),
        ({"top_p": 1.5}, 400, "Field 'top_p': expected a number from 0.0 to 1.0, got 1.5"),
        ({"min_p": -0.1}, 400, "Field 'min_p': expected a number from 0.0 to 1.0, got -0.1"),
        ({"top_k": 1.5}, 400, "Field 'top_k': expected an integer, got 1.5"),
        ({"max_tokens": -2}, 400, "Field 'max_tokens': expected an integer from -1 to 2147483647, got -2"),
        ({"max_tokens": 10**30}, 400, "Field 'max_tokens'"),
        ({"n": 0}, 400, "Field 'n': expected an integer from 1 to"),
        ({"n": 5}, 400, "Field 'n': expected an integer from 1 to 4 (--parallel), got 5"),
        ({"n_discard": -1}, 400, "Field 'n_discard'"),
        (
            {"repeat_penalty": 0},
            400,
            "Field 'repeat_penalty': expected a number from 1e-06 to 10000.0, got 0",
        ),
        ({"id_slot": 4}, 400, "Field 'id_slot': expected an integer from -1 to 3 (below --parallel), got 4"),
        ({"stream": "yes"}, 400, "Field 'stream': expected a boolean, got \"yes\""),
        ({"stop": [1]}, 400, "Field 'stop[0]': expected a string, got 1"),
        ({"stream_options": {"include_usage": 1}}, 400, "Field 'stream_options.include_usage'"),
        ({"top_logprobs": 3}, 400, "Field 'top_logprobs': needs 'logprobs'"),
        (
            {"logprobs": True, "top_logprobs": 21},
            400,
            "Field 'top_logprobs': expected an integer from 0 to 20",
        ),
        ({"logit_bias": {"1000": 1}}, 400, "Field 'logit_bias': token 1000 is not from 0 to 999"),
        ({"logit_bias": {"1": "x"}}, 400, "Field 'logit_bias': the bias of '1' is x"),
        ({"logit_bias": [[1]]}, 400, "Field 'logit_bias': expected pairs"),
        ({"logit_bias": [[1, 1]] * (2**16 + 1)}, 400, "Field 'logit_bias'"),
        ({"logit_bias": {str(i): 1 for i in range(2**16 + 1)}}, 400, "Field 'logit_bias'"),
        ({"logit_bias": [["x", 1]] * 1025}, 400, "Field 'logit_bias': expected at most 1024 texts"),
        ({"logit_bias": {"x" * 16385: 1}}, 400, "texts, of 16384 characters together"),
        ({"logit_bias": [[None, 1]]}, 400, "Field 'logit_bias': expected a token's id or text"),
        ({"add_generation_prompt": True, "continue_final_message": True}, 400, "Cannot set both"),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, 400, "exceeds the available context size"),
        ({"tools": [{"type": "function"}]}, 400, "Field 'tools[0].function': expected an object, got null"),
        ({"grammar": "root ::= [a]", "json_schema": {}}, 400, 'Either "grammar" or "json_schema"'),
        ({"response_format": {"type": "xml"}}, 400, "Field 'response_format.type': expected \"text\""),
        ({"mirostat": 3}, 400, "Field 'mirostat': expected an integer from 0 to 2, got 3"),
        (
            {"xtc_probability": 1.5},
            400,
            "Field 'xtc_probability': expected a number from 0.0 to 1.0, got 1.5",
        ),
        ({"adaptive_decay": 1}, 400, "Field 'adaptive_decay': expected a number from 0.0 to 0.99"),
        ({"samplers": ["top_k"] * 65}, 400, "Field 'samplers': expected at most 64, got 65"),
        ({"samplers": [1]}, 400, "Field 'samplers[0]': expected a string, got 1"),
        ({"dry_sequence_breakers": []}, 400, "Field 'dry_sequence_breakers': expected at least one text"),
        ({"lora": [{"id": 0, "scale": 1}]}, 501, "Field 'lora'"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, engine: FakeEngine, change: dict[str, Any], status: int, message: str
) -> None:
    for stream in (False, True):
        response = await client.post(URL, json={"messages": HI, "stream": stream} | change)
        body = response.json()["error"]
        assert response.status_code == body["code"] == status
        assert message in body["message"]
        assert body["type"] == {400: "invalid_request_error", 501: "not_supported_error"}[status] or (
            body["type"] == "exceed_context_size_error"
        )
    assert engine.submits == []


@pytest.mark.parametrize(
    "same",
    [
        {"response_format": {"type": "text"}}, {"tools": []}, {"reasoning_format": "auto"}, {"lora": []},
        {"grammar": ""}, {"tool_choice": "none", "parallel_tool_calls": True}, {"t_max_predict_ms": 0},
        {"cache_prompt": True, "id_slot": -1, "n_keep": 0},
    ],
)  # fmt: skip
async def test_a_field_that_asks_for_what_happens_anyway_is_fine(
    client: httpx.AsyncClient, same: dict[str, Any]
) -> None:
    assert (await client.post(URL, json={"messages": HI, **same})).status_code == 200


async def test_probabilities_after_sampling(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    top = [TopToken(7, b"a", math.log(0.75)), TopToken(8, b"b", math.log(0.25))]
    info = TokenInfo(8, b"b", math.log(0.25), top, post_sampling=True)
    engine.words = [Output(id="", text="b", tokens=[8], infos=[info], finish_reason="length")]
    response = await client.post(URL, json={"messages": HI, "n_probs": 2, "post_sampling_probs": True})
    (token,) = response.json()["choices"][0]["logprobs"]["content"]
    assert token["top_probs"] == [
        {"id": 7, "token": "a", "bytes": [97], "prob": pytest.approx(0.75)},
        {"id": 8, "token": "b", "bytes": [98], "prob": pytest.approx(0.25)},
    ]
    del token["top_probs"]
    assert token == {"id": 8, "token": "b", "bytes": [98], "prob": pytest.approx(0.25)}
    assert engine.submits[0].sampling.post_sampling_probs


async def test_the_context_error_has_its_numbers(client: httpx.AsyncClient) -> None:
    long = [{"role": "user", "content": "x" * 300}]
    error = (await client.post(URL, json={"messages": long})).json()["error"]
    assert error["type"] == "exceed_context_size_error"
    assert error["n_prompt_tokens"] == N_PROMPT + 298
    assert error["n_ctx"] == 256


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body is empty"),
        (b"  ", "The body is empty"),
        (b"{", "not valid JSON"),
        (b'{"messages": [}', "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"messages": ["\\ud800"]}', "not valid JSON"),
        (b'{"messages":' + b"[" * 100_000, "not valid JSON"),
        (b'{"messages": [], "temperature": 1e999}', "Field 'temperature'"),
        (b'{"messages": [], "temperature": NaN}', "not valid JSON"),
        (b"{}", "Field 'messages': missing"),
    ],
)
async def test_a_body_that_is_no_request_is_400(client: httpx.AsyncClient, body: bytes, message: str) -> None:
    response = await client.post(URL, content=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


FAILURE = Output(
    id="",
    finish_reason="error",
    error=ErrorInfo(500, "server_error", "the context size has been exceeded", {"n": 1}),
)
FAILED = {
    "error": {"code": 500, "message": "the context size has been exceeded", "type": "server_error", "n": 1}
}


async def test_an_error_before_the_first_token_is_an_ordinary_response(connected: Any) -> None:
    async with connected(fake_state(FakeEngine([FAILURE]))) as client:
        for stream in (False, True):
            response = await client.post(URL, json={"messages": HI, "stream": stream})
            assert (response.status_code, response.json()) == (500, FAILED)
            assert response.headers["content-type"].startswith("application/json")


async def test_an_error_in_mid_stream_is_the_last_event(
    connected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "corral.http")
    async with connected(fake_state(FakeEngine(["Hel", FAILURE]))) as client:
        response = await client.post(URL, json={"messages": HI, "stream": True})
        assert response.status_code == 200
        assert response.text.endswith("data: " + json.dumps(FAILED, separators=(",", ":")) + "\n\n")
        assert "[DONE]" not in response.text
        assert caplog.messages[-1].endswith(f"]: {FAILED['error']['message']}")
        assert (await client.post(URL, json={"messages": HI})).status_code == 500


async def test_a_bug_in_mid_stream_is_an_event_that_says_nothing(connected: Any) -> None:
    async with connected(fake_state(FakeEngine(["Hel", ZeroDivisionError("the secret")]))) as client:
        response = await client.post(URL, json={"messages": HI, "stream": True})
    assert '"code":500' in response.text
    assert "secret" not in response.text


async def test_an_engine_that_ends_without_a_reason_is_our_bug(connected: Any) -> None:
    class Forgetful(FakeEngine):
        async def generate(self, submit: Any) -> Any:
            yield Output(id=submit.id, text="x")

    async with connected(fake_state(Forgetful())) as client:
        assert (await client.post(URL, json={"messages": HI})).status_code == 500


async def test_a_stream_tells_of_the_work(connected: Any) -> None:
    progress = [Progress(total=9, cache=2, processed=n, time_ms=1.5) for n in (5, 9)]
    words = [
        *(Output(id="", progress=p) for p in progress),
        Output(id="", text="x", tokens=[1], timings=Timings(predicted_n=1)),
        Output(id="", text="y", tokens=[2], finish_reason="length", timings=Timings(predicted_n=2)),
    ]
    request = {"messages": HI, "stream": True, "return_progress": True, "timings_per_token": True}
    engine = FakeEngine(words)
    async with connected(fake_state(engine)) as client:
        chunks = events(await client.post(URL, json=request))
    speaks = {"role": "assistant", "content": None}
    assert [c["choices"][0]["delta"] for c in chunks] == [
        speaks,
        speaks,
        {"content": "x"},
        {"content": "y"},
        {},
    ]
    assert [c.get("prompt_progress", {}).get("processed") for c in chunks] == [5, 9, None, None, None]
    assert [c.get("timings", {}).get("predicted_n") for c in chunks] == [None, None, 1, 2, 2]
    assert (engine.submits[0].progress, engine.submits[0].timings_per_token) == (True, True)


async def test_verbose_shows_llama_servers_view(client: httpx.AsyncClient) -> None:
    request = {"messages": HI, "verbose": True, "logprobs": True}
    view = (await client.post(URL, json=request)).json()["__verbose"]
    assert (view["content"], view["prompt"]) == ("Hello", "<s>" + PROMPT)
    assert [p["token"] for p in view["completion_probabilities"]] == ["Hel", "lo"]
    chunks = events(await client.post(URL, json={**request, "stream": True}))
    assert ["__verbose" in c for c in chunks] == [False, False, False, True]
    assert chunks[-1]["__verbose"]["tokens_predicted"] == 2
    assert chunks[-1]["__verbose"]["generation_settings"]["stream"] is True
