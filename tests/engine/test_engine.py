"""The engine in this process, over the fake executor."""

from __future__ import annotations

import logging
import math
from itertools import pairwise

import numpy as np
import pytest
from fake_executor import (
    CONTROL,
    EOS,
    TABLES,
    VOCAB,
    Clock,
    FakeExecutor,
    build_engine,
    limits,
    prompt,
    run,
    text_of,
    tokens_of,
)
from numpy.typing import NDArray

from corral.engine.engine import Engine
from corral.engine.messages import Cancel, ErrorInfo, Output, Submit, Timings
from corral.engine.output import TextTables
from corral.sampling.params import SamplingParams

GREEDY = SamplingParams(temperature=0)


def say(*tokens: int) -> FakeExecutor:
    """After a prompt of one token, these are the tokens, whatever the sampler."""

    def edit(logits: NDArray[np.float32], history: list[int]) -> None:
        logits[:] = -100
        logits[tokens[(len(history) - 1) % len(tokens)]] = 100

    return FakeExecutor(edit)


def last(executor: FakeExecutor, submit: Submit, **changes: float) -> Output:
    return run(build_engine(executor, **changes), [submit])[submit.id][-1]


# -- endings --


@pytest.mark.parametrize(
    ("tokens", "submit", "text", "num_tokens", "reason", "stop_type", "word"),
    [
        ((0, 1, EOS), {}, "ab", 3, "stop", "eos", ""),
        ((0, 1, EOS), {"special": True}, "ab<eos>", 3, "stop", "eos", ""),
        ((0, CONTROL, 1, EOS), {}, "ab", 4, "stop", "eos", ""),
        ((0, 1, 2), {"max_tokens": 5}, "abcab", 5, "length", "limit", ""),
        ((0, 1, EOS), {"max_tokens": 3}, "ab", 3, "stop", "eos", ""),
        ((0, 1, EOS), {"max_tokens": 0}, "", 0, "length", "limit", ""),
        ((0, 1, 2, 3), {"stop": ["bc"]}, "a", 3, "stop", "word", "bc"),
        ((0, 1, 2, EOS), {"stop": ["cd"]}, "abc", 4, "stop", "eos", ""),
        ((0, 1, 2), {"stop": ["cd"], "max_tokens": 3}, "abc", 3, "length", "limit", ""),
    ],
)
def test_how_a_request_ends(
    tokens: tuple[int, ...],
    submit: dict[str, object],
    text: str,
    num_tokens: int,
    reason: str,
    stop_type: str,
    word: str,
) -> None:
    outputs = run(build_engine(say(*tokens)), [Submit(id="a", prompt=[9], **submit)])["a"]  # type: ignore[arg-type]
    end = outputs[-1]
    assert (text_of(outputs), len(tokens_of(outputs))) == (text, num_tokens)
    assert (end.finish_reason, end.stop_type, end.stopping_word) == (reason, stop_type, word)


def test_generation_ends_with_the_context() -> None:
    outputs = run(build_engine(say(0), n_ctx=50), [Submit(id="a", prompt=prompt(40), max_tokens=999)])["a"]
    assert len(tokens_of(outputs)) == 10
    assert (outputs[-1].finish_reason, outputs[-1].stop_type) == ("length", "limit")


def test_ignore_eos() -> None:
    params = SamplingParams(temperature=0, ignore_eos=True)
    assert EOS not in tokens_of(
        run(build_engine(say(0, EOS), n_ctx=99), [Submit(id="a", prompt=[1], sampling=params)])["a"]
    )


# -- refusals --


@pytest.mark.parametrize(
    ("submit", "error"),
    [
        (
            {"prompt": [1] * 50},
            ErrorInfo(
                status=400,
                type="exceed_context_size_error",
                message="request (50 tokens) exceeds the available context size (50 tokens), "
                "try increasing --ctx-size",
                extra={"n_prompt_tokens": 50, "n_ctx": 50},
            ),
        ),
        (
            {"prompt": []},
            ErrorInfo(400, "invalid_request_error", "the prompt has 0 tokens, expected at least one"),
        ),
        (
            {"prompt": [1, VOCAB]},
            ErrorInfo(400, "invalid_request_error", "the prompt has token 64, expected ids from 0 to 63"),
        ),
        (
            {"prompt": [-1]},
            ErrorInfo(400, "invalid_request_error", "the prompt has token -1, expected ids from 0 to 63"),
        ),
        (
            {"prompt": [1], "sampling": SamplingParams(logit_bias={VOCAB: 1.0})},
            ErrorInfo(400, "invalid_request_error", "logit_bias names token 64, expected one from 0 to 63"),
        ),
        (
            {"prompt": [1], "sampling": SamplingParams(repeat_penalty=0.0)},
            ErrorInfo(
                400,
                "invalid_request_error",
                "repeat_penalty is 0.0, expected a number from 0.000001 to 1000000",
            ),
        ),
    ],
)
def test_refused_at_once(submit: dict[str, object], error: ErrorInfo) -> None:
    engine = build_engine(n_ctx=50)
    assert engine.submit(Submit(id="a", **submit)) == [  # type: ignore[arg-type]
        Output(id="a", finish_reason="error", error=error)
    ]
    assert not engine.has_work
    assert engine.submit(Submit(id="a", prompt=[1])) == []  # the id is free


