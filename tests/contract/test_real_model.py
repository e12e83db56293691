"""The whole path with a real model: process, engine, template, tokenizer, sampling, text."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from real_server import Server

pytestmark = [pytest.mark.model, pytest.mark.native, pytest.mark.slow]

CAPITAL: Any = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def server(smollm2_path: Path) -> Iterator[Server]:
    server = Server(smollm2_path, "-c", "4096")
    yield server
    server.stop()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="not-needed", max_retries=0) as client:
        yield client


def test_a_right_answer(client: openai.OpenAI) -> None:
    options: Any = {"model": "x", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
    response = client.completions.create(**options)
    assert response.choices[0].text.startswith(" Paris.")
    stopped = client.completions.create(**options, stop=["is."])
    assert stopped.choices[0].text == " Par"
    assert stopped.choices[0].finish_reason == "stop"


def test_the_probabilities_of_a_prompt(client: openai.OpenAI) -> None:
    """As evaluation harnesses ask for them: of token ids, several prompts at a time."""
    options: Any = {"model": "x", "temperature": 0, "logprobs": 1}
    written = client.completions.create(prompt="The capital of France is", max_tokens=8, **options).choices[0]
    assert written.logprobs
    ids = [token["id"] for token in written.logprobs.content]  # type: ignore[attr-defined]
    with_context = httpx.post(
        f"{str(client.base_url).removesuffix('/v1/')}/tokenize", json={"content": "The capital of France is"}
    ).json()["tokens"]
    whole, alone = client.completions.create(
        prompt=[with_context + ids, ids], max_tokens=0, echo=True, **options
    ).choices
    known = whole.logprobs
    assert known is not None
    assert known.token_logprobs is not None
    assert known.top_logprobs is not None
    assert known.token_logprobs[0] is None  # type: ignore[comparison-overlap]
    assert known.token_logprobs[len(with_context) :] == written.logprobs.token_logprobs
    assert all(
        max(top.values()) == logprob
        for top, logprob in zip(
            known.top_logprobs[len(with_context) :], known.token_logprobs[len(with_context) :], strict=True
        )
    )
    assert whole.text == "The capital of France is" + written.text
    assert alone.logprobs is not None
    assert alone.logprobs.tokens == written.logprobs.tokens
    assert alone.logprobs.token_logprobs != known.token_logprobs[len(with_context) :]


def test_streamed_and_not_are_the_same(client: openai.OpenAI) -> None:
    options: Any = {"model": "x", "messages": CAPITAL, "max_tokens": 24, "seed": 3}
    whole = client.chat.completions.create(**options)
    stream = list(client.chat.completions.create(**options, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in stream) == whole.choices[0].message.content
    assert stream[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_timings_and_usage_agree(server: Server) -> None:
    request = {"messages": CAPITAL, "max_tokens": 6, "ignore_eos": True}
    body = httpx.post(server.url + "/v1/chat/completions", json=request, timeout=60).json()
    usage, timings = body["usage"], body["timings"]
    assert usage["completion_tokens"] == timings["predicted_n"] == 6
    assert usage["prompt_tokens"] == timings["prompt_n"] + timings["cache_n"]
    expected = 1000 / timings["predicted_ms"] * 5
    assert timings["predicted_per_second"] == pytest.approx(expected)
    assert body["choices"][0]["finish_reason"] == "length"


def test_logprobs_of_a_greedy_answer(client: openai.OpenAI) -> None:
    response = client.chat.completions.create(
        model="x", messages=CAPITAL, temperature=0, max_tokens=8, logprobs=True, top_logprobs=3
    )
    logprobs = response.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    for token in logprobs.content:
        assert token.logprob <= 0
        assert token.logprob == max(t.logprob for t in token.top_logprobs)
        assert len(token.top_logprobs) == 3


def test_a_schema_is_followed(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"enum": ["Paris", "Rome"]},
            "people": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for seed in range(3):
        response = client.chat.completions.create(
            model="x", messages=CAPITAL, seed=seed, temperature=1.5, max_tokens=250, response_format=wanted
        )
        assert response.choices[0].finish_reason == "stop"  # all that the schema allows is shorter
        value = json.loads(response.choices[0].message.content or "")
        assert value["city"] in ("Paris", "Rome")
        assert value["people"] in range(100)
    wanted["json_schema"]["schema"] = {"type": "objekt"}
    with pytest.raises(openai.BadRequestError, match="Invalid type: objekt"):
        client.chat.completions.create(model="x", messages=CAPITAL, response_format=wanted)


def test_a_prompt_that_does_not_fit(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        client.completions.create(model="x", prompt="word " * 5000)


def test_a_client_that_leaves_frees_the_engine(server: Server, client: openai.OpenAI) -> None:
    request = {"messages": CAPITAL, "max_tokens": 3900, "ignore_eos": True, "stream": True}
    with contextlib.ExitStack() as stack:
        for _ in range(4):  # as many as run at the same time
            stream = httpx.stream("POST", server.url + "/v1/chat/completions", json=request, timeout=60)
            next(stack.enter_context(stream).iter_lines())
    began = time.monotonic()
    client.chat.completions.create(model="x", messages=CAPITAL, max_tokens=2)
    # four texts of 3900 tokens take longer on any machine
    assert time.monotonic() - began < 8


def test_an_engine_that_is_killed_is_started_again(smollm2_path: Path) -> None:
    """The running stream gets one error event; /health says 503, then 200; requests are served again."""
    server = Server(smollm2_path, "-c", "1024")
    request = {"messages": CAPITAL, "max_tokens": 900, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", server.url + "/v1/chat/completions", json=request, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        pid = Path(f"/proc/{server.popen.pid}/task/{server.popen.pid}/children").read_text().split()[0]
        os.kill(int(pid), signal.SIGKILL)
        rest = [line for line in lines if line]
    assert "SIGKILL" in rest[-1]
    assert [line.startswith('data: {"error":') for line in rest[-2:]] == [False, True]
    assert httpx.get(server.url + "/health").status_code == 503
    deadline = time.monotonic() + 60
    while httpx.get(server.url + "/health").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    body = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 2}
    again = httpx.post(server.url + "/v1/completions", json=body, timeout=60).json()
    assert again["choices"][0]["text"].startswith(" Paris")
    server.popen.send_signal(signal.SIGTERM)
    assert server.popen.wait(30) == 0


def test_the_process_ends_with_its_engine(smollm2_path: Path) -> None:
    began = time.monotonic()
    server = Server(smollm2_path, "-c", "1024")
    assert httpx.get(server.url + "/health").status_code == 200
    print(f"ready after {time.monotonic() - began:.2f} s")
    children = Path(f"/proc/{server.popen.pid}/task/{server.popen.pid}/children").read_text().split()
    assert len(children) == 1
    server.popen.send_signal(signal.SIGINT)
    assert server.popen.wait(30) == 0
    assert not Path(f"/proc/{children[0]}").exists()
