"""/v1/embeddings, /embeddings and /v1/rerank over an engine whose vectors are the prompt's ids."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from fake_engine import READY, FakeEngine, connect, fake_state

from corral.engine.messages import ErrorInfo, Output, Pooling, Status, Submit
from corral.server.embedding import normalized
from corral.server.state import ServerState


class Vectors(FakeEngine):
    """Of a prompt: its number of tokens, its first, its last id; without pooling a row for each id.

    For ranking it is the last id.
    """

    def __init__(self, pooling: Pooling | None, *, encoder: bool = False) -> None:
        super().__init__()
        ready = msgspec.structs.replace(READY, pooling=pooling, encoder=encoder)
        self.status = Status(state="ready", ready=ready)
        self.pooling = pooling
        self.running = self.most = 0

    async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
        self.submits.append(submit)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        ids = submit.prompt
        rows = [[len(ids), ids[0], ids[-1]]]
        if self.pooling == "none":
            rows = [[i, i, i] for i in ids]
        if self.pooling == "rank":
            rows = [[ids[-1]]]
        data = np.array(rows, "<f4").tobytes()
        self.running -= 1
        yield Output(id=submit.id, finish_reason="stop", embedding=data)


async def post(state: ServerState, path: str, body: Any) -> httpx.Response:
    async with connect(state) as client:
        return await client.post(path, json=body)


async def embed(body: Any, pooling: Pooling = "mean", path: str = "/v1/embeddings", **config: Any) -> Any:
    response = await post(fake_state(Vectors(pooling), **config), path, body)
    assert response.status_code == 200, response.text
    return response.json()


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert error["code"] == response.status_code
    return error["code"], error["type"], error["message"]


async def test_the_response() -> None:
    found = await embed({"input": "ab", "model": "any", "embd_normalize": -1})
    assert found == {
        "object": "list",
        "model": "any",
        "data": [{"object": "embedding", "index": 0, "embedding": [3.0, 1.0, 98.0]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


FORMS: list[tuple[Any, list[list[int]]]] = [
    ("ab", [[1, 97, 98]]),
    (["a", "b"], [[1, 97], [1, 98]]),
    ([5, 6], [[5, 6]]),
    ([[5, 6], [7]], [[5, 6], [7]]),
    (["a", 5], [[1, 97, 5]]),
    ([5, "a"], [[5, 97]]),
    (["a", [5, "b"], {"prompt_string": "c"}], [[1, 97], [5, 98], [1, 99]]),
    ({"prompt_string": "a"}, [[1, 97]]),
    ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, [[1, 97, 98]]),
    ([{"content": [{"type": "text", "text": "a"}]}, "b"], [[1, 97], [1, 98]]),
    ({"content": "a"}, [[1, 97]]),
]


@pytest.mark.parametrize(("value", "prompts"), FORMS, ids=str)
async def test_forms_of_the_input(value: Any, prompts: list[list[int]]) -> None:
    engine = Vectors("mean")
    found = (await post(fake_state(engine), "/v1/embeddings", {"input": value})).json()
    assert [submit.prompt for submit in engine.submits] == prompts
    assert [item["index"] for item in found["data"]] == list(range(len(prompts)))
    assert found["usage"]["prompt_tokens"] == sum(map(len, prompts))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, '"input" or "content" must be provided'),
        ([], '"input" must not be empty'),
        ([[]], "'input[0]'"),
        (["a", []], "'input[1]'"),
        ([["a", "b"]], "'input[0]'"),
        ([None], "'input[0]'"),
        (5, "'input'"),
        ([1.5], "'input[0]'"),
        ([True], "'input[0]'"),
        ([1000], "expected a token id from 0 to 999"),
        ({"content": []}, "'input.content'"),
        ({"content": [{"type": "video", "text": "a"}]}, "'input.content[0]'"),
        ({"content": [{"type": "text"}]}, "'input.content[0]'"),
        ({"content": 5}, "'input.content'"),
        ({}, "'input.prompt_string'"),
    ],
)
async def test_wrong_inputs(value: Any, message: str) -> None:
    response = await post(fake_state(Vectors("mean")), "/v1/embeddings", {"input": value})
    code, kind, text = error_of(response)
    assert (code, kind) == (400, "invalid_request_error"), text
    assert message in text


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "input_video"])
async def test_media(kind: str) -> None:
    body = {"input": {"content": [{"type": kind, kind: {"url": "data:,"}}]}}
    assert error_of(await post(fake_state(Vectors("mean")), "/v1/embeddings", body))[0] == 501


@pytest.mark.parametrize(
    ("field", "value"),
    [("encoding_format", "int8"), ("dimensions", 0), ("dimensions", 4), ("embd_normalize", -2), ("model", 5)],
)
async def test_wrong_fields(field: str, value: Any) -> None:
    response = await post(fake_state(Vectors("mean")), "/v1/embeddings", {"input": "a", field: value})
    code, kind, text = error_of(response)
    assert (code, kind) == (400, "invalid_request_error")
    assert f"'{field}'" in text


async def test_base64() -> None:
    found = await embed({"input": ["ab", "c"], "encoding_format": "base64"})
    plain = await embed({"input": ["ab", "c"], "encoding_format": "float"})
    for item, other in zip(found["data"], plain["data"], strict=True):
        assert item["encoding_format"] == "base64"
        assert np.frombuffer(base64.b64decode(item["embedding"]), "<f4").tolist() == other["embedding"]


async def test_a_full_context_fits_and_one_more_does_not() -> None:
    await embed({"input": [1] * 256})
    response = await post(fake_state(Vectors("mean")), "/v1/embeddings", {"input": [1] * 257})
    code, kind, text = error_of(response)
    assert (code, kind) == (400, "exceed_context_size_error")
    assert "input (257 tokens) is too large to process" in text
    assert response.json()["error"]["n_ctx"] == 256
    long = await post(fake_state(Vectors("mean")), "/v1/embeddings", {"input": "a" * 5000})
    assert "too large" in error_of(long)[2]


async def test_many_inputs_are_not_under_way_at_once() -> None:
    engine = Vectors("mean")
    body = {"input": [[i % 1000] for i in range(3000)], "embd_normalize": -1}
    found = (await post(fake_state(engine), "/v1/embeddings", body)).json()
    assert [item["embedding"][1] for item in found["data"]] == [i % 1000 for i in range(3000)]
    assert engine.most <= 64


async def test_dimensions_are_normalized_anew() -> None:
    (item,) = (await embed({"input": [3, 4], "dimensions": 2}))["data"]  # [2, 3, 4]
    assert item["embedding"] == pytest.approx([2 / 13**0.5, 3 / 13**0.5])


async def test_the_norm_of_the_server_and_of_the_request() -> None:
    async def first(body: dict[str, Any], **config: Any) -> Any:
        return (await embed({"input": [3, 4], **body}, **config))["data"][0]["embedding"]

    assert await first({}) == pytest.approx(np.array([2, 3, 4]) / 29**0.5)
    assert await first({}, embd_normalize=1) == pytest.approx(np.array([2, 3, 4]) / 9)
    assert await first({"embd_normalize": 0}, embd_normalize=1) == pytest.approx([16380, 24570, 32760])


@pytest.mark.parametrize("path", ["/embedding", "/embeddings"])
async def test_llama_servers_own_form(path: str) -> None:
    found = await embed({"content": ["a", "b"], "embd_normalize": -1}, path=path)
    assert found == [
        {"index": 0, "embedding": [[2.0, 1.0, 97.0]]},
        {"index": 1, "embedding": [[2.0, 1.0, 98.0]]},
    ]
    assert await embed({"input": ["a", "b"], "embd_normalize": -1}, path=path) == found
    assert await embed({"content": ["a", "b"], "embd_normalize": -1}) == found


async def test_without_pooling_there_is_a_vector_for_each_token() -> None:
    found = await embed({"content": [[5, 6], [7]]}, "none", "/embedding")
    assert [item["embedding"] for item in found] == [[[5.0] * 3, [6.0] * 3], [[7.0] * 3]]
    response = await post(fake_state(Vectors("none")), "/v1/embeddings", {"input": "a"})
    code, _, text = error_of(response)
    assert code == 400
    assert "Pooling type 'none' is not OAI compatible" in text


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embedding", "/v1/rerank", "/rerank", "/reranking"])
async def test_what_was_not_asked_for_at_start(path: str) -> None:
    code, kind, text = error_of(await post(fake_state(), path, {"input": "a"}))
    assert (code, kind) == (501, "not_supported_error")
    assert ("--reranking" if "rerank" in path else "--embeddings") in text


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/completions", "/completion", "/infill", "/v1/responses", "/v1/messages"],
)
async def test_no_text_is_generated(path: str) -> None:
    for encoder, hint in ((False, "--embeddings"), (True, "encoder")):
        response = await post(fake_state(Vectors("mean", encoder=encoder)), path, {})
        assert response.status_code == 501
        assert hint in response.text


async def test_the_models_capability() -> None:
    async with connect(fake_state(Vectors("mean"))) as client:
        assert (await client.get("/v1/models")).json()["models"][0]["capabilities"] == ["embedding"]
        for path in ("/props", "/slots", "/health"):
            assert (await client.get(path)).status_code == 200, path
        assert (await client.post("/tokenize", json={"content": "a"})).status_code == 200


async def test_an_error_of_the_engine() -> None:
    class Failing(Vectors):
        async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
            yield Output(
                id=submit.id,
                finish_reason="error",
                error=ErrorInfo(status=429, type="unavailable_error", message="full", retry_after=3),
            )

    response = await post(fake_state(Failing("mean")), "/v1/embeddings", {"input": ["a", "b"]})
    assert error_of(response)[0] == 429
    assert response.headers["Retry-After"] == "3"


# ranking


async def rank(body: Any, **changes: Any) -> tuple[httpx.Response, Vectors]:
    engine = Vectors("rank")
    state = fake_state(engine)
    assert state.model is not None
    state.model = replace(state.model, **changes)
    return await post(state, "/v1/rerank", body), engine


async def test_jinas_form() -> None:
    response, engine = await rank({"query": "q", "documents": ["a", "c", "b"], "model": "any"})
    assert response.json() == {
        "model": "any",
        "object": "list",
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
        "results": [
            {"index": 1, "relevance_score": 99.0},
            {"index": 2, "relevance_score": 98.0},
            {"index": 0, "relevance_score": 97.0},
        ],
    }
    assert [submit.prompt for submit in engine.submits] == [[1, 113, 97], [1, 113, 99], [1, 113, 98]]


async def test_teis_form() -> None:
    response, _ = await rank({"query": "q", "texts": ["a", "c"]})
    assert response.json() == [{"index": 1, "score": 99.0}, {"index": 0, "score": 97.0}]
    response, _ = await rank({"query": "q", "texts": ["a", "c"], "return_text": True})
    assert [item["text"] for item in response.json()] == ["c", "a"]


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (0, 0), (2, 2), (7, 3)])
async def test_top_n(top_n: int | None, count: int) -> None:
    response, _ = await rank({"query": "q", "documents": ["a", "c", {"text": "b"}], "top_n": top_n})
    assert [item["index"] for item in response.json()["results"]] == [1, 2, 0][:count]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"documents": ["a"]}, '"query" must be provided'),
        ({"query": 5, "documents": ["a"]}, '"query" must be a string'),
        ({"query": "q"}, '"documents" must be a non-empty string array'),
        ({"query": "q", "documents": []}, '"documents" must be a non-empty string array'),
        ({"query": "q", "documents": "a"}, '"documents" must be a non-empty string array'),
        ({"query": "q", "texts": []}, '"texts" must be a non-empty string array'),
        ({"query": "q", "documents": ["a", 5]}, "'documents[1]': expected a string"),
        ({"query": "q", "documents": [{"title": "a"}]}, "'documents[0]': expected a string"),
        ({"query": "q", "documents": ["a"], "top_n": -1}, "'top_n'"),
        ({"query": "q", "documents": ["a" * 300]}, "too large"),
        ({"query": "q" * 9000, "documents": ["a"]}, "too large"),
    ],
)
async def test_wrong_rankings(body: Any, message: str) -> None:
    response, _ = await rank(body)
    code, _, text = error_of(response)
    assert code == 400
    assert message in text


async def test_the_models_own_template() -> None:
    """What looks like a placeholder in a text is text."""
    response, engine = await rank(
        {"query": "{document}", "documents": ["d"]}, rerank_template="<{query}|{document}|{query}>"
    )
    assert response.status_code == 200
    assert "".join(map(chr, engine.submits[0].prompt)) == "<{document}|d|{document}>"


@pytest.mark.parametrize(
    ("adds", "wanted"),
    [
        ("bos eos sep", [1, 113, 2, 3, 97, 2]),
        ("bos sep", [1, 113, 3, 97]),
        ("", [113, 97]),
    ],
)
async def test_special_tokens_hold_a_pair_together(
    adds: str, wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = fake_state(Vectors("rank"))
    assert state.model is not None
    tokenizer: Any = state.model.tokenizer
    for name in ("bos", "eos", "sep"):
        monkeypatch.setattr(type(tokenizer), f"add_{name}", name in adds, raising=False)
    roles = type(tokenizer.special)(bos=1, eos=2, sep=3)
    monkeypatch.setattr(type(tokenizer), "special", roles, raising=False)
    await post(state, "/v1/rerank", {"query": "q", "documents": ["a"]})
    engine: Any = state.engine
    assert engine.engine.submits[0].prompt == wanted


def test_norms() -> None:
    x = np.array([[3, -4], [0, 0], [1e30, 1e30]], np.float32)
    assert np.array_equal(normalized(x, -1), x)
    assert normalized(x, 2)[0].tolist() == pytest.approx([0.6, -0.8])
    assert normalized(x, 2)[1].tolist() == [0, 0]
    assert normalized(x, 2)[2].tolist() == pytest.approx([0.5**0.5] * 2)
    assert normalized(x, 1)[0].tolist() == pytest.approx([3 / 7, -4 / 7])
    assert normalized(x, 3)[0].tolist() == pytest.approx(np.array([3, -4]) / 91 ** (1 / 3))
    assert normalized(x, 0)[0].tolist() == pytest.approx([24570, -32760])
    assert normalized(x, 1000)[0].tolist() == pytest.approx([0.75, -1])