def test_the_longest_prompt_gets_one_token() -> None:
    assert len(last(say(0), Submit(id="a", prompt=[1] * 49), n_ctx=50).tokens) == 1


# -- failures --


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_fail_that_request_only(value: float) -> None:
    def edit(logits: NDArray[np.float32], history: list[int]) -> None:
        if history[0] == 7:
            logits[20] = value

    submits = [Submit(id="bad", prompt=[7, 1]), Submit(id="good", prompt=[8], max_tokens=5)]
    outputs = run(build_engine(FakeExecutor(edit)), submits)
    error = outputs["bad"][-1].error
    assert error is not None
    assert (error.status, error.type) == (500, "server_error")
    assert error.message == "the model's logits for token 2 are not finite numbers"
    assert outputs["good"][-1].finish_reason == "length"


def test_a_request_that_bans_every_token() -> None:
    params = SamplingParams(logit_bias=dict.fromkeys(range(VOCAB), -math.inf))
    error = last(FakeExecutor(), Submit(id="a", prompt=[1], sampling=params)).error
    assert error is not None
    assert error.status == 400


def test_a_bug_fails_that_request_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = build_engine()
    for id in ("bad", "good"):
        engine.submit(Submit(id=id, prompt=[1], max_tokens=3))
    monkeypatch.setattr(engine.scheduler.waiting[0].text, "feed", lambda token: {}[token])
    with caplog.at_level(logging.ERROR):
        outputs = run(engine)
    error = outputs["bad"][-1].error
    assert error is not None
    assert error.status == 500
    assert error.message.startswith("the engine failed on this request: KeyError")
    assert "request bad failed" in caplog.text  # with a traceback for us
    assert outputs["good"][-1].finish_reason == "length"


def test_a_step_that_fails_fails_its_requests_and_the_engine_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def edit(logits: NDArray[np.float32], history: list[int]) -> None:
        if history[0] == 7:
            raise MemoryError("no room")

    engine = build_engine(FakeExecutor(edit))
    with caplog.at_level(logging.ERROR):
        outputs = run(engine, [Submit(id="a", prompt=[7]), Submit(id="b", prompt=[8])])
    assert [ones[-1].error.status for ones in outputs.values() if ones[-1].error] == [500, 500]
    assert run(engine, [Submit(id="c", prompt=[8], max_tokens=1)])["c"][-1].finish_reason == "length"


# -- cancelling --


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_cancel_at_any_step(steps: int) -> None:
    engine = build_engine(num_blocks=6, n_ctx=160, chunk_tokens=16)
    params = SamplingParams(seed=1, ignore_eos=True)
    for id in ("a", "b", "c"):
        engine.submit(Submit(id=id, prompt=prompt(40), max_tokens=60, sampling=params))
    for _ in range(steps):
        engine.step()
    (output,) = engine.handle(Cancel("b"))
    assert (output.id, output.finish_reason) == ("b", "cancelled")
    assert engine.cancel("b") == []  # only one result
    outputs = run(engine)
    assert set(outputs) == {"a", "c"}
    assert engine.stats().blocks_used == 0


# -- what is reported --


def test_seed_is_reported_and_repeats_the_text() -> None:
    submit = Submit(id="a", prompt=[1], max_tokens=30)
    outputs = run(build_engine(), [submit])["a"]
    seed = outputs[-1].seed
    assert 0 <= seed < 2**32
    again = run(
        build_engine(), [Submit(id="b", prompt=[1], max_tokens=30, sampling=SamplingParams(seed=seed))]
    )
    assert text_of(again["b"]) == text_of(outputs)
    other = run(build_engine(), [submit])["a"]
    assert other[-1].seed != seed  # (1/2**32)


