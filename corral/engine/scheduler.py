"""Which tokens the next step computes.

There is no prefill and no decode: a request has tokens and computed tokens, and a step lets requests catch
up. One that has caught up gets a token from the sampler and so lags by one again. Chunked prefill,
continuous batching, starting behind a cached prefix and resuming after preemption are this one case.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from corral.engine.block_pool import BlockPool
from corral.engine.pace import Pace, Work
from corral.engine.prefix import PrefixHash
from corral.engine.request import Request, State
from corral.engine.slots import Slots
from corral.engine.turns import Turns, tally
from corral.program.batch import BLOCK_TOKENS

_arrival = attrgetter("arrival")
_todo = attrgetter("num_todo")

OLDEST_SHARE = 0.25
"""Of what a step has for prompts, this much is for the oldest; the rest is for the shortest first."""
PROMPT_SHARE = 1 / 3
"""However long the others' next tokens take, this much of a step is for prompts."""

UNBOUNDED = 1e9
"""Seconds that no step takes."""


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
    step_seconds: float = UNBOUNDED
    """A step takes about this long at most while somebody waits for the next token of a text."""
    idle_step_seconds: float = UNBOUNDED
    """The same when there are only prompts: for how long nobody can come in or go."""
    draft_tokens: int = 0
    """Most tokens that are guessed in one step."""
    prompt_rows: int = 16
    """Most tokens of prompts in one step whose logits are wanted."""
    max_queue: int = 1 << 30
    """Requests that may wait for their turn."""
    max_queue_tokens: int = 1 << 40
    """Prompt tokens of those that wait."""
    queue_seconds: float = UNBOUNDED
    """A request that has waited for so long is turned away."""
    context_shift: bool = False
    """Drop tokens from the middle of a sequence that has `n_ctx`, instead of ending it."""

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
    """A step computes tokens [num_computed_tokens, num_computed_tokens + num_new) of a request.

    And behind them, if that is all that the request has, a guess at its next ones.
    """

    request: Request
    num_new: int
    draft: Sequence[int] = ()

    @property
    def to_tell(self) -> range:
        """The places of prompt tokens whose logits are wanted."""
        return self.request.to_tell(self.num_new)

    @property
    def work(self) -> Work:
        return Work.of(self.request.num_computed_tokens, self.num_new + len(self.draft))


