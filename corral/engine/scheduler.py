"""Which tokens the next step computes.

There is no prefill and no decode: a request has tokens and computed tokens, and a step lets requests catch
up. One that has caught up gets a token from the sampler and so lags by one again. Chunked prefill,
continuous batching and resuming after preemption are this one case.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from corral.engine.block_pool import BlockPool
from corral.engine.request import Request, State
from corral.program.batch import BLOCK_TOKENS

_arrival = attrgetter("arrival")


@dataclass(frozen=True)
class Limits:
    """How much the engine takes on at once."""

    n_ctx: int
    """Tokens of one request, prompt and generated."""
    num_blocks: int
    """N: blocks of the pool. They hold at least `n_ctx` tokens, so the oldest request can always finish."""
    parallel: int
    """Sequences that run at the same time."""
    step_tokens: int = 512
    """T: most new tokens in one step."""
    chunk_tokens: int = 512
    """Most new tokens of one request in one step."""

    def __post_init__(self) -> None:
        assert min(self.n_ctx, self.parallel, self.step_tokens, self.chunk_tokens) >= 1, self
        assert self.num_blocks * BLOCK_TOKENS >= self.n_ctx, (
            f"the pool can't hold one request of n_ctx tokens: {self}"
        )

    @property
    def sequences(self) -> int:
        """S: sequences in one step. Each needs a token of the budget."""
        return min(self.parallel, self.step_tokens)


class Part(NamedTuple):
    """A step computes tokens [num_computed_tokens, num_computed_tokens + num_new) of a request."""

    request: Request
    num_new: int


class Scheduler:
    """First come, first served; clients with fewer running requests go first.

    - Every running request gets at least one token a step; the rest of the budget goes to the oldest that
      lags.
    - A request is admitted when there are blocks for all its tokens so far, and one for each running
      request to grow.
    - When a running request needs a block and none is free, the youngest is preempted: it gives its blocks
      back, keeps its tokens, and is first in line. The oldest is never preempted, so there is always
      progress.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pool = BlockPool(limits.num_blocks)
        self.waiting: list[Request] = []  # by arrival
        self.running: list[Request] = []  # by arrival
        self.preemptions = 0

    def add(self, request: Request) -> None:
        assert request.state is State.WAITING, request.state
        assert 0 < request.num_tokens < self.limits.n_ctx, (
            f"{request.id}: {request.num_tokens} tokens can't run"
        )
        insort(self.waiting, request, key=_arrival)

    def finish(self, request: Request) -> None:
        """Forget a request, whatever its state, and free what it holds."""
        if request.state is State.RUNNING:
            self._release(request)
            self.running.remove(request)
        elif request.state is State.WAITING:
            self.waiting.remove(request)
        request.state = State.FINISHED

    def schedule(self) -> list[Part]:
        """The parts of the next step: at most `step_tokens` tokens, each with its place in the KV cache."""
        parts: list[Part] = []
        budget = self.limits.step_tokens
        while len(parts) < len(self.running):
            request = self.running[len(parts)]
            others = len(self.running) - len(parts) - 1  # each keeps a token of the budget
            count = min(request.num_todo, self.limits.chunk_tokens, budget - others)
            if not self._make_room(request, request.num_computed_tokens + count):
                break  # preempted itself, as the youngest and so the last
            parts.append(Part(request, count))
            budget -= count
        while budget > 0 and (admitted := self._admit()):
            count = min(admitted.num_todo, self.limits.chunk_tokens, budget)
            parts.append(Part(admitted, count))
            budget -= count
        return parts

    def _make_room(self, request: Request, num_tokens: int) -> bool:
        """Give a running request places for `num_tokens` tokens; False if it had to be preempted itself."""
        while (blocks := self.pool.allocate(request.blocks_lacking(num_tokens))) is None:
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is request:
                return False
        request.block_table += blocks
        return True

    def _preempt(self, request: Request) -> None:
        assert len(self.running) > 1, f"{request.id}: preempted though alone"
        self._release(request)
        self.running.remove(request)
        request.num_computed_tokens = 0
        request.preemptions += 1
        request.state = State.WAITING
        insort(self.waiting, request, key=_arrival)
        self.preemptions += 1

    def _admit(self) -> Request | None:
        """Let the next in line run, if there is one and it fits. Nobody overtakes it."""
        if not self.waiting or len(self.running) >= self.limits.sequences:
            return None
        request = self._next_in_line()
        lacking = request.blocks_lacking(request.num_tokens)
        # without a block for each to grow into, the newcomer would soon be preempted, its work thrown away
        if lacking + len(self.running) > self.pool.num_free:
            return None
        blocks = self.pool.allocate(lacking)
        assert blocks is not None
        request.block_table += blocks
        self.waiting.remove(request)
        insort(self.running, request, key=_arrival)
        request.state = State.RUNNING
        return request

    def _next_in_line(self) -> Request:
        running_of = Counter(request.submit.client for request in self.running)
        return min(
            self.waiting,
            key=lambda request: (
                request.preemptions == 0,
                running_of[request.submit.client],
                request.arrival,
            ),
        )

    def _release(self, request: Request) -> None:
        self.pool.free(request.block_table)
        request.block_table.clear()

    def check(self) -> None:
        """Assert the invariants."""
        assert len(self.running) <= self.limits.sequences
        for requests, state in ((self.waiting, State.WAITING), (self.running, State.RUNNING)):
            assert [request.arrival for request in requests] == sorted(
                {request.arrival for request in requests}
            )
            assert all(request.state is state for request in requests)
            for request in requests:
                request.check()
        self.pool.check(request.block_table for request in self.running)