def test_probabilities_are_those_before_the_chain() -> None:
    params = SamplingParams(seed=3, n_probs=5, temperature=0.3, logit_bias={4: 50.0}, ignore_eos=True)
    executor = FakeExecutor()
    outputs = run(build_engine(executor), [Submit(id="a", prompt=[1], max_tokens=3, sampling=params)])["a"]
    assert tokens_of(outputs) == [4, 4, 4]
    for output in outputs:
        (info,) = output.infos
        assert (info.id, info.piece) == (4, b"e")
        assert [top.logprob for top in info.top] == sorted((top.logprob for top in info.top), reverse=True)
        assert len(info.top) == 5
        assert all(top.piece == TABLES.text[top.id] for top in info.top)
        assert info.logprob < math.log(0.5)  # with the bias it would be near 0
        assert sum(math.exp(top.logprob) for top in info.top) < 1


def test_no_probabilities_unless_asked_for() -> None:
    assert last(FakeExecutor(), Submit(id="a", prompt=[1], max_tokens=1)).infos == []


def test_timings_count_the_first_token_as_prompt() -> None:
    clock = Clock()

    class Slow(FakeExecutor):
        def step(self, batch):  # type: ignore[no-untyped-def]
            clock.now += 0.1 if len(batch.tokens) > 1 else 0.01
            return super().step(batch)

    engine = Engine(Slow(), TABLES, limits(chunk_tokens=10, parallel=1), clock)
    params = SamplingParams(ignore_eos=True)
    first, second = (
        Submit(id=id, prompt=prompt(20), max_tokens=6, sampling=params) for id in ("first", "second")
    )
    outputs = run(engine, [first, second])
    # 2 steps for the prompt, the second of which gives the first token; then 5 more tokens
    expected = Timings(queue_ms=0, prompt_n=20, prompt_ms=200, predicted_n=6, predicted_ms=50)
    for id, queue_ms in (("first", 0), ("second", 250)):
        timings = outputs[id][-1].timings
        assert timings is not None
        assert timings.queue_ms == pytest.approx(queue_ms)
        assert timings.prompt_ms == pytest.approx(expected.prompt_ms)
        assert timings.predicted_ms == pytest.approx(expected.predicted_ms)
        assert (timings.prompt_n, timings.cache_n, timings.predicted_n) == (20, 0, 6)
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.predicted_tokens, stats.steps, stats.step_sequences) == (
        40,
        12,
        14,
        14,
    )
    assert (stats.prompt_ms, stats.predicted_ms) == (pytest.approx(400), pytest.approx(100))
    assert all(outputs[id][i].timings is None for id in outputs for i in range(5))


def test_stats_of_this_moment() -> None:
    engine = build_engine(parallel=2)
    for i in range(5):
        engine.submit(Submit(id=str(i), prompt=prompt(40), max_tokens=3, sampling=GREEDY))
    engine.step()
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.blocks_used, stats.blocks_total) == (2, 3, 4, 64)


def test_a_prompt_that_is_not_finished_gives_no_output() -> None:
    engine = build_engine(chunk_tokens=10)
    engine.submit(Submit(id="a", prompt=prompt(25), max_tokens=1))
    assert [len(engine.step()) for _ in range(3)] == [0, 0, 1]


# -- the queue --


def queue_engine(clock: Clock | None = None, **changes: float) -> Engine:
    """Two run, one in each step of a prompt; the others wait."""
    return Engine(FakeExecutor(), TABLES, limits(**{"parallel": 2, **changes}), clock or Clock())


def submit_many(engine: Engine, count: int, num_prompt: int = 10, first: int = 0) -> list[ErrorInfo | None]:
    params = SamplingParams(seed=1, ignore_eos=True)
    answers = []
    for i in range(first, first + count):
        outputs = engine.submit(
            Submit(id=str(i), prompt=prompt(num_prompt, i), max_tokens=5, sampling=params)
        )
        answers.append(outputs[0].error if outputs else None)
    return answers


@pytest.mark.parametrize("started", [False, True])
def test_what_does_not_fit_into_the_queue_is_turned_away_at_once(started: bool) -> None:
    engine = queue_engine(max_queue=3)
    assert submit_many(engine, 2) == [None] * 2
    if started:
        engine.step()
    answers = submit_many(engine, 5, first=2)
    assert answers[:3] == [None] * 3
    refusal = answers[3]
    assert refusal is not None
    assert (refusal.status, refusal.type) == (429, "unavailable_error")
    assert "--max-queue allows 3" in refusal.message
    assert 1 <= refusal.retry_after <= 60
    assert (answers[4] is not None, engine.stats().rejected) == (True, 2)
    assert len(run(engine)) == 5
    assert submit_many(engine, 1, first=9) == [None]


