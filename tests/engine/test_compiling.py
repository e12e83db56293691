"""Requests with a grammar: compiled beside the steps, followed in them."""

from __future__ import annotations

import re
import threading
from concurrent.futures import Future
from typing import Any

import pytest
from fake_executor import EOS, FakeExecutor, build_engine, prompt, run, text_of, tokens_of

from corral.engine import compiling
from corral.engine.draft import DraftParams
from corral.engine.messages import Constraint, Output, Submit
from corral.sampling.constraint import Grammars
from corral.sampling.params import SamplingParams

WORD = Constraint("regex", "(abc|xy)+")


@pytest.mark.parametrize("seed", range(4))
def test_the_text_follows_the_grammar(seed: int) -> None:
    submit = Submit(id="a", prompt=prompt(9, seed), constraint=WORD, sampling=SamplingParams(seed=seed))
    outputs = run(build_engine(), [submit])["a"]
    assert (outputs[-1].finish_reason, outputs[-1].stop_type) == ("stop", "eos")
    assert tokens_of(outputs)[-1] == EOS
    assert re.fullmatch("(abc|xy)+", text_of(outputs))


def test_it_ends_where_nothing_can_be_added() -> None:
    submit = Submit(id="a", prompt=[1], constraint=Constraint("regex", "abc"))
    outputs = run(build_engine(), [submit])["a"]
    assert (text_of(outputs), outputs[-1].stop_type, EOS in tokens_of(outputs)) == ("abc", "eos", False)


def test_it_is_cut_off_at_its_limit() -> None:
    submit = Submit(id="a", prompt=[1], constraint=Constraint("regex", "[a-z]{40}"), max_tokens=5)
    outputs = run(build_engine(), [submit])["a"]
    assert (len(tokens_of(outputs)), outputs[-1].finish_reason) == (5, "length")


def compile_at_once(grammars: Grammars, kind: str, text: str) -> Future[Any]:
    """In place of Grammars.compile: no thread decides which of two requests comes first."""
    future: Future[Any] = Future()
    future.set_result(grammars.compile_now(kind, text))
    return future


@pytest.mark.parametrize("blocks", [64, 5])
def test_preemption_does_not_disturb_it(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    """With 5 blocks, two sequences of 90 tokens can't run side by side to the end."""
    monkeypatch.setattr(Grammars, "compile", compile_at_once)
    submits = [
        Submit(
            id=str(i),
            prompt=prompt(40, i),
            constraint=Constraint("regex", "([a-m]{2}[n-z])+"),
            max_tokens=50,
            sampling=SamplingParams(seed=i, ignore_eos=True),
        )
        for i in range(2)
    ]
    engine = build_engine(num_blocks=blocks, n_ctx=160)
    outputs = run(engine, submits)
    assert (engine.scheduler.preemptions > 0) == (blocks == 5)
    for submit in submits:
        alone = run(build_engine(n_ctx=160), [submit])[submit.id]
        assert tokens_of(alone) == tokens_of(outputs[submit.id])
        assert len(tokens_of(alone)) == 50


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guesses_change_nothing(temperature: float) -> None:
    submit = Submit(
        id="a",
        prompt=prompt(8),
        constraint=Constraint("regex", "(ab?c|abd)+"),
        max_tokens=60,
        sampling=SamplingParams(seed=1, ignore_eos=True, temperature=temperature),
    )
    engine = build_engine(draft=DraftParams(ngram=2, most=8), draft_tokens=8)
    assert tokens_of(run(engine, [submit])["a"]) == tokens_of(run(build_engine(), [submit])["a"])
    assert engine.stats().draft_accepted > 0


def test_a_context_that_shifts() -> None:
    submit = Submit(
        id="a",
        prompt=prompt(20),
        constraint=Constraint("regex", "([a-m]{2}[n-z])+"),
        max_tokens=100,
        sampling=SamplingParams(seed=1, ignore_eos=True),
    )
    outputs = run(build_engine(n_ctx=64, num_blocks=8, context_shift=True), [submit])["a"]
    assert len(tokens_of(outputs)) == 100
    assert re.fullmatch("([a-m]{2}[n-z])+[a-m]{0,2}", text_of(outputs))


def test_a_bad_grammar_is_the_clients_mistake_and_concerns_nobody_else() -> None:
    engine = build_engine()
    bad = Submit(id="bad", prompt=[1], constraint=Constraint("regex", "(a"))
    good = Submit(id="good", prompt=[2], max_tokens=4)
    outputs = run(engine, [bad, good])
    (end,) = outputs["bad"]
    assert end.error is not None
    assert (end.error.status, end.error.type) == (400, "invalid_request_error")
    assert "unclosed group" in end.error.message
    assert outputs["good"][-1].error is None


class SlowGrammars(Grammars):
    """Ready when told so."""

    def __init__(self) -> None:
        super().__init__([b"a"], (), (0,))
        self.go = threading.Event()

    def compile(self, kind: str, text: str) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        threading.Thread(target=lambda: (self.go.wait(10), future.set_exception(ValueError("late")))).start()
        return future


def test_others_go_on_meanwhile() -> None:
    engine = build_engine(FakeExecutor())
    slow = SlowGrammars()
    engine._compiling._grammars = slow
    outputs: list[Output] = engine.submit(Submit(id="slow", prompt=[1], constraint=WORD))
    engine.submit(Submit(id="other", prompt=[2], max_tokens=3))
    while len(outputs) < 3:
        outputs += engine.step()
    assert {output.id for output in outputs} == {"other"}
    assert engine.has_work
    assert (engine.load, engine.stats().waiting) == ((0, 1), 1)
    assert engine.step() == []
    slow.go.set()
    (end,) = run(engine)["slow"]
    assert end.error is not None
    assert end.error.status == 500  # a bug of ours, not the client's


def test_cancel_while_it_is_compiled() -> None:
    engine = build_engine()
    slow = SlowGrammars()
    engine._compiling._grammars = slow
    engine.submit(Submit(id="a", prompt=[1], constraint=WORD))
    (output,) = engine.cancel("a")
    assert output.finish_reason == "cancelled"
    assert not engine.has_work
    slow.go.set()
    assert engine.step() == []


def test_one_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "MOST_SECONDS", -1.0)
    engine = build_engine()
    slow = SlowGrammars()
    engine._compiling._grammars = slow
    (end,) = run(engine, [Submit(id="a", prompt=[1], constraint=WORD)])["a"]
    assert end.error is not None
    assert end.error.status == 400
    assert "to compile" in end.error.message
    slow.go.set()


def test_not_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "MOST_WAITING", 1)
    engine = build_engine()
    slow = SlowGrammars()
    engine._compiling._grammars = slow
    assert engine.submit(Submit(id="a", prompt=[1], constraint=WORD)) == []
    (refusal,) = engine.submit(Submit(id="b", prompt=[1], constraint=WORD))
    assert refusal.error is not None
    assert refusal.error.status == 429
    slow.go.set()
    engine.cancel("a")


def test_those_that_wait_here_are_in_the_queue_too() -> None:
    engine = build_engine(parallel=2, max_queue=3)
    slow = SlowGrammars()
    engine._compiling._grammars = slow
    answers = [engine.submit(Submit(id=f"{i}", prompt=[1], constraint=WORD)) for i in range(7)]
    assert [len(answer) for answer in answers] == [0] * 5 + [1] * 2
    (refusal,) = answers[5]
    assert refusal.error is not None
    assert (refusal.error.status, "--max-queue allows 3" in refusal.error.message) == (429, True)
    slow.go.set()
    run(engine)
