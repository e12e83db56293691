"""A real encoder, served: its vectors beside those of numpy, and what they are good for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import minilm
import numpy as np
import plain
import pytest
from real_server import Server
from tokenizers import Tokenizer

from corral.gguf.types import GGMLType

pytestmark = [pytest.mark.model, pytest.mark.native, pytest.mark.slow]

# least cosine with the vector of the published weights; the shortest text is furthest off, in llama.cpp too
NEAR = {"F16": 0.99999, "Q8_0": 0.9985}
HAPPY = [
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
]
TEXTS = [
    *HAPPY,
    "Ünïcödé, 日本語, 😀 and a-very.long/word: " + "Donaudampfschifffahrt" * 4,
    "x",
    "the quick brown fox jumps over the lazy dog. " * 40,
]
# query -> the answer among all the answers
ANSWERS = {
    "How do I make bread rise?": "Yeast ferments the sugar in dough and fills it with bubbles of gas.",
    "Why is the sky blue?": "Short wavelengths of sunlight are scattered most by the air.",
    "Who wrote Hamlet?": "Shakespeare's tragedies were first played at the Globe.",
    "How much memory has the machine?": "Run free -h to see the RAM that is installed.",
}


@dataclass
class Embedder:
    """The server of a file of `type`."""

    url: str
    type: str


@pytest.fixture(scope="module", params=NEAR)
def server(
    request: pytest.FixtureRequest, minilm_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Embedder]:
    path = tmp_path_factory.mktemp("minilm") / f"{request.param}.gguf"
    server = Server(minilm.write(minilm_package, path, GGMLType[request.param]))
    yield Embedder(server.url, request.param)
    server.stop()
    path.unlink()


def vectors(server: Embedder, texts: list[str]) -> Any:
    """[n, D], each of length 1."""
    answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": texts}, timeout=60)
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]])


@pytest.fixture(scope="module")
def ids(minilm_package: Path) -> list[list[int]]:
    """Of TEXTS, by the tokenizer that the model was published with."""
    tokenizer = Tokenizer.from_str(minilm.read(minilm_package, "tokenizer.json").decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [tokenizer.encode(text).ids for text in TEXTS]


@pytest.fixture(scope="module")
def exact(minilm_package: Path, ids: list[list[int]]) -> Any:
    """Vectors [n, D] of TEXTS in float64, each of length 1."""
    weights = {name: x.astype(np.float64) for name, x in minilm.weights(minilm_package).items()}
    means = [
        plain.bert(weights, minilm.metadata(minilm_package), np.array(tokens)).mean(axis=0) for tokens in ids
    ]
    return np.array([mean / np.linalg.norm(mean) for mean in means])


def test_tokens(server: Embedder, ids: list[list[int]]) -> None:
    for text, wanted in zip(TEXTS, ids, strict=True):
        body = {"content": text, "add_special": True}
        assert httpx.post(f"{server.url}/tokenize", json=body).json()["tokens"] == wanted


def test_vectors(server: Embedder, exact: Any) -> None:
    cosines = (vectors(server, TEXTS) * exact).sum(axis=1)
    assert cosines.min() > NEAR[server.type], cosines


def test_published_similarities(server: Embedder) -> None:
    """Those that the model's makers show for these sentences."""
    first, *others = vectors(server, HAPPY)
    assert others @ first == pytest.approx([0.695, 0.943, 0.257], abs=0.01)


def test_the_answer_is_nearest(server: Embedder) -> None:
    queries, answers = vectors(server, list(ANSWERS)), vectors(server, list(ANSWERS.values()))
    assert (queries @ answers.T).argmax(axis=1).tolist() == list(range(len(ANSWERS)))


def test_company_changes_no_bit(server: Embedder) -> None:
    together = vectors(server, TEXTS * 3)
    alone = np.concatenate([vectors(server, [text]) for text in TEXTS])
    assert np.array_equal(together, np.tile(alone, (3, 1)))


def test_the_longest_text_and_one_that_is_longer(server: Embedder) -> None:
    """Longer than --ubatch-size would allow, and more than the model has positions for."""
    assert vectors(server, ["dog " * 510]).shape == (1, 384)
    answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": "dog " * 511})
    assert answer.status_code == 400
    assert "input (513 tokens) is too large to process" in answer.json()["error"]["message"]