class Scheduler:
    """First come, first served; clients take turns (`turns.py`).

    - Every request that lags by one token gets it in every step: these are the streams that somebody
      watches. What is left of the step, in tokens and in time, is for those that lag by more: a quarter for
      the oldest, so that it always gets on, and then as much as they can use for the shortest first. When
      there are no prompts, it is for guesses.
    - A request is admitted when there are blocks for all its tokens so far, and one for each running
      request to grow.
    - It begins behind the longest prefix that is published. When an older request is just computing the
      block that it needs next, it waits for that.
    - When a running request needs a block and none is free, the youngest is preempted: it gives its blocks
      back, keeps its tokens, and is first in line. The oldest is never preempted, so there is always
      progress.
    """

    def __init__(self, limits: Limits, pace: Pace | None = None, hash: PrefixHash | None = None) -> None:
        self.limits = limits
        self.pool = BlockPool(limits.num_blocks)
        self.slots = Slots(limits.sequences)
        self.pace = pace or Pace()
        self.hash = hash or PrefixHash()
        self.turns = Turns()
        self.waiting: list[Request] = []  # by arrival
        self.running: list[Request] = []  # by arrival
        self.preemptions = 0

    def add(self, request: Request) -> None:
        assert request.state is State.WAITING, request.state
        assert 0 < request.num_tokens < self.limits.n_ctx, (
            f"{request.id}: {request.num_tokens} tokens can't run"
        )
        self.turns.begin(request.submit, (other.submit for other in self.waiting))
        insort(self.waiting, request, key=_arrival)

    def finish(self, request: Request) -> None:
        """Forget a request, whatever its state, and free what it holds."""
        if request.state is State.RUNNING:
            self._release(request)
        elif request.state is State.WAITING:
            self.waiting.remove(request)
        request.state = State.FINISHED

    def shift(self, request: Request, keep: int, discard: int) -> None:
        """Take tokens [keep, keep + discard) out of a running request; what is behind them is todo again.

        Their blocks are left as they are, for others: the new ones are computed in other blocks. When there
        are not enough of those, the request waits for them like a preempted one.
        """
        assert request.state is State.RUNNING, request.state
        assert 0 <= keep < keep + discard < request.num_tokens, (keep, discard, request.num_tokens)
        del request.tokens[keep : keep + discard]
        request.num_discarded += discard
        if request.draft:
            request.draft.forget()
        same = min(keep, request.num_computed_tokens) // BLOCK_TOKENS
        del request.digests[same:]
        request.num_computed_tokens = same * BLOCK_TOKENS
        self.pool.free(request.block_table[same:])
        del request.block_table[same:]
        blocks = self.pool.allocate(request.blocks_lacking(request.num_tokens))
        if blocks is None:
            self._preempt(request)
        else:
            self.hash.extend(request.digests, request.tokens)
            request.block_table += blocks

    def schedule(self) -> list[Part]:
        """The parts of the next step: at most `step_tokens` tokens, each with its place in the KV cache.

        By arrival. Empty only when nothing runs and nothing waits.
        """
        for request in list(self.running):
            if request.state is State.RUNNING and request.num_todo == 1:
                self._make_room(request)
        while self._admit():
            pass
        counts = {request: 1 for request in self.running if request.num_todo == 1}
        lagging = [request for request in self.running if request not in counts]
        ready = [request for request in lagging if self._skip_computed(request)]
        if ready:
            self._share_out(ready, counts)
        elif self.limits.draft_tokens:
            return self._guess()
        return [Part(request, counts[request]) for request in self.running if request in counts]

    def computed(self, request: Request, count: int) -> None:
        """So many more tokens of a request are in the KV cache; blocks that are full now can be found."""
        first = request.num_computed_tokens // BLOCK_TOKENS
        request.num_computed_tokens += count
        last = request.num_computed_tokens // BLOCK_TOKENS
        if last > first:
            self.hash.extend(request.digests, request.tokens)
        for i in range(first, last):
            self.pool.publish(request.block_table[i], request.digests[i])

    def _guess(self) -> list[Part]:
        """A token for each, and what may follow it, as far as time, tokens and blocks allow."""
        streams = [request for request in self.running if request.num_todo == 1]
        parts = [Part(request, 1) for request in streams]
        seconds = self.limits.step_seconds - self.pace.seconds(total_work(parts))
        budget = min(self.limits.draft_tokens, self.limits.step_tokens - len(parts))
        for i, request in enumerate(streams):
            if request.draft is None:
                continue
            room = min(self.limits.n_ctx - request.num_tokens, request.max_new - request.num_generated - 1)
            within = self.pace.tokens_within(seconds / (len(streams) - i), request.num_tokens)
            draft = request.draft.propose(request.tokens, min(room, within, budget // (len(streams) - i)))
            blocks = self.pool.allocate(request.blocks_lacking(request.num_tokens + len(draft)))
            if blocks is None or not draft:
                continue
            request.block_table += blocks
            parts[i] = Part(request, 1, draft)
            budget -= len(draft)
            seconds -= self.pace.seconds(Work.of(request.num_tokens, len(draft))) - self.pace.step
        return parts

    def _share_out(self, ready: Sequence[Request], counts: dict[Request, int]) -> None:
        """Give the requests that lag what the step has left, in tokens and in time; the oldest gets some."""
        limits, pace = self.limits, self.pace
        spent = pace.seconds(total_work(Part(request, 1) for request in counts))
        seconds = limits.idle_step_seconds - spent
        if counts:
            seconds = max(limits.step_seconds - spent, spent * PROMPT_SHARE / (1 - PROMPT_SHARE))
        budget = limits.step_tokens - len(counts)
        oldest, rows = ready[0], limits.prompt_rows
        kept_seconds, kept_tokens, least = OLDEST_SHARE * seconds, math.ceil(OLDEST_SHARE * budget), 0
        kept_rows = math.ceil(OLDEST_SHARE * rows) if oldest.submit.prompt_probs else 0
        for request in sorted(ready, key=_todo):
            if request is oldest:
                kept_seconds, kept_tokens, kept_rows, least = 0.0, 0, 0, 1
            within = pace.tokens_within(seconds - kept_seconds, request.num_computed_tokens)
            most = min(request.num_todo, limits.chunk_tokens, budget - kept_tokens)
            most = request.with_rows(most, rows - kept_rows)
            count = min(most, max(within, least))
            least = 0
            if count > 0:
                rows -= len(request.to_tell(count))
                counts[request] = count
                budget -= count
                work = Work.of(request.num_computed_tokens, count)
                seconds -= pace.seconds(work) - pace.step

    def _skip_computed(self, request: Request) -> bool:
        """Take over what others have computed meanwhile; False while an older one is at the next block."""
        if not request.shares_prefix:
            return True
        while (i := self._next_block(request)) is not None:
            block = self.pool.find(request.digests[i])
            if block is None:
                return not self._is_being_computed(request, i)
            self.pool.share(block)
            self.pool.free([request.block_table[i]])
            request.block_table[i] = block
            self._skip(request, 1)
        return True

    def _next_block(self, request: Request) -> int | None:
        """The block that a request is about to begin, if it could be another's: full, and not its last."""
        i, begun = divmod(request.num_computed_tokens, BLOCK_TOKENS)
        return i if not begun and i < _shareable(request) else None

    def _is_being_computed(self, request: Request, i: int) -> bool:
        """Whether an older request is about to compute block i of this one."""
        for other in self.running:
            if other is request:
                return False
            lags = i < len(other.digests) and other.num_computed_tokens < (i + 1) * BLOCK_TOKENS
            if lags and other.digests[i] == request.digests[i]:
                return True
        return False

    def _skip(self, request: Request, blocks: int) -> None:
        """The next blocks of a request were computed by others."""
        request.num_computed_tokens += blocks * BLOCK_TOKENS
        if not request.num_generated:
            request.num_cached += blocks * BLOCK_TOKENS

    def _make_room(self, request: Request) -> None:
        """Give a running request a place for its next token; it may be preempted itself."""
        while (blocks := self.pool.allocate(request.blocks_lacking(request.num_tokens))) is None:
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is request:
                return
        request.block_table += blocks

    def _preempt(self, request: Request) -> None:
        assert len(self.running) > 1, f"{request.id}: preempted though alone"
        self._release(request)
        request.num_computed_tokens = 0
        if not request.num_generated:
            request.num_cached = 0
        request.preemptions += 1
        request.state = State.WAITING
        insort(self.waiting, request, key=_arrival)
        self.preemptions += 1

    def _admit(self) -> bool:
        """Let the next in line run, if there is one and it fits. Nobody overtakes it."""
        if not self.waiting or len(self.running) >= self.limits.sequences:
            return False
        request = self._next_in_line()
        cached = self._find_prefix(request)
        lacking = request.blocks_lacking(request.num_tokens) - len(cached)
        revived = sum(1 for block in cached if self.pool.is_free(block))
        # without a block for each to grow into, the newcomer would soon be preempted, its work thrown away
        if lacking + revived + len(self.running) > self.pool.num_free:
            return False
        for block in cached:
            self.pool.share(block)
        blocks = self.pool.allocate(lacking)
        assert blocks is not None
        request.block_table += [*cached, *blocks]
        self._skip(request, len(cached))
        self.waiting.remove(request)
        if not request.preemptions:
            self.turns.take(request.submit)
        insort(self.running, request, key=_arrival)
        self.slots.take(request)
        request.state = State.RUNNING
        return True

    def _find_prefix(self, request: Request) -> list[int]:
        if not request.shares_prefix:
            return []
        self.hash.extend(request.digests, request.tokens)
        return self.pool.find_prefix(request.digests[: _shareable(request)])

    def _next_in_line(self) -> Request:
        running = tally(request.submit for request in self.running)
        return min(
            self.waiting,
            key=lambda request: (
                request.preemptions == 0,
                self.turns.order(request.submit, running),
                request.arrival,
            ),
        )

    def _release(self, request: Request) -> None:
        self.running.remove(request)
        self.slots.give_back(request)
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
        self.slots.check(self.running)
        self.pool.check(request.block_table for request in self.running)


def total_work(parts: Iterable[Part]) -> Work:
    work = Work()
    for part in parts:
        work = work.plus(part.work)
    return work


def _shareable(request: Request) -> int:
    """Blocks that may come from others: full ones, leaving a token whose logits give the next one."""
    return (request.num_tokens - 1) // BLOCK_TOKENS
