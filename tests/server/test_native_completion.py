"""POST /completion."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, fake_state

from corral.engine.messages import Output, Progress, Timings, TokenInfo, TopToken

URL = "/completion"
FINAL = {
    "index", "content", "tokens", "id_slot", "stop", "model", "tokens_predicted", "tokens_evaluated",
    "generation_settings", "prompt", "has_new_line", "truncated", "stop_type", "stopping_word",
    "tokens_cached", "timings",
}  # fmt: skip
PART = {"index", "content", "tokens", "stop", "id_slot", "tokens_predicted", "tokens_evaluated"}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "text/event-stream"
    *frames, end = response.text.split("\n\n")
    assert end == ""
    return [json.loads(f.removeprefix("data: ")) for f in frames if f != ":"]


@pytest.mark.parametrize("url", ["/completion", "/completions"])
async def test_the_response(client: httpx.AsyncClient, url: str) -> None:
    body = (await client.post(url, json={"prompt": "abc", "n_predict": 5})).json()
    assert set(body) == FINAL
    settings, timings = body.pop("generation_settings"), body.pop("timings")
    assert body == {
        "index": 0, "content": "Hello", "tokens": [], "id_slot": -1, "stop": True, "model": "tiny",
        "tokens_predicted": 2, "tokens_evaluated": 4, "prompt": "<s>abc", "has_new_line": False,
        "truncated": False, "stop_type": "eos", "stopping_word": "", "tokens_cached": 5,
    }  # fmt: skip
    assert settings["n_predict"] == settings["max_tokens"] == 5
    assert timings["prompt_n"] + timings["cache_n"] == 4


async def test_settings_echo_what_was_asked_for(client: httpx.AsyncClient) -> None:
    asked = {
        "temperature": 0.5, "top_k": 7, "seed": 42, "n_predict": 3, "n_keep": 2, "n_discard": 1, "n_probs": 2,
        "repeat_penalty": 1.5, "ignore_eos": False, "timings_per_token": True, "stop": ["x"],
    }  # fmt: skip
    body = (await client.post(URL, json={"prompt": "a", "logit_bias": [[5, False]], **asked})).json()
    settings = body["generation_settings"]
    assert {name: settings[name] for name in asked} == asked
    assert settings["logit_bias"] == [{"bias": None, "token": 5}]
    body = (await client.post(URL, json={"prompt": "a", "ignore_eos": True, "logit_bias": {"7": 1}})).json()
    banned = [{"bias": None, "token": token} for token in (0, 2)]
    assert body["generation_settings"]["logit_bias"] == [{"bias": 1.0, "token": 7}, *banned]
    assert settings["stream"] is False
    assert settings["mirostat"] == 0


async def test_the_seed_that_was_drawn_is_reported(connected: Any) -> None:
    end = Output(id="", finish_reason="stop", seed=77)
    async with connected(fake_state(FakeEngine(["x", end]))) as client:
        body = (await client.post(URL, json={"prompt": "a"})).json()
    assert body["generation_settings"]["seed"] == 77


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("ab", [[1, 97, 98]]),
        ([5, 6], [[5, 6]]),
        ([5, "a"], [[5, 97]]),
        (["a", 5], [[1, 97, 5]]),
        ({"prompt_string": "a"}, [[1, 97]]),
        (["a", [5, "b"]], [[1, 97], [5, 98]]),
        ([{"prompt_string": "a"}, "b"], [[1, 97], [1, 98]]),
    ],
)
async def test_the_forms_of_a_prompt(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, ids: list[list[int]]
) -> None:
    body = (await client.post(URL, json={"prompt": prompt})).json()
    assert [s.prompt for s in engine.submits] == ids
    results = body if len(ids) > 1 else [body]
    assert [r["index"] for r in results] == list(range(len(ids)))


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "Field 'prompt': missing"),
        ({"prompt": {}}, 400, "Field 'prompt.prompt_string': expected a string"),
        ({"prompt": {"prompt_string": "a", "multimodal_data": ["x"]}}, 501, "multimodal_data"),
        ({"prompt": "a", "n_discard": -1}, 400, "Field 'n_discard': expected an integer from 0"),
        ({"prompt": "a", "n_cmpl": 9}, 400, "Field 'n': expected an integer from 1 to 4 (--parallel), got 9"),
        ({"prompt": "a", "stop": ["x"] * 257}, 400, "Field 'stop': expected"),
        ({"prompt": "a", "response_fields": "content"}, 400, "Field 'response_fields': expected an array"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, message: str
) -> None:
    response = await client.post(URL, json=body)
    assert response.status_code == status
    assert message in response.json()["error"]["message"]


async def test_several_choices_are_an_array(client: httpx.AsyncClient) -> None:
    for name in ("n", "n_cmpl"):
        body = (await client.post(URL, json={"prompt": "a", name: 2})).json()
        assert [r["index"] for r in body] == [0, 1]


async def test_chosen_fields(client: httpx.AsyncClient) -> None:
    fields = ["content", "generation_settings/n_predict", "timings/prompt_n", "nothing", "content/x", ""]
    body = (await client.post(URL, json={"prompt": "a", "n_predict": 3, "response_fields": fields})).json()
    assert body == {"content": "Hello", "generation_settings/n_predict": 3, "timings/prompt_n": 1}


async def test_tokens_on_request(client: httpx.AsyncClient) -> None:
    assert (await client.post(URL, json={"prompt": "a", "return_tokens": True})).json()["tokens"] == [0, 1]


async def test_the_stream(client: httpx.AsyncClient) -> None:
    *parts, last = events(await client.post(URL, json={"prompt": "a", "stream": True, "return_tokens": True}))
    assert [set(p) for p in parts] == [PART, PART]
    assert [(p["content"], p["tokens"], p["tokens_predicted"]) for p in parts] == [
        ("Hel", [0], 1), ("lo", [1], 2),
    ]  # fmt: skip
    assert not any(p["stop"] for p in parts)
    assert set(last) == FINAL
    assert (last["content"], last["tokens"], last["stop"]) == ("", [], True)
    assert last["generation_settings"]["stream"] is True


async def test_chosen_fields_of_a_stream_are_those_of_its_end(client: httpx.AsyncClient) -> None:
    body = {"prompt": "a", "stream": True, "response_fields": ["stop_type"]}
    *parts, last = events(await client.post(URL, json=body))
    assert [set(p) for p in parts] == [PART, PART]
    assert last == {"stop_type": "eos"}


async def test_tokens_without_text_come_with_the_next_text(connected: Any) -> None:
    words = [Output(id="", tokens=[7]), Output(id="", tokens=[8], text="é"), Output(id="", tokens=[9])]
    async with connected(fake_state(FakeEngine(words))) as client:
        parts = events(await client.post(URL, json={"prompt": "a", "stream": True, "return_tokens": True}))
    assert [(p["content"], p["tokens"]) for p in parts] == [("é", [7, 8]), ("", [9]), ("", [])]


async def test_timings_and_progress(connected: Any) -> None:
    words = [
        Output(id="", progress=Progress(total=9, cache=2, processed=5, time_ms=1.5)),
        Output(id="", text="x", tokens=[5], timings=Timings(prompt_n=9, predicted_n=1)),
        Output(id="", text="y", tokens=[6], finish_reason="length", timings=Timings(predicted_n=2)),
    ]
    engine = FakeEngine(words)
    async with connected(fake_state(engine)) as client:
        body = {"prompt": "a", "stream": True, "timings_per_token": True, "return_progress": True}
        first, second, third, _ = events(await client.post(URL, json=body))
    assert first["prompt_progress"] == {"total": 9, "cache": 2, "processed": 5, "time_ms": 1.5}
    assert "timings" not in first
    assert [part["timings"]["predicted_n"] for part in (second, third)] == [1, 2]
    (submit,) = engine.submits
    assert (submit.progress, submit.timings_per_token) == (True, True)


async def test_what_the_engine_is_told(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"prompt": "a", "cache_prompt": False, "id_slot": 2, "n_keep": -1, "n_discard": 5, "n_indent": 4}
    await client.post(URL, json=body)
    (submit,) = engine.submits
    assert submit.least_indent == 4
    assert (submit.cache_prompt, submit.id_slot, submit.n_keep, submit.n_discard) == (False, 2, -1, 5)
    assert submit.progress is False


@pytest.mark.parametrize("field", ["n_probs", "logprobs"])
async def test_probabilities_before_the_sampling_chain(client: httpx.AsyncClient, field: str) -> None:
    body = (await client.post(URL, json={"prompt": "a", field: 2})).json()
    first = body["completion_probabilities"][0]
    assert set(first) == {"id", "token", "bytes", "logprob", "top_logprobs"}
    assert (first["token"], first["bytes"], first["logprob"]) == ("Hel", list(b"Hel"), -0.5)
    assert [t["logprob"] for t in first["top_logprobs"]] == [-0.5, -3.4028234663852886e38]
    streamed = events(await client.post(URL, json={"prompt": "a", field: 2, "stream": True}))
    assert [[p["token"] for p in e.get("completion_probabilities", [])] for e in streamed] == [
        ["Hel"], ["lo"], [],
    ]  # fmt: skip


async def test_probabilities_after_sampling(connected: Any) -> None:
    top = [TopToken(5, b"x", math.log(0.25))]
    info = TokenInfo(5, b"x", math.log(0.25), top, post_sampling=True)
    async with connected(
        fake_state(FakeEngine([Output(id="", text="x", tokens=[5], infos=[info])]))
    ) as client:
        body = (
            await client.post(URL, json={"prompt": "a", "n_probs": 2, "post_sampling_probs": True})
        ).json()
    (shown,) = body["completion_probabilities"]
    assert shown == {
        "id": 5, "token": "x", "bytes": [120], "prob": 0.25,
        "top_probs": [{"id": 5, "token": "x", "bytes": [120], "prob": 0.25}],
    }  # fmt: skip


async def test_an_error_before_the_first_output_is_no_stream(connected: Any) -> None:
    async with connected(fake_state(FakeEngine([ValueError("a bug")]))) as client:
        response = await client.post(URL, json={"prompt": "a", "stream": True})
    assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
