"""The engine: requests in, tokens and text out, one step at a time. Knows no processes, sockets or files."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np

from corral.engine.messages import (
    Cancel,
    ErrorInfo,
    FinishReason,
    Output,
    Progress,
    Stats,
    Submit,
    ToEngine,
    TokenInfo,
    TopToken,
)
from corral.engine.output import TextStream, TextTables
from corral.engine.pace import Work
from corral.engine.request import Request
from corral.engine.scheduler import Limits, Part, Scheduler
from corral.errors import ContextSizeError, CorralError, InternalError, Overloaded, RequestError
from corral.program.batch import Batch, Executor, Float32
from corral.sampling.chain import Chain
from corral.sampling.check import check_params

log = logging.getLogger(__name__)


MOST_RETRY_SECONDS = 60
"""No client is told to stay away for longer."""


class Ending(NamedTuple):
    finish_reason: FinishReason
    stop_type: Literal["none", "eos", "word", "limit"]


_WORD = Ending("stop", "word")
_EOS = Ending("stop", "eos")
_LIMIT = Ending("length", "limit")
_CANCELLED = Ending("cancelled", "none")


@dataclass
class Counters:
    """Totals since the start; what they count is said in `messages.Stats`."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    prompt_ms: float = 0.0
    predicted_tokens: int = 0
    predicted_ms: float = 0.0
    steps: int = 0
    step_sequences: int = 0
    most_tokens: int = 0
    rejected: int = 0


