"""The engine of a server that makes embeddings: prompts in, vectors out.

Such a request is its prompt and nothing more, so scheduling is simple: when a request runs it has blocks for
all its tokens, and it ends when they are computed. Nothing is shared between requests and nothing preempted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from corral.engine.block_pool import BlockPool
from corral.engine.engine import error_info, failure
from corral.engine.messages import (
    INPUTS_AT_ONCE,
    Cancel,
    Output,
    Pooling,
    SlotAction,
    SlotResult,
    Stats,
    Submit,
    Timings,
    ToEngine,
    ToServer,
)
from corral.engine.pooling import Pool, softmax
from corral.engine.turns import Name, Turns, names, tally
from corral.errors import InputTooLarge, NotSupported, Overloaded, RequestError
from corral.program.batch import BLOCK_TOKENS, Batch, Executor

MOST_SEQUENCES = 32
"""In one step."""


@dataclass(frozen=True)
class EmbedLimits:
    """How much the engine takes on at once."""

    n_ctx: int
    """Tokens of one prompt."""
    num_blocks: int
    """Blocks of the pool; they hold `n_ctx` tokens at least."""
    step_tokens: int
    """Most tokens of one step."""
    whole: bool
    """A prompt is computed in one step: the model sees both ways. Then `step_tokens` is `n_ctx` at least."""
    max_queue: int = 1 << 30
    """HTTP requests that may wait, each of INPUTS_AT_ONCE prompts at most."""
    queue_seconds: float = 1e9

    def __post_init__(self) -> None:
        assert self.num_blocks * BLOCK_TOKENS >= self.n_ctx >= 1, self
        assert self.step_tokens >= (self.n_ctx if self.whole else 1), self

    @property
    def sequences(self) -> int:
        return min(MOST_SEQUENCES, self.step_tokens)


@dataclass(slots=True, eq=False)
class _Request:
    """The first `done` tokens of the prompt are computed."""

    submit: Submit
    pool: Pool
    submitted: float
    started: float = 0.0
    done: int = 0
    blocks: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.submit.prompt)


class _Part(NamedTuple):
    """A step computes the tokens [request.done, end)."""

    request: _Request
    end: int


class Embedder:
    """Every submitted request ends with exactly one Output: its embedding, or why there is none."""

    def __init__(
        self,
        executor: Executor,
        limits: EmbedLimits,
        pooling: Pooling,
        *,
        softmax: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """executor: gives hidden states, or scores to rank with; softmax: over the labels of a score."""
        executor.allocate(limits.num_blocks)
        self._executor, self._limits, self._clock = executor, limits, clock
        self._pooling, self._softmax = pooling, softmax
        self._blocks = BlockPool(limits.num_blocks)
        self._running: dict[str, _Request] = {}
        self._turns = Turns()
        # by connection, each in order of arrival; none is empty
        self._waiting: dict[Name, deque[_Request]] = {}
        self._num_waiting = 0
        self._tokens = self._steps = self._step_sequences = self._most_tokens = self._rejected = 0
        self._ms = 0.0

    @property
    def has_work(self) -> bool:
        return bool(self._running) or self._num_waiting > 0

    @property
    def load(self) -> tuple[int, int]:
        return len(self._running), self._num_waiting

    def handle(self, message: ToEngine) -> Sequence[ToServer]:
        match message:
            case Submit():
                return self.submit(message)
            case Cancel():
                return self.cancel(message.id)
            case SlotAction():
                error = NotSupported("This server makes embeddings: nothing of a slot is kept")
                return [SlotResult(id=message.id, error=error_info(message.id, error))]

    def work(self) -> Sequence[ToServer]:
        return ()

    def submit(self, submit: Submit) -> list[Output]:
        """Queue a request. A refusal is answered at once."""
        try:
            self._check(submit)
        except Exception as error:
            return [failure(submit.id, error)]
        pool = Pool(self._pooling, len(submit.prompt), ranks_first=self._limits.whole)
        self._turns.begin(submit, (queue[0].submit for queue in self._waiting.values()))
        queue = self._waiting.setdefault(names(submit)[-1], deque())
        queue.append(_Request(submit, pool, self._clock()))
        self._num_waiting += 1
        return []

    def cancel(self, id: str) -> list[Output]:
        """End a request now. One that has ended already is left alone."""
        if id in self._running:
            self._end(self._running[id])
            return [Output(id=id, finish_reason="cancelled")]
        for queue in self._waiting.values():
            for request in queue:
                if request.submit.id == id:
                    self._remove(request)
                    return [Output(id=id, finish_reason="cancelled")]
        return []

    def step(self) -> list[Output]:
        """Compute the next batch; the embeddings that are complete with it."""
        outputs = self._expire()
        parts = self._schedule()
        if not parts:
            return outputs
        started = self._clock()
        try:
            rows = self._executor.step(_batch(parts))
        except Exception as error:
            for part in parts:
                self._end(part.request)
            return outputs + [failure(part.request.submit.id, error) for part in parts]
        self._count(parts, started)
        first = 0
        for request, end in parts:
            count = len(request.pool.wanted(request.done, end))
            if count:
                request.pool.add(rows[first : first + count])
            first += count
            request.done = end
            if end == request.length:
                outputs.append(self._finish(request))
        assert first == len(rows), f"{len(rows)} rows for {first} places"
        return outputs

    def stats(self) -> Stats:
        return Stats(
            running=len(self._running),
            waiting=self._num_waiting,
            waiting_tokens=sum(request.length for queue in self._waiting.values() for request in queue),
            blocks_used=self._blocks.num_used,
            blocks_total=self._blocks.num_blocks,
            prompt_tokens=self._tokens,
            prompt_ms=self._ms,
            steps=self._steps,
            step_sequences=self._step_sequences,
            most_tokens=self._most_tokens,
            rejected=self._rejected,
        )

    def check(self) -> None:
        """Assert the invariants."""
        self._blocks.check(request.blocks for request in self._running.values())
        assert self._num_waiting == sum(map(len, self._waiting.values()))
        assert all(self._waiting.values()), "an empty queue"
        assert not (self._limits.whole and self._running), "a prompt is not computed in one step"

    def _check(self, submit: Submit) -> None:
        prompt, vocab_size = submit.prompt, self._executor.vocab_size
        if not prompt:
            raise RequestError("the input has 0 tokens, expected at least one")
        if len(prompt) > self._limits.n_ctx:
            raise InputTooLarge(len(prompt), self._limits.n_ctx)
        if min(prompt) < 0 or max(prompt) >= vocab_size:
            wrong = next(token for token in prompt if not 0 <= token < vocab_size)
            raise RequestError(f"the input has token {wrong}, expected ids from 0 to {vocab_size - 1}")
        if self._num_waiting >= self._limits.max_queue * INPUTS_AT_ONCE:
            self._rejected += 1
            raise Overloaded(
                f"the queue is full: {self._num_waiting} inputs wait already, --max-queue allows "
                f"{self._limits.max_queue} requests of {INPUTS_AT_ONCE}; try again later"
            )

    def _schedule(self) -> list[_Part]:
        """The tokens of the next step: who runs goes on, then others begin while there is room."""
        budget, parts = self._limits.step_tokens, []
        for request in self._running.values():
            end = min(request.length, request.done + budget)
            if end > request.done:
                parts.append(_Part(request, end))
                budget -= end - request.done
        running = tally(request.submit for request in self._running.values())
        while self._waiting and budget > 0 and len(parts) < self._limits.sequences:
            request = min(
                (queue[0] for queue in self._waiting.values()),
                key=lambda one: (self._turns.order(one.submit, running), one.submitted),
            )
            if self._limits.whole and request.length > budget:
                break
            blocks = self._blocks.allocate(-(-request.length // BLOCK_TOKENS))
            if blocks is None:
                break
            self._remove(request)
            request.blocks, request.started = blocks, self._clock()
            self._running[request.submit.id] = request
            self._turns.take(request.submit)
            running.update(names(request.submit))
            parts.append(_Part(request, min(request.length, budget)))
            budget -= parts[-1].end
        return parts

    def _remove(self, request: _Request) -> None:
        """From those that wait."""
        name = names(request.submit)[-1]
        queue = self._waiting[name]
        queue.remove(request)
        self._num_waiting -= 1
        if not queue:
            del self._waiting[name]

    def _end(self, request: _Request) -> None:
        del self._running[request.submit.id]
        self._blocks.free(request.blocks)

    def _finish(self, request: _Request) -> Output:
        self._end(request)
        now = self._clock()
        try:
            rows = request.pool.result()
            embedding = (softmax(rows) if self._softmax else rows).astype("<f4").tobytes()
        except Exception as error:
            return failure(request.submit.id, error)
        return Output(
            id=request.submit.id,
            finish_reason="stop",
            embedding=embedding,
            timings=Timings(
                queue_ms=1e3 * (request.started - request.submitted),
                prompt_n=request.length,
                prompt_ms=1e3 * (now - request.started),
            ),
        )

    def _expire(self) -> list[Output]:
        """Turn away who has waited for too long."""
        deadline = self._clock() - self._limits.queue_seconds
        late = [r for queue in self._waiting.values() for r in queue if r.submitted < deadline]
        for request in late:
            self._remove(request)
        self._rejected += len(late)
        reason = f"the request has waited for its turn for {self._limits.queue_seconds:g} s, as long as "
        error = Overloaded(reason + "--queue-timeout allows; try again later")
        return [failure(request.submit.id, error) for request in late]

    def _count(self, parts: Sequence[_Part], started: float) -> None:
        self._steps += 1
        self._step_sequences += len(parts)
        self._tokens += sum(end - request.done for request, end in parts)
        self._ms += 1e3 * (self._clock() - started)
        self._most_tokens = max(self._most_tokens, *(end for _, end in parts))


def _batch(parts: Sequence[_Part]) -> Batch:
    """The step's tokens end to end, and the rows that are wanted."""
    counts = [end - request.done for request, end in parts]
    query_start = np.cumsum([0, *counts], dtype=np.int32)
    tables = np.zeros((len(parts), max(len(request.blocks) for request, _ in parts)), np.int32)
    tokens: list[int] = []
    rows: list[int] = []
    for (request, end), table in zip(parts, tables, strict=True):
        table[: len(request.blocks)] = request.blocks
        rows += [len(tokens) + i - request.done for i in request.pool.wanted(request.done, end)]
        tokens += request.submit.prompt[request.done : end]
    return Batch(
        tokens=np.array(tokens, np.int32),
        positions=np.concatenate([np.arange(r.done, end, dtype=np.int32) for r, end in parts]),
        query_start=query_start,
        context_len=np.array([end for _, end in parts], np.int32),
        block_tables=tables,
        logit_rows=np.array(rows, np.int32),
    )
