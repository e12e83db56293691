"""POST /tokenize, /detokenize, /apply-template and the counting of a chat's tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from fake_engine import FakeTokenizer, fake_state


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, []),
        ({"content": None}, []),
        ({"content": ""}, []),
        ({"content": "ab"}, [97, 98]),
        ({"content": "ab", "add_special": True}, [1, 97, 98]),
        ({"content": ["a", 5, "b"]}, [97, 5, 98]),
        ({"content": ["a", 5, "b"], "add_special": True}, [1, 97, 5, 98]),
        ({"content": [5, "b"], "add_special": True}, [5, 98]),
        ({"content": "x" * 5000}, [120] * 5000),
    ],
)
async def test_tokenize(client: httpx.AsyncClient, body: dict[str, Any], tokens: list[int]) -> None:
    assert (await client.post("/tokenize", json=body)).json() == {"tokens": tokens}


class Bytes(FakeTokenizer):
    """A token a byte of UTF-8."""

    def __init__(self) -> None:
        self.parse_special: list[bool] = []

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        self.parse_special.append(parse_special)
        return list(text.encode())

    def decode(self, ids: Sequence[int], *, special: bool = False) -> bytes:
        return bytes(ids)


def with_bytes() -> tuple[Any, Bytes]:
    state, tokenizer = fake_state(), Bytes()
    assert state.model
    state.model = dataclasses.replace(state.model, tokenizer=tokenizer)
    return state, tokenizer


async def test_pieces_that_are_no_utf8_are_bytes(connected: Any) -> None:
    state, _ = with_bytes()
    async with connected(state) as client:
        body = (await client.post("/tokenize", json={"content": "aé", "with_pieces": True})).json()
    assert body == {
        "tokens": [{"id": 97, "piece": "a"}, {"id": 0xC3, "piece": [0xC3]}, {"id": 0xA9, "piece": [0xA9]}]
    }


async def test_special_tokens_are_parsed_unless_told_otherwise(connected: Any) -> None:
    state, tokenizer = with_bytes()
    async with connected(state) as client:
        for extra in ({}, {"parse_special": True}, {"parse_special": False}):
            await client.post("/tokenize", json={"content": "a", **extra})
    assert tokenizer.parse_special == [True, True, False]


@pytest.mark.parametrize(
    ("tokens", "content"),
    [(None, ""), ([], ""), ([97, 98], "ab"), ([0xC3, 0xA9], "é"), ([97, 0xC3], "a\ufffd")],
)
async def test_detokenize(connected: Any, tokens: Any, content: str) -> None:
    state, _ = with_bytes()
    async with connected(state) as client:
        response = await client.post("/detokenize", json={"tokens": tokens})
    assert response.json() == {"content": content}


async def test_control_tokens_are_spelled_out(client: httpx.AsyncClient) -> None:
    assert (await client.post("/detokenize", json={"tokens": [1, 97]})).json() == {"content": "<s>a"}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("tokenize", {"content": 5}, "Field 'content': expected a string or an array of strings"),
        ("tokenize", {"content": {}}, "Field 'content'"),
        ("tokenize", {"content": [1000]}, "Field 'content[0]': expected a token id from 0 to 999, got 1000"),
        ("tokenize", {"content": "a", "add_special": 1}, "Field 'add_special': expected a boolean, got 1"),
        ("detokenize", {"tokens": "a"}, "Field 'tokens': expected an array"),
        ("detokenize", {"tokens": [1000]}, "Field 'tokens': expected token ids from 0 to 999, got 1000"),
        ("detokenize", {"tokens": [-1]}, "Field 'tokens[0]'"),
        ("detokenize", {"tokens": ["a"]}, "Field 'tokens[0]'"),
        ("detokenize", {"tokens": [2**40]}, "Field 'tokens[0]'"),
        ("apply-template", {}, "Field 'messages': missing"),
        ("apply-template", {"messages": []}, "messages"),
    ],
)
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], message: str
) -> None:
    response = await client.post("/" + path, json=body)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
    assert message in response.json()["error"]["message"]


async def test_a_text_has_a_greatest_length(client: httpx.AsyncClient, monkeypatch: Any) -> None:
    monkeypatch.setattr("corral.server.routes.tokens.MAX_CHARACTERS", 10)
    for content in ("x" * 11, ["x" * 5, "y" * 6], [5] * 11):
        response = await client.post("/tokenize", json={"content": content})
        assert response.status_code == 400
        assert "at most 10 characters, got 11" in response.json()["error"]["message"]


CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def test_apply_template(client: httpx.AsyncClient) -> None:
    prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert (await client.post("/apply-template", json=CHAT)).json() == {"prompt": prompt}


@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_the_tokens_of_a_chat_are_counted_even_if_they_dont_fit(
    client: httpx.AsyncClient, prefix: str
) -> None:
    url = prefix + "/chat/completions/input_tokens"
    count = (await client.post(url, json=CHAT)).json()
    length = len((await client.post("/apply-template", json=CHAT)).json()["prompt"])
    assert count == {"object": "response.input_tokens", "input_tokens": length + 1}
    long = {"messages": [{"role": "user", "content": "x" * 5000}]}
    assert (await client.post(url, json=long)).json()["input_tokens"] > 5000