class Engine:
    """Continuous batching over an executor.

    Every submitted request ends with exactly one Output that has a `finish_reason`: from `submit` when it is
    refused, from `cancel`, or from a `step`. A request that fails, fails alone.
    """

    def __init__(
        self,
        executor: Executor,
        text: TextTables,
        limits: Limits,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        executor.allocate(limits.num_blocks)
        self._executor = executor
        self._text = text
        self._limits = limits
        self._clock = clock
        self.scheduler = Scheduler(limits)
        self._requests: dict[str, Request] = {}
        self._arrivals = 0
        self._counters = Counters()

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    @property
    def load(self) -> tuple[int, int]:
        """Requests that run, and that wait."""
        return len(self.scheduler.running), len(self.scheduler.waiting)

    def handle(self, message: ToEngine) -> list[Output]:
        match message:
            case Submit():
                return self.submit(message)
            case Cancel():
                return self.cancel(message.id)

    def submit(self, submit: Submit) -> list[Output]:
        """Queue a request. A refusal is answered at once."""
        assert submit.id not in self._requests, f"request {submit.id!r} is submitted twice"
        try:
            self._check(submit)
            self._check_queue(submit)
            request = self._request(submit)
        except Exception as error:
            return [_failure(submit.id, error)]
        self._requests[submit.id] = request
        self.scheduler.add(request)
        return []

    def cancel(self, id: str) -> list[Output]:
        """End a request now, whatever its state. One that has ended already is left alone."""
        request = self._requests.get(id)
        return [self._finish(request, _CANCELLED)] if request else []

    def step(self) -> list[Output]:
        """Compute the next batch, sample, and return what is new."""
        outputs = self._expire()
        parts = self.scheduler.schedule()
        if not parts:
            return outputs
        started = self._start(parts)
        try:
            logits = self._executor.step(build_batch(parts))  # [S, V]
        except Exception as error:
            return outputs + [self._fail(request, error) for request, _ in parts]
        now = self._clock()
        self.scheduler.pace.learn(_work(parts), now - started)
        outputs += self._progress(parts, now)
        for request, count in parts:
            self.scheduler.computed(request, count)
        caught_up = [request for request, _ in parts if request.num_todo == 0]
        outputs += [self._advance(request, row, now) for request, row in zip(caught_up, logits, strict=True)]
        return outputs

    def stats(self) -> Stats:
        pool = self.scheduler.pool
        return Stats(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            waiting_tokens=sum(request.num_tokens for request in self.scheduler.waiting),
            blocks_used=pool.num_used,
            blocks_cached=pool.num_cached,
            blocks_total=pool.num_blocks,
            slots=self.scheduler.slots.stats(),
            preemptions=self.scheduler.preemptions,
            **vars(self._counters),
        )

    def check(self) -> None:
        """Assert the invariants of engine, scheduler and pool."""
        self.scheduler.check()
        scheduled = [*self.scheduler.waiting, *self.scheduler.running]
        assert sorted(request.id for request in scheduled) == sorted(self._requests)

    def _check(self, submit: Submit) -> None:
        vocab_size = self._executor.vocab_size
        if not submit.prompt:
            raise RequestError("the prompt has 0 tokens, expected at least one")
        if len(submit.prompt) >= self._limits.n_ctx:  # no room for a single new token
            raise ContextSizeError(len(submit.prompt), self._limits.n_ctx)
        if min(submit.prompt) < 0 or max(submit.prompt) >= vocab_size:
            wrong = next(token for token in submit.prompt if not 0 <= token < vocab_size)
            raise RequestError(f"the prompt has token {wrong}, expected ids from 0 to {vocab_size - 1}")
        check_params(submit.sampling, vocab_size)

    def _check_queue(self, submit: Submit) -> None:
        """Whether one more may wait for its turn."""
        limits, scheduler = self._limits, self.scheduler
        queued = [request for request in scheduler.waiting if request.started is None]
        free = limits.sequences - len(scheduler.running)
        if len(queued) < free:
            return
        queued = queued[free:]
        tokens = sum(request.num_prompt for request in queued)
        if len(queued) >= limits.max_queue:
            what = f"{len(queued)} requests wait already, --max-queue allows {limits.max_queue}"
        elif queued and tokens + len(submit.prompt) > limits.max_queue_tokens:
            what = (
                f"{tokens} prompt tokens wait already and this request has {len(submit.prompt)}, "
                f"--max-queue-tokens allows {limits.max_queue_tokens}"
            )
        else:
            return
        self._counters.rejected += 1
        raise Overloaded(f"the queue is full: {what}; try again later", self._retry_after(tokens))

    def _retry_after(self, tokens: int) -> int:
        """Seconds until so many prompt tokens may be done."""
        return min(max(1, math.ceil(self.scheduler.pace.token * tokens)), MOST_RETRY_SECONDS)

    def _expire(self) -> list[Output]:
        """Turn away who has waited for too long."""
        deadline = self._clock() - self._limits.queue_seconds
        late = [
            request
            for request in self.scheduler.waiting
            if request.started is None and request.submitted < deadline
        ]
        self._counters.rejected += len(late)
        tokens = sum(request.num_prompt for request in self.scheduler.waiting)
        return [
            self._fail(
                request,
                Overloaded(
                    f"the request has waited for its turn for {self._limits.queue_seconds:g} s, as long as "
                    "--queue-timeout allows; try again later",
                    self._retry_after(tokens),
                ),
            )
            for request in late
        ]

    def _request(self, submit: Submit) -> Request:
        # even where the context shifts, a text that nobody limits has an end
        room = self._limits.n_ctx - (0 if self._limits.context_shift else len(submit.prompt))
        seed = submit.sampling.seed
        self._arrivals += 1
        return Request(
            submit=submit,
            arrival=self._arrivals,
            max_new=_most_new(submit.max_tokens, room, self._limits.context_shift),
            chain=Chain(
                submit.sampling,
                secrets.randbits(32) if seed is None else seed,
                self._text.eog,
                self._text.special,
            ),
            text=TextStream(self._text, submit.stop, submit.special),
            tokens=list(submit.prompt),
            submitted=self._clock(),
        )

    def _start(self, parts: Sequence[Part]) -> float:
        now = self._clock()
        for request, _ in parts:
            if request.started is None:
                request.started = now
        self._counters.steps += 1
        self._counters.step_sequences += len(parts)
        return now

    def _progress(self, parts: Sequence[Part], now: float) -> list[Output]:
        """For those that want to know, how far their prompt is after the step that has just been done."""
        return [
            Output(id=request.id, id_slot=request.slot, progress=_progress_of(request, count, now))
            for request, count in parts
            if request.submit.progress and not request.num_generated
        ]

    def _advance(self, request: Request, row: Float32, now: float) -> Output:
        """Sample from the logits [V] of a request's last token. A failure concerns this request only."""
        try:
            if request.first_token is None:
                self._count_prompt(request, now)
            if request.max_new == 0:  # only the prompt was to be computed
                return self._finish(request, _LIMIT)
            return self._add_token(request, row, now)
        except Exception as error:
            return self._fail(request, error)

    def _add_token(self, request: Request, row: Float32, now: float) -> Output:
        token = request.chain.sample(row, request.tokens)
        infos = self._infos(request, row, token)
        text = request.text.feed(token)
        request.tokens.append(token)
        request.has_line_break = request.has_line_break or "\n" in text
        self._count(request, now)
        if ending := self._ending(request, token, now):
            return self._finish(request, ending, text, [token], infos)
        if request.num_tokens >= self._limits.n_ctx:
            self._shift(request)
        return Output(
            id=request.id,
            text=text,
            tokens=[token],
            infos=infos,
            id_slot=request.slot,
            timings=request.timings(now) if request.submit.timings_per_token else None,
        )

    def _shift(self, request: Request) -> None:
        """Make room in a full context."""
        submit = request.submit
        keep = submit.n_keep if submit.n_keep >= 0 else request.num_prompt
        keep = min(keep, max(0, self._limits.n_ctx - 4))
        rest = request.num_tokens - keep
        discard = min(submit.n_discard or rest // 2, rest - 1)
        self.scheduler.shift(request, keep, max(1, discard))

    def _ending(self, request: Request, token: int, now: float) -> Ending | None:
        if request.text.stopping_word:
            return _WORD
        if token in self._text.eog:
            return _EOS
        return _LIMIT if request.num_generated >= request.max_new or _is_late(request, now) else None

    def _infos(self, request: Request, row: Float32, token: int) -> list[TokenInfo]:
        probs = request.chain.log_probs(row, token)
        if probs is None:
            return []
        piece = request.text.piece
        top = [TopToken(other, piece(other), value) for other, value in probs.top]
        return [TokenInfo(token, piece(token), probs.chosen, top, probs.post_sampling)]

    def _count_prompt(self, request: Request, now: float) -> None:
        assert request.started is not None
        request.first_token = now
        self._counters.prompt_tokens += request.num_prompt - request.num_cached
        self._counters.cached_tokens += request.num_cached
        if request.submit.cache_prompt:
            self._counters.cache_hits += request.num_cached > 0
            self._counters.cache_misses += request.num_cached == 0
        self._counters.prompt_ms += 1e3 * (now - request.started)

    def _count(self, request: Request, now: float) -> None:
        self._counters.predicted_tokens += 1
        self._counters.most_tokens = max(self._counters.most_tokens, request.num_tokens)
        if request.last_token is not None:
            self._counters.predicted_ms += 1e3 * (now - request.last_token)
        request.last_token = now

    def _finish(
        self,
        request: Request,
        ending: Ending,
        text: str = "",
        tokens: Sequence[int] = (),
        infos: Sequence[TokenInfo] = (),
    ) -> Output:
        output = Output(
            id=request.id,
            text=text + request.text.finish(),
            tokens=list(tokens),
            infos=list(infos),
            finish_reason=ending.finish_reason,
            stop_type=ending.stop_type,
            stopping_word=request.text.stopping_word,
            timings=request.timings(self._clock()),
            seed=request.chain.seed,
            id_slot=request.slot,
            truncated=request.num_discarded > 0 or request.num_tokens >= self._limits.n_ctx,
        )
        self._forget(request)
        return output

    def _fail(self, request: Request, error: Exception) -> Output:
        self._forget(request)
        return _failure(request.id, error)

    def _forget(self, request: Request) -> None:
        self.scheduler.finish(request)
        del self._requests[request.id]


def _most_new(asked: int, room: int, context_shift: bool) -> int:
    if asked < 0:
        return room
    return asked if context_shift else min(asked, room)


def _is_late(request: Request, now: float) -> bool:
    """Whether the time for the text is over; a first line is finished in any case."""
    most, first = request.submit.max_predict_ms, request.first_token
    return most > 0 and request.has_line_break and first is not None and 1e3 * (now - first) > most


def _work(parts: Sequence[Part]) -> Work:
    work = Work()
    for request, count in parts:
        work = work.plus(Work.of(request.num_computed_tokens, count))
    return work


def _progress_of(request: Request, count: int, now: float) -> Progress:
    started = now if request.started is None else request.started
    return Progress(
        total=request.num_prompt,
        cache=request.num_cached,
        processed=min(request.num_computed_tokens + count, request.num_prompt),
        time_ms=1e3 * (now - started),
    )


def build_batch(parts: Sequence[Part]) -> Batch:
    """The step's tokens end to end, and where each sequence's are kept."""
    spans = [(request.num_computed_tokens, request.num_computed_tokens + count) for request, count in parts]
    tokens = [request.tokens[start:end] for (request, _), (start, end) in zip(parts, spans, strict=True)]
    query_start = np.cumsum([0, *(count for _, count in parts)], dtype=np.int32)
    block_tables = np.zeros((len(parts), max(len(request.block_table) for request, _ in parts)), np.int32)
    for row, (request, _) in zip(block_tables, parts, strict=True):
        row[: len(request.block_table)] = request.block_table
    caught_up = [end == request.num_tokens for (request, _), (_, end) in zip(parts, spans, strict=True)]
    return Batch(
        tokens=np.fromiter(chain.from_iterable(tokens), np.int32, int(query_start[-1])),
        positions=np.concatenate([np.arange(start, end, dtype=np.int32) for start, end in spans]),
        query_start=query_start,
        context_len=np.array([end for _, end in spans], np.int32),
        block_tables=block_tables,
        logit_rows=query_start[1:][caught_up] - np.int32(1),
    )


def _failure(id: str, error: Exception) -> Output:
    """How a request ends that can't be served, or that met a bug of ours."""
    if not isinstance(error, CorralError):
        log.error("request %s failed", id, exc_info=error)
        error = InternalError(f"the engine failed on this request: {type(error).__name__}: {error}")
    info = ErrorInfo(
        status=error.status,
        type=error.type,
        message=str(error),
        extra=error.extra(),
        retry_after=error.retry_after,
    )
    return Output(id=id, finish_reason="error", error=info)
