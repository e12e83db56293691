"""Vectors through the clients that people use: openai's asks for base64 by itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
import numpy as np
import openai
import pytest
from fake_engine import READY, FakeEngine, fake_state
from langchain_openai import OpenAIEmbeddings

from corral.engine.messages import Output, Status, Submit


class Lengths(FakeEngine):
    """The vector of a prompt is [its tokens, 0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.status = Status(state="ready", ready=msgspec.structs.replace(READY, pooling="mean"))

    async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
        self.submits.append(submit)
        vector = np.array([len(submit.prompt), 0, 1], "<f4")
        yield Output(id=submit.id, finish_reason="stop", embedding=vector.tobytes())


@pytest.fixture
def engine() -> Lengths:
    return Lengths()


@pytest.fixture
def url(live: Callable[[Any], str], engine: Lengths) -> str:
    return live(fake_state(engine, embd_normalize=-1)) + "/v1"


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_openai(url: str, encoding: Any) -> None:
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        response = client.embeddings.create(model="any", input=["ab", "cde"], **encoding)
    found: list[Any] = [item.embedding for item in response.data]
    if encoding.get("encoding_format") == "base64":
        assert all(isinstance(vector, str) for vector in found)
    else:
        assert found == [[3, 0, 1], [4, 0, 1]]
    assert response.usage.total_tokens == 7


def test_langchain(url: str) -> None:
    model: Any = {"model": "any", "base_url": url, "api_key": "x", "check_embedding_ctx_length": False}
    embeddings = OpenAIEmbeddings(**model, max_retries=0)
    assert embeddings.embed_query("abc") == [4, 0, 1]
    assert embeddings.embed_documents(["a", "ab"]) == [[2, 0, 1], [3, 0, 1]]