def test_who_has_most_in_a_full_queue_makes_place_for_others() -> None:
    engine = queue_engine(max_queue=4, parallel=1)
    params = SamplingParams(seed=1, ignore_eos=True)
    answers: dict[str, list[str]] = {}
    for id in ("a0", "a1", "a2", "a3", "a4", "b0", "a5", "b1", "b2", "c0"):
        submit = Submit(id=id, prompt=prompt(10, 1), max_tokens=5, sampling=params, client=id[0])
        outputs = engine.submit(submit)
        answers[id] = [output.id for output in outputs]
        assert all(output.error and output.error.status == 429 for output in outputs)
        engine.check()
        if id == "a0":
            engine.step()  # it runs
    # b's first and second each take the place of a's newest, until both have as many
    assert answers["b0"] == ["a4"]
    assert answers["a5"] == ["a5"]
    assert answers["b1"] == ["a3"]
    assert answers["b2"] == ["b2"]
    assert answers["c0"] == ["a2"]
    assert engine.stats().rejected == 5
    assert set(run(engine)) == {"a0", "a1", "b0", "b1", "c0"}


def test_no_queue_at_all() -> None:
    answers = submit_many(queue_engine(max_queue=0), 3)
    assert [answer is None for answer in answers] == [True, True, False]


def test_the_tokens_of_those_that_wait_are_bounded() -> None:
    engine = queue_engine(max_queue_tokens=100)
    answers = submit_many(engine, 2) + submit_many(engine, 4, num_prompt=45, first=2)
    assert [answer is None for answer in answers] == [True, True, True, True, False, False]
    assert answers[4] is not None
    assert "has 45, --max-queue-tokens allows 100" in answers[4].message


def test_a_long_prompt_may_wait_if_nobody_else_does() -> None:
    engine = queue_engine(max_queue_tokens=100)
    submit_many(engine, 2)
    engine.step()
    assert submit_many(engine, 1, num_prompt=900, first=2) == [None]


def test_who_waits_too_long_is_turned_away() -> None:
    clock = Clock()
    engine = queue_engine(clock, queue_seconds=10.0, num_blocks=3, n_ctx=96, parallel=4)
    params = SamplingParams(seed=1, ignore_eos=True)
    for id in ("runs", "waits"):
        engine.submit(Submit(id=id, prompt=prompt(60), sampling=params))
    engine.step()
    clock.now = 10.0
    assert all(output.error is None for output in engine.step())
    clock.now = 10.5
    late = [output for output in engine.step() if output.id == "waits"]
    assert late[0].error is not None
    assert (late[0].error.status, late[0].finish_reason) == (429, "error")
    assert "--queue-timeout" in late[0].error.message
    assert engine.stats().rejected == 1
    assert run(engine)["runs"][-1].finish_reason == "length"


def test_a_preempted_request_does_not_count_as_waiting_in_the_queue() -> None:
    clock = Clock(tick=0.5)
    engine = queue_engine(clock, queue_seconds=10.0, num_blocks=5, n_ctx=160)
    params = SamplingParams(seed=1, ignore_eos=True)
    outputs = run(
        engine,
        [Submit(id=str(i), prompt=prompt(63, i), max_tokens=60, sampling=params) for i in range(2)],
    )
    assert engine.scheduler.preemptions > 0
    assert [ones[-1].finish_reason for ones in outputs.values()] == ["length"] * 2


# -- the time for a text --


def test_the_time_for_a_text_ends_after_its_first_line() -> None:
    newline = TABLES.text.index(b"f")
    tables = TextTables([*TABLES.text], TABLES.special, TABLES.eog)
    tables.text[newline] = b"\n"
    clock = Clock()

    class Slow(FakeExecutor):
        def step(self, batch):  # type: ignore[no-untyped-def]
            clock.now += 0.1
            return super().step(batch)

    def edit(logits: NDArray[np.float32], history: list[int]) -> None:
        logits[:] = 0
        logits[newline if len(history) == 31 else 0] = 100

    for ms, count in ((1000, 31), (3550, 37), (0, 50)):
        engine = Engine(Slow(edit), tables, limits(), clock)
        submit = Submit(id="a", prompt=[1], max_tokens=50, sampling=GREEDY, max_predict_ms=ms)
        outputs = run(engine, [submit])["a"]
        assert len(tokens_of(outputs)) == count
        assert (outputs[-1].finish_reason, outputs[-1].stop_type) == ("length", "limit")


