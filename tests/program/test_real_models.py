"""Real models: a request gets the same bits alone and among seven others, in any chunks, with any threads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("corral._native", reason="the extension is not built")

from corral.config import EngineConfig, ModelConfig
from corral.engine.load import load
from corral.engine.messages import Submit, TokenInfo
from corral.gguf.reader import GGUFFile
from corral.models import trace_program
from corral.program.batch import BLOCK_TOKENS, Batch
from corral.program.native import NativeExecutor
from corral.sampling.params import SamplingParams
from corral.tokenizer.tokenizer import load_tokenizer

pytestmark = [pytest.mark.model, pytest.mark.native, pytest.mark.slow]

TEXT = (
    "A river that rises in the hills east of the town runs for ninety miles before it meets the sea. In "
    "spring it carries snow water, cold and grey; by August children walk across it. The mill is silent."
)
NEW_TOKENS = 8
CHUNKS = (1, 7, 512)


@pytest.fixture(scope="module", params=["smollm2_path", "gemma3_path"])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def prompts(path: Path) -> list[list[int]]:
    """The request, of 40 tokens, and seven others, of 1 to 37."""
    with GGUFFile.open(path) as file:
        tokens = load_tokenizer(file).encode(TEXT)
    assert len(tokens) >= 40
    return [tokens[:40], *(tokens[i : i + 1 + 6 * i] for i in range(7))]


def greedy(executor: NativeExecutor, prompts: list[list[int]], chunk: int) -> list[tuple[int, str]]:
    """Of the first prompt: each of NEW_TOKENS greedy tokens, with a digest of the bits of its logits."""
    texts = [list(prompt) for prompt in prompts]
    done = [0] * len(texts)
    width = -(-(max(map(len, texts)) + NEW_TOKENS) // BLOCK_TOKENS)
    order = np.random.default_rng(chunk).permutation(len(texts) * width)
    tables = order.astype(np.int32).reshape(len(texts), width)
    executor.allocate(tables.size)
    found: list[tuple[int, str]] = []
    while len(found) < NEW_TOKENS:
        counts = [min(chunk, len(text) - before) for text, before in zip(texts, done, strict=True)]
        spans = [(before, before + count) for before, count in zip(done, counts, strict=True)]
        starts = np.cumsum([0, *counts])
        ready = [i for i, (_, end) in enumerate(spans) if end == len(texts[i])]
        logits = executor.step(
            Batch(
                tokens=np.array([t for i, (a, b) in enumerate(spans) for t in texts[i][a:b]], np.int32),
                positions=np.array([p for a, b in spans for p in range(a, b)], np.int32),
                query_start=starts.astype(np.int32),
                context_len=np.array([b for _, b in spans], np.int32),
                block_tables=tables,
                logit_rows=(starts[1:][ready] - 1).astype(np.int32),
            )
        )
        done = [end for _, end in spans]
        for row, i in enumerate(ready):
            texts[i].append(int(logits[row].argmax()))
            if i == 0:
                found.append((texts[i][-1], hashlib.sha256(logits[row].tobytes()).hexdigest()))
    return found


def open_executor(path: Path, threads: int) -> NativeExecutor:
    file = GGUFFile.open(path)
    return NativeExecutor(trace_program(file), file, threads=threads, max_tokens=8 * 40, max_logits=8)


@pytest.fixture(scope="module")
def alone(path: Path, prompts: list[list[int]]) -> list[tuple[int, str]]:
    executor = open_executor(path, threads=1)
    found = greedy(executor, prompts[:1], 512)
    for chunk in CHUNKS:
        assert greedy(executor, prompts[:1], chunk) == found
    executor.close()
    assert len({digest for _, digest in found}) == NEW_TOKENS
    return found


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_in_a_crowd(path: Path, prompts: list[list[int]], alone: list[tuple[int, str]], threads: int) -> None:
    executor = open_executor(path, threads)
    for chunk in CHUNKS:
        assert greedy(executor, prompts, chunk) == alone, f"chunks of {chunk}"
    executor.close()


def served(path: Path, prompts: list[list[int]], threads: int, chunk: int) -> Iterator[TokenInfo]:
    """Of the first prompt, through the engine: each token, with log probabilities of the 20 likeliest."""
    config = EngineConfig(
        parallel=len(prompts),
        threads=threads,
        force_threads=True,
        ubatch_size=chunk,
        ctx_size=1024,
        warmup=False,
    )
    engine = load(ModelConfig(path=str(path)), config, lambda *_: None).engine
    params = SamplingParams(temperature=0, ignore_eos=True, n_probs=20)
    for i, prompt in enumerate(prompts):
        refused = engine.submit(Submit(id=str(i), prompt=prompt, max_tokens=NEW_TOKENS, sampling=params))
        assert refused == []
    while engine.has_work:
        for output in engine.step():
            if output.id == "0":
                yield from output.infos


def test_through_the_engine(path: Path, prompts: list[list[int]], alone: list[tuple[int, str]]) -> None:
    first = list(served(path, prompts[:1], threads=1, chunk=1))
    assert [info.id for info in first] == [token for token, _ in alone]
    assert all(len(info.top) == 20 for info in first)
    for threads, chunk in ((1, 8), (2, 512), (3, 11)):
        assert list(served(path, prompts, threads, chunk)) == first, f"{threads} threads, chunks of {chunk}"
