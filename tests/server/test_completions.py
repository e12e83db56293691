"""POST /v1/completions."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, FakeTokenizer, fake_state

from corral.engine.messages import INPUTS_AT_ONCE, Output, Progress, Submit, Timings, TokenInfo
from corral.server.reply import LOWEST
from corral.tokenizer.special_ids import SpecialIds

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


@pytest.mark.parametrize("stream", [False, True])
async def test_of_many_prompts_only_some_are_with_the_engine_at_a_time(connected: Any, stream: bool) -> None:
    class Counting(FakeEngine):
        running = most = 0

        async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                async for output in super().generate(submit):
                    yield output
            finally:
                self.running -= 1

    engine = Counting()
    async with connected(fake_state(engine)) as client:
        response = await client.post(URL, json={"prompt": ["a"] * 300, "stream": stream})
    assert response.status_code == 200
    assert response.text.count('"finish_reason":"stop"') == 300
    assert 1 < engine.most <= INPUTS_AT_ONCE


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
        ({"echo": True, "logprobs": 0, "suffix": "x"}, 400, "'echo': with 'logprobs' not possible together"),
        (
            {"echo": True, "logprobs": 1024, "prompt": ["x" * 100] * 6},
            400,
            "Field 'echo': expected at most 524288 probabilities of the prompts' tokens, which are 606 here "
            "with 1025 each",
        ),
        ({"suffix": "x"}, 501, "Infill is not supported by this model: prefix token is missing."),
        ({"suffix": "x", "prompt": []}, 400, "Field 'suffix': expected 'prompt' to be a string or an array"),
        ({"suffix": "x", "prompt": [1]}, 400, "Field 'suffix': expected 'prompt' to be a string or an array"),
        ({"suffix": "x", "prompt": ["a"] * 1025}, 400, "an array of 1 to 1024 strings"),
        ({"best_of": 1, "n": 2}, 400, "Field 'best_of': expected no less than 'n', which is 2, got 1"),
        ({"best_of": 5}, 400, "Field 'best_of': expected an integer from 1 to 4 (--parallel), got 5"),
        ({"best_of": 2, "stream": True}, 400, "Field 'best_of': 2 can't be streamed"),
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


def stream(text: str) -> list[Any]:
    *frames, done, _ = text.split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(f.removeprefix("data: ")) for f in frames]


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [("ab", ["abHello"]), (["a", "b"], ["aHello", "bHello"]), ([97, 98], ["abHello"]), ("", ["Hello"])],
)
async def test_an_echoed_prompt_comes_before_the_text(
    client: httpx.AsyncClient, prompt: Any, texts: list[str]
) -> None:
    body = {"prompt": prompt, "echo": True}
    whole = (await client.post(URL, json=body)).json()
    assert [c["text"] for c in whole["choices"]] == texts
    streamed = [""] * len(texts)
    for chunk in stream((await client.post(URL, json={**body, "stream": True})).text):
        streamed[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert streamed == texts


async def test_each_of_several_choices_has_its_prompt_echoed(client: httpx.AsyncClient) -> None:
    body = (await client.post(URL, json={"prompt": ["a", "b"], "n": 2, "echo": True})).json()
    assert [c["text"] for c in body["choices"]] == ["aHello", "aHello", "bHello", "bHello"]


@pytest.mark.parametrize(("prompt", "first", "text"), [("ab", "", "ab"), ([97, 98, 99], "a", "abc")])
async def test_an_echoed_prompt_with_its_probabilities(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, first: str, text: str
) -> None:
    known = text.removeprefix(first)
    tops = [None, *({"\ufffd": -1.0} for _ in known), {"Hel": -0.5, "\ufffd": LOWEST}, {"lo": -0.5}]
    expected = {
        "tokens": [first, *known, "Hel", "lo"],
        "token_logprobs": [None, *(-float(ord(c)) for c in known), -0.5, -0.5],
        "text_offset": [0, *range(len(first), len(text)), len(text), len(text) + 3],
    }
    body = {"prompt": prompt, "echo": True, "logprobs": 1}
    [choice] = (await client.post(URL, json=body)).json()["choices"]
    assert choice["text"] == text + "Hello"
    assert {name: choice["logprobs"][name] for name in expected} == expected
    assert choice["logprobs"]["top_logprobs"][: len(text) + 1] == tops[: len(text) + 1]
    assert [t["token"] for t in choice["logprobs"]["content"]] == ["Hel", "lo"]
    assert engine.submits[0].prompt_probs

    chunks = stream((await client.post(URL, json={**body, "stream": True})).text)
    parts = [c["choices"][0]["logprobs"] or {} for c in chunks]
    assert {name: [x for part in parts for x in part.get(name, [])] for name in expected} == expected
    assert "".join(c["choices"][0]["text"] for c in chunks) == text + "Hello"


async def test_the_probabilities_of_several_prompts_alone(connected: Any) -> None:
    """As of lm-evaluation-harness."""
    end = Output(id="", finish_reason="length", timings=Timings())
    async with connected(fake_state(FakeEngine([end]))) as client:
        body = {"prompt": [[97, 98], [99]], "echo": True, "logprobs": 1, "max_tokens": 0}
        both = (await client.post(URL, json=body)).json()["choices"]
    assert [c["text"] for c in both] == ["ab", "c"]
    assert [c["logprobs"]["token_logprobs"] for c in both] == [[None, -98.0], [None]]
    assert [c["logprobs"]["top_logprobs"] for c in both] == [[None, {"\ufffd": -1.0}], [None]]


async def test_an_echo_without_probabilities_asks_for_none(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    for body in ({"echo": True}, {"logprobs": 1}, {"echo": True, "logprobs": False}):
        await client.post(URL, json={"prompt": "a", **body})
    assert not any(submit.prompt_probs for submit in engine.submits)


async def test_a_suffix_makes_a_prompt_to_fill_in(connected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTokenizer, "special", SpecialIds(bos=1, fim_pre=3, fim_suf=4, fim_mid=5))
    engine = FakeEngine()
    async with connected(fake_state(engine)) as client:
        request = {"prompt": ["a", "b"], "suffix": "z", "echo": True}
        body = (await client.post(URL, json=request)).json()
    assert [s.prompt for s in engine.submits] == [[1, 3, 97, 4, 122, 5], [1, 3, 98, 4, 122, 5]]
    assert [c["text"] for c in body["choices"]] == ["aHello", "bHello"]


class Uneven(FakeEngine):
    """Choice i of a request says one token, "i", with the i-th logarithm of a probability."""

    logprobs = (-3.0, -1.0, -2.0)

    async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
        self.submits.append(submit)
        i = int(submit.id.rpartition("-")[2])
        info = TokenInfo(i, str(i).encode(), self.logprobs[i % 3])
        infos = [info] if submit.sampling.n_probs else []
        yield Output(id=submit.id, text=str(i), tokens=[i], infos=infos, finish_reason="stop", seed=i)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"prompt": "a", "best_of": 3}, ["1"]),
        ({"prompt": "a", "best_of": 3, "n": 2}, ["1", "2"]),
        ({"prompt": "a", "best_of": 3, "n": 3}, ["0", "1", "2"]),
        ({"prompt": ["a", "b"], "best_of": 3}, ["1", "4"]),
    ],
)
async def test_the_best_are_those_of_the_likeliest_tokens(
    connected: Any, body: dict[str, Any], texts: list[str]
) -> None:
    async with connected(fake_state(Uneven())) as client:
        value = (await client.post(URL, json=body)).json()
    assert [c["text"] for c in value["choices"]] == texts
    assert [c["index"] for c in value["choices"]] == list(range(len(texts)))
    assert {c["logprobs"] for c in value["choices"]} == {None}
    assert value["usage"]["completion_tokens"] == 3 * len(body["prompt"])  # all that was generated


async def test_the_best_have_logprobs_if_asked_for(connected: Any) -> None:
    async with connected(fake_state(Uneven())) as client:
        body = {"prompt": "a", "best_of": 3, "logprobs": 0, "verbose": True}
        value = (await client.post(URL, json=body)).json()
    assert value["choices"][0]["logprobs"]["token_logprobs"] == [-1.0]
    assert value["__verbose"]["content"] == "1"
    assert value["__verbose"]["completion_probabilities"][0]["logprob"] == -1.0


async def test_a_stop_word_has_no_logprobs(connected: Any) -> None:
    """Of the tokens "a", "b", "." and "END" the stop string is ".END"."""
    infos = [TokenInfo(i, piece, -0.5) for i, piece in enumerate((b"a", b"b", b".", b"END"))]
    words = [
        Output(id="", text="a", tokens=[0], infos=infos[:1]),
        Output(id="", tokens=[1, 2], text="b", infos=infos[1:3]),
        Output(id="", tokens=[3], infos=infos[3:], finish_reason="stop", stop_type="word"),
    ]
    async with connected(fake_state(FakeEngine(words))) as client:
        value = (await client.post(URL, json={"prompt": "a", "logprobs": 1})).json()
    assert value["choices"][0]["logprobs"]["tokens"] == ["a", "b"]


async def test_a_stream_tells_of_the_work(connected: Any) -> None:
    progress = Progress(total=9, cache=2, processed=5, time_ms=1.5)
    words = [
        Output(id="", progress=progress),
        Output(id="", text="x", tokens=[1], timings=Timings(predicted_n=1)),
        Output(id="", finish_reason="length", timings=Timings(predicted_n=2)),
    ]
    request = {"prompt": "a", "stream": True, "return_progress": True, "timings_per_token": True}
    engine = FakeEngine(words)
    async with connected(fake_state(engine)) as client:
        chunks = stream((await client.post(URL, json={**request, "verbose": True})).text)
    assert chunks[0]["prompt_progress"] == {"total": 9, "cache": 2, "processed": 5, "time_ms": 1.5}
    assert [c["timings"]["predicted_n"] for c in chunks[1:]] == [1, 2]
    assert ["__verbose" in c for c in chunks] == [False, False, True]
    assert chunks[2]["__verbose"]["stop_type"] == "none"
    assert (engine.submits[0].progress, engine.submits[0].timings_per_token) == (True, True)


async def test_verbose_shows_llama_servers_view(client: httpx.AsyncClient) -> None:
    body = (await client.post(URL, json={"prompt": "a", "verbose": True})).json()
    assert body["__verbose"]["content"] == "Hello"
    assert body["__verbose"]["prompt"] == "<s>a"
    assert body["__verbose"]["generation_settings"]["n_predict"] == -1
