"""The scheduler against a slow twin that counts blocks instead of handing them out, and looks at all anew."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
from test_scheduler import request

from corral.engine.request import Request
from corral.engine.scheduler import OLDEST_SHARE, Limits, Scheduler
from corral.program.batch import BLOCK_TOKENS


@dataclass
class Sequence:
    """A request as the twin sees it."""

    id: str
    tokens: int
    last: int
    """Tokens when it ends."""
    computed: int = 0
    running: bool = False
    preempted: bool = False

    @property
    def todo(self) -> int:
        return self.tokens - self.computed

    @property
    def blocks(self) -> int:
        """Those it holds or, if it waits, would hold."""
        return math.ceil(self.tokens / BLOCK_TOKENS)


class Twin:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.all: list[Sequence] = []  # those that have not ended, by arrival
        self.held: dict[str, int] = {}  # blocks of those that have run
        self.preemptions = 0

    @property
    def running(self) -> list[Sequence]:
        return [one for one in self.all if one.running]

    @property
    def waiting(self) -> list[Sequence]:
        return [one for one in self.all if not one.running]

    @property
    def free(self) -> int:
        return self.limits.num_blocks - sum(self.held[one.id] for one in self.running)

    def step(self) -> dict[str, int]:
        """How many tokens of which request."""
        for one in self.running:
            while one.running and one.todo == 1 and one.blocks - self.held[one.id] > self.free:
                self.preempt(self.running[-1])
            if one.running and one.todo == 1:
                self.held[one.id] = one.blocks
        self.admit()
        shares = self.share()
        for one in self.running:
            one.computed += shares.get(one.id, 0)
            if one.todo == 0:
                one.tokens += 1
                if one.tokens == one.last:
                    self.all.remove(one)
        return shares

    def preempt(self, one: Sequence) -> None:
        one.running, one.preempted, one.computed = False, True, 0
        self.preemptions += 1

    def admit(self) -> None:
        while self.waiting and len(self.running) < min(self.limits.parallel, self.limits.step_tokens):
            first = [one for one in self.waiting if one.preempted] or self.waiting
            one = first[0]
            if one.blocks + len(self.running) > self.free:
                return
            one.running = True
            self.held[one.id] = one.blocks

    def share(self) -> dict[str, int]:
        """A token for each that generates; of the rest a quarter is kept for the oldest prompt."""
        shares = {one.id: 1 for one in self.running if one.todo == 1}
        prompts = [one for one in self.running if one.todo > 1]
        left = self.limits.step_tokens - len(shares)
        kept = math.ceil(OLDEST_SHARE * left)
        for one in sorted(prompts, key=lambda one: one.todo):
            if one is prompts[0]:
                kept = 0
            count = min(one.todo, self.limits.chunk_tokens, left - kept)
            if count > 0:
                shares[one.id] = count
                left -= count
        return shares


def step(scheduler: Scheduler, alive: dict[str, Request]) -> dict[str, int]:
    parts = scheduler.schedule()
    scheduler.check()
    for part in parts:
        one = part.request
        scheduler.computed(one, part.num_new)
        if one.num_todo == 0:
            one.tokens.append(2)
            if one.num_generated >= one.max_new:
                scheduler.finish(one)
                del alive[one.id]
    return {part.request.id: part.num_new for part in parts}


@pytest.mark.parametrize("seed", range(40))
def test_every_step_is_the_twin_s(seed: int) -> None:
    rng = random.Random(seed)
    num_blocks = rng.randint(2, rng.choice([6, 12, 30]))
    limits = Limits(
        n_ctx=rng.randint(40, num_blocks * BLOCK_TOKENS),
        num_blocks=num_blocks,
        parallel=rng.randint(1, 8),
        step_tokens=rng.choice([1, 3, 16, 64, 512]),
        chunk_tokens=rng.choice([1, 7, 512]),
    )
    scheduler, twin, alive = Scheduler(limits), Twin(limits), dict[str, Request]()
    for arrival in range(1, 30):
        num_prompt = rng.randint(1, min(limits.n_ctx - 1, rng.choice([5, 100, 1000])))
        max_new = rng.randint(1, min(150, limits.n_ctx - num_prompt))
        new = request(arrival, num_prompt, max_new, cache_prompt=False)
        scheduler.add(new)
        alive[new.id] = new
        twin.all.append(Sequence(new.id, num_prompt, num_prompt + max_new))
        for _ in range(rng.randint(0, 12)):
            assert step(scheduler, alive) == twin.step()
        if alive and rng.random() < 0.3:
            gone = rng.choice(list(alive))
            scheduler.finish(alive.pop(gone))
            twin.all = [one for one in twin.all if one.id != gone]
    while alive:
        assert step(scheduler, alive) == twin.step() != {}
    assert twin.all == []
    assert scheduler.preemptions == twin.preemptions
    assert scheduler.pool.num_used == 0
