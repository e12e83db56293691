"""Guessing tokens: what is guessed, and that the text is the same with and without."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from fake_executor import EOS, TABLES, FakeExecutor, build_engine, limits, prompt, run, text_of, tokens_of
from numpy.typing import NDArray

from corral.engine.draft import DraftParams, NgramDraft
from corral.engine.engine import Engine
from corral.engine.messages import Output, Submit
from corral.engine.scheduler import Limits
from corral.sampling.params import SamplingParams

SHORT = DraftParams(ngram=2, most=8)


@pytest.mark.parametrize(
    ("tokens", "most", "guess"),
    [
        ([1, 2, 3, 4, 5, 1, 2], 9, [3, 4, 5, 1, 2]),
        ([1, 2, 3, 4, 5, 1, 2], 2, [3, 4]),
        ([1, 2, 3, 4, 5, 1, 2], 0, []),
        ([1, 2, 3, 4, 5, 1, 2], -1, []),
        ([1, 2, 3, 1, 2, 4, 1, 2], 1, [4]),  # the last time counts
        ([7, 7, 7], 5, [7]),
        ([1, 2, 3, 4], 5, []),
        ([1], 5, []),
    ],
)
def test_what_followed_the_last_time(tokens: list[int], most: int, guess: list[int]) -> None:
    assert NgramDraft(SHORT).propose(tokens, most) == guess
    grown = NgramDraft(SHORT)
    for length in range(1, len(tokens)):
        grown.propose(tokens[:length], 3)
    assert grown.propose(tokens, most) == guess


def test_it_must_have_come_often_enough() -> None:
    draft = NgramDraft(DraftParams(ngram=2, most=8, min_hits=2))
    assert draft.propose([1, 2, 3, 1, 2], 1) == []
    assert draft.propose([1, 2, 3, 1, 2, 3, 1, 2], 1) == [3]


def test_the_length_follows_the_luck() -> None:
    draft, tokens = NgramDraft(DraftParams(ngram=1, most=16)), [*range(100), 0]
    lengths = []
    for guessed, accepted in ((16, 0), (2, 2), (4, 4), (8, 3), (6, 6), (12, 12), (16, 16)):
        assert len(draft.propose(tokens, 99)) == guessed
        draft.learn(guessed, accepted)
        lengths.append(guessed)
    assert (draft.guessed, draft.accepted) == (sum(lengths), 43)


def repeating(logits: NDArray[np.float32], history: list[int]) -> None:
    """The next token depends on the last two, so that the text comes round again."""
    seed = zlib.crc32(bytes(history[-2:]))
    logits[:] = np.random.default_rng(seed).standard_normal(len(logits)) * 3
    logits[EOS] -= 5


def engine(draft: bool, **changes: float) -> Engine:
    params = SHORT if draft else None
    return build_engine(FakeExecutor(repeating), params, draft_tokens=16 * draft, **changes)


def submits(**sampling: object) -> list[Submit]:
    return [
        Submit(
            id=str(i),
            prompt=prompt(30 * i + 2, seed=i),
            max_tokens=150 + 7 * i,
            sampling=SamplingParams(ignore_eos=i < 3, **sampling),  # type: ignore[arg-type]
            stop=["qz"] * (i % 2),
        )
        for i in range(5)
    ]


LONG = Submit(
    id="a", prompt=prompt(2), max_tokens=800, sampling=SamplingParams(temperature=0, ignore_eos=True)
)
SAMPLING: dict[str, dict[str, object]] = {
    "greedy": {"temperature": 0},
    "seeded": {"seed": 3, "temperature": 0.5},
    "penalties": {"seed": 4, "temperature": 0.3, "repeat_penalty": 1.1, "repeat_last_n": -1},
    "probabilities": {"temperature": 0, "n_probs": 3},
}


def essence(outputs: dict[str, list[Output]]) -> object:
    return {
        id: (
            tokens_of(ones),
            text_of(ones),
            [info for one in ones for info in one.infos],
            ones[-1].stop_type,
            ones[-1].finish_reason,
        )
        for id, ones in outputs.items()
    }


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parallel": 1},
        {"num_blocks": 12, "n_ctx": 300},
        {"step_tokens": 6, "chunk_tokens": 5},
        {"n_ctx": 160, "num_blocks": 40, "context_shift": True},
    ],
    ids=str,
)
def test_the_text_is_the_same(sampling: str, changes: dict[str, float]) -> None:
    asked = submits(**SAMPLING[sampling])
    plain, guessing = engine(False, **changes), engine(True, **changes)
    assert essence(run(guessing, asked)) == essence(run(plain, asked))
    if sampling == "greedy":
        assert guessing.stats().draft_accepted > 0


def test_fewer_steps_for_a_text_that_repeats_itself() -> None:
    asked = LONG
    plain, guessing = engine(False), engine(True)
    run(plain, [asked])
    end = run(guessing, [asked])["a"][-1]
    assert guessing.stats().steps < plain.stats().steps / 2
    stats = guessing.stats()
    assert end.timings is not None
    assert (end.timings.draft_n, end.timings.draft_n_accepted) == (stats.draft_tokens, stats.draft_accepted)
    assert stats.draft_accepted == sum(stats.draft_accepted_at) > 0
    assert stats.draft_accepted_at == sorted(stats.draft_accepted_at, reverse=True)
    assert stats.drafts >= stats.draft_accepted_at[0]


def test_guesses_are_bounded_in_number_and_in_time() -> None:
    executor = FakeExecutor(repeating)
    one = build_engine(executor, SHORT, draft_tokens=5, parallel=5)
    run(one, submits(temperature=0))
    rows = max(len(batch.logit_rows) for batch in executor.steps)
    assert 5 < rows <= 5 + 5

    executor = FakeExecutor(repeating)
    hurried: Limits = limits(draft_tokens=16, step_seconds=0.07)
    # the first estimate is 20 ms for a step and 20 for a token, and the clock stands still
    run(Engine(executor, TABLES, hurried, lambda: 0.0, SHORT), [LONG])
    assert max(len(batch.logit_rows) for batch in executor.steps) == 2


def test_nothing_is_guessed_while_there_are_prompts() -> None:
    executor = FakeExecutor(repeating)
    one = build_engine(executor, SHORT, draft_tokens=16, chunk_tokens=3)
    one.submit(LONG)
    for _ in range(100):
        one.step()
    before = len(executor.steps)
    one.submit(Submit(id="long", prompt=prompt(300), max_tokens=1))
    while one.load[0] == 2 or not one.stats().slots[1].request:
        one.step()
    beside = [batch for batch in executor.steps[before:] if len(batch.context_len) == 2]
    assert len(beside) > 50
    assert all(len(batch.logit_rows) <= 2 for batch in beside)
