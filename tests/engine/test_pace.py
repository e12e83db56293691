"""What is learned of a machine's pace, and that a step keeps to its time."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from fake_executor import TABLES, Clock, FakeExecutor, limits, prompt, tokens_of

from corral.engine.engine import Engine
from corral.engine.messages import Output, Submit
from corral.engine.pace import Pace, Work
from corral.sampling.params import SamplingParams

LONG = SamplingParams(seed=1, ignore_eos=True)
MACHINES = {
    "slow": Pace(step=0.06, token=0.012, read=4e-6),
    "fast": Pace(step=0.002, token=0.0001, read=1e-8),
    "of long contexts": Pace(step=0.03, token=0.002, read=2e-5),
}


def test_work_counts_what_attention_reads() -> None:
    assert Work.of(10, 3) == (3, 11 + 12 + 13)
    assert Work.of(0, 1).plus(Work.of(5, 1)) == (2, 1 + 6)


@pytest.mark.parametrize("start", [0, 1000, 30_000])
@pytest.mark.parametrize("seconds", [0.001, 0.1, 5.0])
@pytest.mark.parametrize("name", MACHINES)
def test_tokens_within_is_the_most_that_fit(name: str, seconds: float, start: int) -> None:
    pace = MACHINES[name]
    count = pace.tokens_within(seconds, start)

    def cost(tokens: int) -> float:
        return pace.seconds(Work.of(start, tokens)) - pace.step

    assert cost(count) <= seconds * (1 + 1e-9)
    assert cost(count + 1) > seconds * (1 - 1e-9)


def test_no_time_no_tokens() -> None:
    assert Pace().tokens_within(0.0, 10) == Pace().tokens_within(-1.0, 10) == 0


@pytest.mark.parametrize("name", MACHINES)
def test_learns_a_machine_from_steps_of_all_kinds(name: str) -> None:
    rng, machine, pace = random.Random(0), MACHINES[name], Pace()
    works = [Work.of(rng.randint(0, 8000), rng.choice([1, 1, 1, 8, 64, 512])) for _ in range(400)]
    for work in works:
        pace.learn(work, machine.seconds(work) * rng.uniform(0.9, 1.1))
    for work in works[-50:]:
        assert pace.seconds(work) == pytest.approx(machine.seconds(work), rel=0.35)


def test_an_interruption_is_soon_forgotten() -> None:
    pace, work = Pace(), Work.of(100, 20)
    for _ in range(20):
        pace.learn(work, 0.1)
    pace.learn(work, 60.0)
    assert pace.seconds(work) < 0.3
    for _ in range(6):
        pace.learn(work, 0.1)
    assert pace.seconds(work) == pytest.approx(0.1, rel=0.1)


def test_a_clock_that_stands_still_teaches_nothing() -> None:
    pace = Pace()
    pace.learn(Work(1, 1), 0.0)
    assert pace == Pace()


class Machine(FakeExecutor):
    """Takes the time that a pace says."""

    def __init__(self, clock: Clock, pace: Pace) -> None:
        super().__init__()
        self.clock, self.pace = clock, pace

    def step(self, batch):  # type: ignore[no-untyped-def]
        reads = int(batch.positions.sum()) + len(batch.positions)
        self.clock.now += self.pace.seconds(Work(len(batch.tokens), reads))
        return super().step(batch)


class Watch:
    """An engine on a machine of some pace; when which output came."""

    def __init__(self, name: str, **changes: int | float) -> None:
        self.clock = Clock()
        changes = {
            "step_seconds": 0.15,
            "idle_step_seconds": 0.5,
            "n_ctx": 8192,
            "num_blocks": 999,
            **changes,
        }
        self.engine = Engine(Machine(self.clock, MACHINES[name]), TABLES, limits(**changes), self.clock)
        self.outputs: list[tuple[float, Output]] = []
        self.steps: list[float] = []

    def run(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.engine.has_work and self.clock.now < end:
            before = self.clock.now
            self.outputs += [(self.clock.now, output) for output in self.engine.step()]
            self.steps.append(self.clock.now - before)

    def times(self, id: str) -> list[float]:
        return [when for when, output in self.outputs if output.id == id]


def pauses(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_a_long_prompt_does_not_hold_up_streams(name: str) -> None:
    watch = Watch(name)
    watch.engine.submit(Submit(id="stream", prompt=prompt(20), sampling=LONG))
    watch.run(2.0)
    watch.engine.submit(Submit(id="long", prompt=prompt(2500), max_tokens=1))
    arrived = watch.clock.now
    watch.run(1000.0)
    assert watch.times("long")
    beside = [when for when in watch.times("stream") if arrived <= when <= watch.times("long")[-1]]
    assert max(pauses(beside)) < 0.3
    assert sorted(pauses(beside))[len(beside) // 2] < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_the_long_prompt_advances_at_a_third_of_its_speed_or_more(name: str) -> None:
    alone, beside = Watch(name), Watch(name)
    beside.engine.submit(Submit(id="stream", prompt=prompt(20), sampling=LONG))
    beside.run(2.0)
    took = []
    for watch in (alone, beside):
        started = watch.clock.now
        watch.engine.submit(Submit(id="long", prompt=prompt(3000), max_tokens=1))
        watch.run(500.0)
        took.append(watch.times("long")[-1] - started)
    assert took[1] < 3.5 * took[0]


@pytest.mark.parametrize("name", ["slow", "of long contexts"])
def test_a_short_prompt_is_answered_ahead_of_a_long_one(name: str) -> None:
    watch = Watch(name)
    watch.engine.submit(Submit(id="long", prompt=prompt(6000), max_tokens=1))
    watch.run(3.0)
    arrived = watch.clock.now
    watch.engine.submit(Submit(id="short", prompt=prompt(15), max_tokens=1))
    watch.run(500.0)
    assert watch.times("short")[0] - arrived < 1.2  # the step it came into, and its own
    assert watch.times("short")[0] < watch.times("long")[0]


def test_steps_of_prompts_alone_are_bounded_too() -> None:
    """A client that goes is seen between two steps."""
    watch = Watch("slow")
    watch.engine.submit(Submit(id="long", prompt=prompt(3000), max_tokens=1))
    watch.run(100.0)
    assert max(watch.steps) < 1.0
    assert sorted(watch.steps)[len(watch.steps) // 2] > 0.3  # and not shorter than need be


def test_a_fast_machine_takes_whole_steps() -> None:
    watch = Watch("fast")
    watch.engine.submit(Submit(id="warm", prompt=prompt(3000), max_tokens=1))
    watch.run(100.0)
    watch.engine.submit(Submit(id="stream", prompt=prompt(20, seed=1), sampling=LONG))
    watch.run(0.05)
    watch.engine.submit(Submit(id="long", prompt=prompt(2047, seed=2), max_tokens=1))
    before = len(watch.steps)
    watch.run(0.5)
    assert watch.times("long")
    assert sum(1 for step in watch.steps[before:] if step > 0.02) == 4  # of 512 tokens each


def test_tokens_do_not_depend_on_the_pace() -> None:
    texts = []
    for name in MACHINES:
        watch = Watch(name)
        for i in range(4):
            watch.engine.submit(
                Submit(id=str(i), prompt=prompt(400 * i + 5, seed=i), max_tokens=40, sampling=LONG)
            )
        watch.run(1000.0)
        outputs = [output for _, output in watch.outputs]
        texts.append([tokens_of([output for output in outputs if output.id == str(i)]) for i in range(4)])
    assert texts[0] == texts[1] == texts[2]
