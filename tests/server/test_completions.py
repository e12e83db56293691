"""POST /v1/completions."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, FakeTokenizer, fake_state

URL = "/v1/completions"


@pytest.mark.parametrize("prompt", ["x" * 1024, ["ok", "x" * 1024], [5, "x" * 1024]])
async def test_a_text_that_cant_fit_is_not_tokenized(
    connected: Any, monkeypatch: pytest.MonkeyPatch, prompt: Any
) -> None:
    """No token stands for more than 4 characters, and 256 tokens are too many."""
    encode = FakeTokenizer.encode

    def short_only(self: FakeTokenizer, text: str, **options: bool) -> list[int]:
        assert len(text) < 1024
        return encode(self, text, **options)

    monkeypatch.setattr(FakeTokenizer, "encode", short_only)
    async with connected(fake_state()) as client:
        response = await client.post(URL, json={"prompt": prompt})
        chat = await client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "x" * 1024}]}
        )
    for answer in (response, chat):
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == (400, "exceed_context_size_error")
        assert error["message"].startswith("request (at least 2")
        assert 256 <= error["n_prompt_tokens"] < 270


async def test_the_response(client: httpx.AsyncClient) -> None:
    body = (await client.post(URL, json={"prompt": "abc", "max_tokens": 5})).json()
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{32}", body["id"])
    assert set(body) == {
        "id", "object", "created", "model", "system_fingerprint", "choices", "usage", "timings",
    }  # fmt: skip
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"text": "Hello", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"]["prompt_tokens"] == 4
    assert body["timings"]["prompt_n"] + body["timings"]["cache_n"] == 4


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("ab", [[1, 97, 98]]),
        ("", [[1]]),
        ([5, 6], [[5, 6]]),
        (["a", "b"], [[1, 97], [1, 98]]),
        ([[5], [6, 7]], [[5], [6, 7]]),
        (["a", [5]], [[1, 97], [5]]),
        ([5, "a"], [[5, 97]]),
        ([], [[1]]),
        ([[]], [[1]]),
    ],
)
async def test_the_forms_of_a_prompt(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, ids: list[list[int]]
) -> None:
    body = (await client.post(URL, json={"prompt": prompt})).json()
    assert [s.prompt for s in engine.submits] == ids
    assert [c["index"] for c in body["choices"]] == list(range(len(ids)))
    assert body["usage"]["prompt_tokens"] == sum(map(len, ids))


async def test_n_choices_of_each_prompt(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = (await client.post(URL, json={"prompt": ["a", "b"], "n": 2})).json()
    assert [s.prompt[-1] for s in engine.submits] == [97, 97, 98, 98]
    assert [c["index"] for c in body["choices"]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"prompt": None}, 400, "Field 'prompt': expected a string or an array of token ids, got null"),
        ({"prompt": 5}, 400, "Field 'prompt'"),
        ({"prompt": [1000]}, 400, "Field 'prompt[0]': expected a token id from 0 to 999, got 1000"),
        ({"prompt": [[1], [-1]]}, 400, "Field 'prompt[1][0]'"),
        ({"prompt": [True]}, 400, "Field 'prompt[0]'"),
        ({"prompt": [None]}, 400, "Field 'prompt[0]'"),
        ({"prompt": ["a", 1.5]}, 400, "Field 'prompt[1]'"),
        ({"prompt": ["a"] * 1025}, 400, "at most 1024 prompts"),
        ({"prompt": "x" * 300}, 400, "exceeds the available context size"),
        ({"logprobs": -1}, 400, "Field 'logprobs'"),
        ({"echo": True}, 501, "Field 'echo': true is not supported yet"),
        ({"suffix": "x"}, 501, "Field 'suffix'"),
        ({"best_of": 2}, 501, "Field 'best_of'"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, change: dict[str, Any], status: int, message: str
) -> None:
    response = await client.post(URL, json={"prompt": "a"} | change)
    assert response.status_code == status
    assert message in response.json()["error"]["message"]


async def test_a_missing_prompt_is_named(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={})
    assert (response.status_code, response.json()["error"]["message"]) == (
        400,
        "Field 'prompt': missing, but required",
    )


async def test_an_empty_prompt_of_a_model_that_begins_with_nothing(connected: Any) -> None:
    class Bare(FakeTokenizer):
        bos_id = None

        def encode(self, text: str, **_: Any) -> list[int]:
            return super().encode(text)

    import dataclasses

    state = fake_state()
    assert state.model
    state.model = dataclasses.replace(state.model, tokenizer=Bare())
    async with connected(state) as client:
        response = await client.post(URL, json={"prompt": ""})
        assert response.status_code == 400
        assert "empty" in response.json()["error"]["message"]


async def test_the_stream(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={"prompt": "a", "stream": True})
    *frames, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [json.loads(f.removeprefix("data: ")) for f in frames]
    assert [c["choices"][0]["text"] for c in chunks] == ["Hel", "lo", ""]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, "stop"]
    assert {c["object"] for c in chunks} == {"text_completion"}
    assert [("usage" in c, "timings" in c) for c in chunks] == [(False, False), (False, False), (True, True)]
    assert chunks[-1]["usage"]["completion_tokens"] == 2


async def test_logprobs_in_both_forms(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = (await client.post(URL, json={"prompt": "a", "logprobs": 1})).json()
    logprobs = body["choices"][0]["logprobs"]
    assert [c["token"] for c in logprobs["content"]] == logprobs["tokens"] == ["Hel", "lo"]
    assert logprobs["token_logprobs"] == [-0.5, -0.5]
    assert logprobs["text_offset"] == [0, 3]
    assert logprobs["top_logprobs"][0]["Hel"] == -0.5
    response = await client.post(URL, json={"prompt": "a", "logprobs": 0, "stream": True})
    chunks = [json.loads(f.removeprefix("data: ")) for f in response.text.split("\n\n")[:3]]
    assert [c["choices"][0]["logprobs"] and c["choices"][0]["logprobs"]["text_offset"] for c in chunks] == [
        [0],
        [3],
        None,
    ]
    await client.post(URL, json={"prompt": "a", "logprobs": False})
    assert [s.sampling.n_probs for s in engine.submits] == [1, 1, 0]
