"""The tokens of a request do not depend on its neighbours, on chunks, on preemption, or on the cache."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from fake_executor import FakeExecutor, build_engine, prompt, run, tokens_of
from numpy.typing import NDArray

from corral.engine.messages import Submit
from corral.program.batch import Batch
from corral.sampling.params import SamplingParams

REQUESTS = [
    Submit(
        id="greedy", prompt=prompt(70), max_tokens=90, sampling=SamplingParams(temperature=0, ignore_eos=True)
    ),
    Submit(id="seeded", prompt=prompt(3), max_tokens=120, sampling=SamplingParams(seed=7, ignore_eos=True)),
    Submit(
        id="penalties",
        prompt=prompt(33),
        max_tokens=80,
        sampling=SamplingParams(seed=11, repeat_penalty=1.2, presence_penalty=0.3, repeat_last_n=-1),
    ),
    Submit(
        id="whole vocabulary", prompt=prompt(1), sampling=SamplingParams(seed=1, top_k=0, top_p=1, min_p=0)
    ),
    Submit(
        id="long prompt", prompt=prompt(600), max_tokens=40, sampling=SamplingParams(seed=5, ignore_eos=True)
    ),
    Submit(
        id="same seed", prompt=prompt(64), max_tokens=70, sampling=SamplingParams(seed=7, temperature=1.5)
    ),
]
CROWD = [
    Submit(
        id=f"crowd {i}",
        prompt=prompt(20 * i + 1, seed=i),
        max_tokens=60,
        sampling=SamplingParams(seed=i, ignore_eos=True),
    )
    for i in range(12)
]


@pytest.fixture(scope="module")
def alone() -> dict[str, list[int]]:
    """The slow twin: one request, one token a step."""
    result = {}
    for submit in REQUESTS:
        result |= run(build_engine(parallel=1, chunk_tokens=1), [submit])
    return {id: tokens_of(outputs) for id, outputs in result.items()}


def test_requests_differ(alone: dict[str, list[int]]) -> None:
    assert len({tuple(tokens[:20]) for tokens in alone.values()}) == len(REQUESTS)
    assert min(map(len, alone.values())) > 1


@pytest.mark.parametrize("chunk", [1, 7, 512])
@pytest.mark.parametrize("step", [8, 33, 512])
def test_in_a_crowd_with_any_chunk(alone: dict[str, list[int]], chunk: int, step: int) -> None:
    engine = build_engine(parallel=8, chunk_tokens=chunk, step_tokens=step, num_blocks=256)
    outputs = run(engine, CROWD[:6] + REQUESTS + CROWD[6:])
    assert {id: tokens_of(outputs[id]) for id in alone} == alone


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_preempted(alone: dict[str, list[int]], chunk: int) -> None:
    engine = build_engine(parallel=8, chunk_tokens=chunk, num_blocks=33, n_ctx=1024)
    growing = [msgspec.structs.replace(submit, max_tokens=250) for submit in CROWD]
    outputs = run(engine, growing[:3] + REQUESTS + growing[3:])
    assert engine.scheduler.preemptions > 3
    assert {id: tokens_of(outputs[id]) for id in alone} == alone


def prefixes(alone: dict[str, list[int]]) -> list[Submit]:
    """Requests that leave in the cache what REQUESTS begin with: of the prompt and of the reply."""
    made = []
    for i, submit in enumerate(REQUESTS):
        whole = submit.prompt + alone[submit.id]
        cut = whole[: len(whole) * (i + 1) // len(REQUESTS)]
        params = SamplingParams(seed=i, ignore_eos=True)
        made.append(Submit(id=f"prefix {i}", prompt=cut or whole[:1], max_tokens=5, sampling=params))
    return made


@pytest.mark.parametrize("chunk", [7, 512])
def test_with_a_warm_cache(alone: dict[str, list[int]], chunk: int) -> None:
    engine = build_engine(parallel=8, chunk_tokens=chunk, num_blocks=256)
    run(engine, prefixes(alone))
    for _ in range(2):
        outputs = run(engine, REQUESTS)
        assert {id: tokens_of(outputs[id]) for id in alone} == alone
    assert engine.stats().cached_tokens > 1000
    end = outputs["long prompt"][-1].timings
    assert end is not None
    assert (end.cache_n, end.prompt_n) == (576, 24)


def test_together_with_those_that_have_the_same_prefix(alone: dict[str, list[int]]) -> None:
    engine = build_engine(parallel=8, num_blocks=200, chunk_tokens=100)
    outputs = run(engine, [*prefixes(alone), *REQUESTS, *CROWD])
    assert {id: tokens_of(outputs[id]) for id in alone} == alone
    assert engine.stats().cached_tokens > 0


def test_with_a_cache_too_small_for_all(alone: dict[str, list[int]]) -> None:
    engine = build_engine(parallel=3, num_blocks=33, n_ctx=1024, chunk_tokens=64)
    for _ in range(3):
        outputs = run(engine, prefixes(alone) + CROWD[:4] + REQUESTS)
        assert {id: tokens_of(outputs[id]) for id in alone} == alone


def test_without_the_cache(alone: dict[str, list[int]]) -> None:
    engine = build_engine(num_blocks=256)
    cold = [msgspec.structs.replace(submit, cache_prompt=False) for submit in REQUESTS]
    for _ in range(2):
        outputs = run(engine, cold)
        assert {id: tokens_of(outputs[id]) for id in alone} == alone
    stats = engine.stats()
    assert (stats.cached_tokens, stats.cache_hits, stats.cache_misses) == (0, 0, 0)
    assert stats.prompt_tokens == 2 * sum(len(submit.prompt) for submit in REQUESTS)


def test_the_fake_notices_a_wrong_block_table(alone: dict[str, list[int]]) -> None:
    """What the tests above rest on: here each sequence reads the blocks of another."""

    class Crossed(FakeExecutor):
        def step(self, batch: Batch) -> NDArray[np.float32]:
            return super().step(
                dataclasses.replace(batch, block_tables=np.roll(batch.block_tables, 1, axis=0))
            )

    outputs = run(build_engine(Crossed(), parallel=8, num_blocks=256, chunk_tokens=8), REQUESTS)
    assert any(tokens_of(outputs[id]) != alone[id] for id in alone)
