"""Embeddings: the same bits however a prompt was cut and whoever else was there; each request ends once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_executor import VOCAB, Clock, FakeExecutor, prompt

from corral.engine.embedder import Embedder, EmbedLimits
from corral.engine.messages import INPUTS_AT_ONCE, Output, Submit
from corral.engine.pooling import POOLINGS, Pool, softmax
from corral.program.batch import BLOCK_TOKENS, Batch


def build(executor: FakeExecutor | None = None, pooling: Any = "mean", **changes: Any) -> Embedder:
    limits = EmbedLimits(**{"n_ctx": 256, "num_blocks": 16, "step_tokens": 100, "whole": False} | changes)
    return Embedder(executor or FakeExecutor(), limits, pooling)


def run(embedder: Embedder, submits: list[Submit]) -> dict[str, Output]:
    found: dict[str, Output] = {}
    outputs = [output for submit in submits for output in embedder.submit(submit)]
    while embedder.has_work:
        outputs += embedder.step()
        embedder.check()
    for output in outputs:
        assert output.id not in found, "two endings"
        found[output.id] = output
    assert embedder.stats().blocks_used == 0
    return found


def vectors(output: Output) -> np.ndarray:
    assert output.finish_reason == "stop", output
    return np.frombuffer(output.embedding, "<f4").reshape(-1, VOCAB)


def rows_of(tokens: list[int]) -> np.ndarray:
    """What the fake model has for each token."""
    return vectors(run(build(pooling="none"), [Submit(id="x", prompt=tokens)])["x"])


def test_poolings() -> None:
    tokens = prompt(70)
    rows = rows_of(tokens)
    assert rows.shape == (70, VOCAB)
    total = np.zeros(VOCAB)
    for row in rows:
        total += row
    wanted = {"none": rows, "mean": (total / 70).astype(np.float32)[None], "cls": rows[:1], "last": rows[-1:]}
    wanted["rank"] = wanted["last"]
    assert set(wanted) == set(POOLINGS)
    for pooling, expected in wanted.items():
        for step_tokens in (1, 33, 256):
            embedder = build(pooling=pooling, step_tokens=step_tokens)
            found = vectors(run(embedder, [Submit(id="x", prompt=tokens)])["x"])
            assert np.array_equal(found, expected), f"{pooling}, {step_tokens} tokens a step"


def test_an_encoder_ranks_by_its_first_token() -> None:
    tokens = prompt(70)
    embedder = build(pooling="rank", whole=True, step_tokens=256)
    assert np.array_equal(vectors(run(embedder, [Submit(id="x", prompt=tokens)])["x"]), rows_of(tokens)[:1])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("step_tokens", [7, 64, 300])
def test_company_changes_nothing(whole: bool, step_tokens: int) -> None:
    submits = [Submit(id=f"{n}", prompt=prompt(n), client=f"{n % 3}") for n in range(1, 101, 7)]
    step_tokens = max(step_tokens, 256) if whole else step_tokens
    together = run(build(whole=whole, step_tokens=step_tokens), submits)
    assert set(together) == {submit.id for submit in submits}
    for submit in submits:
        alone = run(build(), [submit])[submit.id]
        assert together[submit.id].embedding == alone.embedding


def test_an_encoder_gets_every_text_whole() -> None:
    executor = FakeExecutor()
    submits = [Submit(id=f"{n}", prompt=prompt(n)) for n in range(90, 140)]
    run(build(executor, whole=True, step_tokens=256), submits)
    for batch in executor.steps:
        assert np.array_equal(np.diff(batch.query_start), batch.context_len)
        assert len(batch.tokens) <= 256
    assert len(executor.steps) < 50


def test_only_the_rows_that_are_needed_are_asked_for() -> None:
    for pooling, rows in (("mean", 50), ("none", 50), ("last", 1), ("cls", 1)):
        executor = FakeExecutor()
        run(build(executor, pooling, step_tokens=20), [Submit(id="x", prompt=prompt(50))])
        assert sum(len(batch.logit_rows) for batch in executor.steps) == rows


def test_the_context_may_be_full() -> None:
    found = run(build(n_ctx=64), [Submit(id="fits", prompt=prompt(64)), Submit(id="not", prompt=prompt(65))])
    assert found["fits"].finish_reason == "stop"
    error = found["not"].error
    assert error is not None
    assert (error.status, error.type) == (400, "exceed_context_size_error")
    assert "input (65 tokens) is too large to process" in error.message
    assert error.extra == {"n_prompt_tokens": 65, "n_ctx": 64}


@pytest.mark.parametrize("tokens", [[], [1, VOCAB], [-1]])
def test_wrong_tokens_are_refused(tokens: list[int]) -> None:
    (output,) = build().submit(Submit(id="x", prompt=tokens))
    assert output.error is not None
    assert output.error.status == 400


def test_cancelled_while_waiting_and_while_running() -> None:
    embedder = build(step_tokens=10)
    for id in ("runs", "waits"):
        assert embedder.submit(Submit(id=id, prompt=prompt(200))) == []
    embedder.step()
    assert embedder.load == (1, 1)
    for id in ("waits", "runs"):
        (output,) = embedder.cancel(id)
        assert (output.id, output.finish_reason) == (id, "cancelled")
        embedder.check()
        assert embedder.cancel(id) == []
    assert not embedder.has_work
    assert embedder.step() == []


def test_a_client_with_one_text_need_not_wait_for_one_with_many() -> None:
    embedder = build(num_blocks=8, step_tokens=64)
    for i in range(50):
        embedder.submit(Submit(id=f"many{i}", prompt=prompt(60), client="a"))
    embedder.step()
    embedder.submit(Submit(id="one", prompt=prompt(60), client="b"))
    ended = [output.id for _ in range(4) for output in embedder.step()]
    assert "one" in ended


def test_the_queue_is_bounded() -> None:
    embedder = build(max_queue=2)
    for i in range(2 * INPUTS_AT_ONCE):
        assert embedder.submit(Submit(id=f"{i}", prompt=[1])) == []
    (output,) = embedder.submit(Submit(id="more", prompt=[1]))
    assert output.error is not None
    assert output.error.status == 429
    assert output.error.retry_after >= 1
    assert embedder.stats().rejected == 1


def test_who_has_waited_for_too_long_is_turned_away() -> None:
    clock = Clock()
    limits = EmbedLimits(n_ctx=256, num_blocks=8, step_tokens=10, whole=False, queue_seconds=5)
    embedder = Embedder(FakeExecutor(), limits, "mean", clock=clock)
    for id in ("runs", "waits"):
        embedder.submit(Submit(id=id, prompt=prompt(200)))
    embedder.step()
    clock.now += 6
    (output,) = embedder.step()
    assert output.id == "waits"
    assert output.error is not None
    assert output.error.status == 429
    embedder.check()


def test_a_step_that_fails_ends_those_in_it() -> None:
    class Broken(FakeExecutor):
        def step(self, batch: Batch) -> Any:
            if len(self.steps) == 1:
                self.steps.append(batch)
                raise RuntimeError("broken")
            return super().step(batch)

    embedder = build(Broken(), num_blocks=8, step_tokens=256, whole=True)
    found = run(embedder, [Submit(id=f"{i}", prompt=prompt(100, i)) for i in range(6)])
    errors = [output.error for output in found.values() if output.error]
    assert len(errors) == 2
    assert errors[0].status == 500


def test_numbers() -> None:
    embedder = build(step_tokens=32)
    output = run(embedder, [Submit(id="x", prompt=prompt(50))])["x"]
    assert output.timings is not None
    assert output.timings.prompt_n == 50
    stats = embedder.stats()
    assert (stats.prompt_tokens, stats.steps, stats.most_tokens) == (50, 2, 50)
    assert stats.blocks_total == 16


def test_a_text_takes_its_blocks_and_no_more() -> None:
    embedder = build(step_tokens=1)
    embedder.submit(Submit(id="x", prompt=prompt(BLOCK_TOKENS + 1)))
    embedder.step()
    assert embedder.stats().blocks_used == 2


def test_the_mean_is_exact_where_float32_is_not() -> None:
    rows = np.array([[1e8], [1.0], [-1e8], [1.0]], np.float32)
    pool = Pool("mean", 4, ranks_first=False)
    for row in rows:
        pool.add(row[None])
    assert pool.result().tolist() == [[0.5]]


def test_softmax() -> None:
    found = softmax(np.array([[1000.0, 1000.0 + np.log(3)]], np.float32))
    assert np.allclose(found, [[0.25, 0.75]], atol=1e-4)