def test_a_line_with_too_little_indentation_ends_the_text() -> None:
    tables = TextTables(text=[b"x", b"\n", b"  "], special=[b"x", b"\n", b"  "], eog=frozenset())

    def edit(logits: NDArray[np.float32], history: list[int]) -> None:
        logits[:] = 0
        logits[[0, 1, 2, 0, 1, 0][(len(history) - 1) % 6]] = 100  # x, a line with spaces, one without

    for least, text, count in ((2, "x\n  x\n", 6), (0, "x\n  x\nxx\n", 8)):
        engine = Engine(FakeExecutor(edit), tables, limits())
        submit = Submit(id="a", prompt=[1], max_tokens=8, sampling=GREEDY, least_indent=least, stop=["never"])
        outputs = run(engine, [submit])["a"]
        assert (text_of(outputs), len(tokens_of(outputs))) == (text, count)
        assert (outputs[-1].finish_reason, outputs[-1].stop_type) == ("length", "limit")


# -- context shift --


def history_of(engine: Engine, n_keep: int, n_discard: int = 0, num_prompt: int = 40) -> list[list[int]]:
    """The tokens that the model has seen before each one it chose."""
    seen: list[list[int]] = []

    def edit(logits: NDArray[np.float32], history: list[int]) -> None:
        seen.append(history)

    engine._executor._edit = edit  # type: ignore[attr-defined]
    params = SamplingParams(seed=1, ignore_eos=True)
    submit = Submit(
        id="a", prompt=prompt(num_prompt), max_tokens=150, n_keep=n_keep, n_discard=n_discard, sampling=params
    )
    outputs = run(engine, [submit])["a"]
    assert len(tokens_of(outputs)) == 150
    assert outputs[-1].truncated
    return seen


@pytest.mark.parametrize(
    ("n_keep", "n_discard", "kept", "dropped"),
    [(0, 0, 0, 48), (10, 0, 10, 43), (-1, 0, 40, 28), (5, 7, 5, 7), (1000, 0, 92, 2), (0, 1000, 0, 95)],
)
def test_context_shift_drops_what_is_behind_the_kept(
    n_keep: int, n_discard: int, kept: int, dropped: int
) -> None:
    seen = history_of(build_engine(n_ctx=96, context_shift=True), n_keep, n_discard)
    assert max(map(len, seen)) <= 96
    full, after = next((before, after) for before, after in pairwise(seen) if len(after) != len(before) + 1)
    whole = [*full, *after[-1:]]
    assert len(whole) == 96
    assert after == whole[:kept] + whole[kept + dropped :]


def test_context_shift_in_a_crowd_gives_the_same_texts() -> None:
    params = SamplingParams(seed=1, ignore_eos=True)
    submits = [
        Submit(id=str(i), prompt=prompt(30 * i + 1, i), max_tokens=200, n_keep=20 * i, sampling=params)
        for i in range(4)
    ]
    alone = {}
    for submit in submits:
        alone |= run(build_engine(n_ctx=128, context_shift=True, chunk_tokens=9), [submit])
    for num_blocks in (4, 7, 64):
        engine = build_engine(n_ctx=128, context_shift=True, num_blocks=num_blocks)
        outputs = run(engine, submits)
        assert {id: tokens_of(ones) for id, ones in outputs.items()} == {
            id: tokens_of(ones) for id, ones in alone.items()
        }


def test_without_context_shift_a_full_context_ends_the_text() -> None:
    end = last(FakeExecutor(), Submit(id="a", prompt=prompt(40), max_tokens=150), n_ctx=48)
    assert (end.finish_reason, end.truncated) == ("length", True)


def test_a_text_without_a_limit_ends_even_when_the_context_shifts() -> None:
    params = SamplingParams(ignore_eos=True)
    submit = Submit(id="a", prompt=prompt(40), sampling=params)
    outputs = run(build_engine(n_ctx=64, context_shift=True), [submit])["a"]
    assert len(tokens_of(outputs)) == 64


# -- what is told on the way --


def test_progress_of_the_prompt_when_asked_for() -> None:
    engine = build_engine(chunk_tokens=40)
    run(engine, [Submit(id="before", prompt=prompt(100), max_tokens=1)])
    outputs = run(engine, [Submit(id="a", prompt=prompt(100) + [1] * 50, max_tokens=2, progress=True)])["a"]
    told = [output.progress for output in outputs if output.progress]
    assert [(one.total, one.cache, one.processed) for one in told] == [(150, 96, 136), (150, 96, 150)]
    assert len(tokens_of(outputs)) == 2


def test_timings_with_every_token_when_asked_for() -> None:
    outputs = run(build_engine(), [Submit(id="a", prompt=[1], max_tokens=3, timings_per_token=True)])["a"]
    assert [output.timings.predicted_n for output in outputs if output.timings] == [1, 2, 3]
