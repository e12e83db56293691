"""The engine: requests in, tokens and text out, one step at a time. Knows no processes, sockets or files."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from corral.engine.compiling import Compiling
from corral.engine.draft import DraftParams, NgramDraft
from corral.engine.messages import (
    Cancel,
    ErrorInfo,
    FinishReason,
    Output,
    Progress,
    SlotAction,
    SlotResult,
    Stats,
    Submit,
    Timings,
    ToEngine,
    TokenInfo,
    TopToken,
    ToServer,
)
from corral.engine.output import TextStream, TextTables
from corral.engine.request import Request, State
from corral.engine.scheduler import Limits, Part, Scheduler, total_work
from corral.engine.slot_files import Job, SlotFiles
from corral.errors import (
    ContextSizeError,
    CorralError,
    InternalError,
    NotSupported,
    Overloaded,
    RequestError,
)
from corral.program.batch import Batch, Executor, Float32
from corral.sampling.chain import Chain, LogProbs, prompt_log_probs
from corral.sampling.check import check_params
from corral.sampling.constraint import Grammars, Matcher

log = logging.getLogger(__name__)


MOST_RETRY_SECONDS = 60
"""No client is told to stay away for longer."""
COMPILE_POLL_SECONDS = 0.005
"""How long new messages may wait while there is nothing to do but to compile a grammar."""


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
    drafts: int = 0
    draft_tokens: int = 0
    draft_accepted: int = 0
    draft_accepted_at: list[int] = field(default_factory=list)


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
        draft: DraftParams | None = None,
        slot_files: SlotFiles | None = None,
    ) -> None:
        """`draft`: how to guess tokens; together with a Limits.draft_tokens."""
        executor.allocate(limits.num_blocks)
        self._executor = executor
        self._text = text
        self._limits = limits
        self._clock = clock
        self._draft = draft
        self._slot_files = slot_files
        self._jobs: list[tuple[SlotAction, Job, float]] = []
        self.scheduler = Scheduler(limits)
        self._requests: dict[str, Request] = {}
        self._compiling = Compiling(Grammars(text.special, text.control, text.eog), clock)
        self._arrivals = 0
        self._counters = Counters()

    @property
    def has_work(self) -> bool:
        return bool(self._requests or self._jobs or self._compiling)

    @property
    def load(self) -> tuple[int, int]:
        """Requests that run, and that wait."""
        return len(self.scheduler.running), len(self.scheduler.waiting) + len(self._compiling)

    def handle(self, message: ToEngine) -> Sequence[ToServer]:
        match message:
            case Submit():
                return self.submit(message)
            case Cancel():
                return self.cancel(message.id)
            case SlotAction():
                return self.act(message)

    def submit(self, submit: Submit) -> list[Output]:
        """Queue a request. A refusal is answered at once, also that of another that made place."""
        assert submit.id not in self._requests, f"request {submit.id!r} is submitted twice"
        assert submit.id not in self._compiling, f"request {submit.id!r} is submitted twice"
        displaced: list[Output] = []
        try:
            self._check(submit)
            displaced = self._find_place(submit)
            if submit.constraint is not None:
                self._compiling.add(submit, submit.constraint)
            else:
                self._enqueue(submit, self._clock())
        except Exception as error:
            return [*displaced, failure(submit.id, error)]
        return displaced

    def _enqueue(self, submit: Submit, submitted: float, matcher: Matcher | None = None) -> None:
        request = self._request(submit, submitted, matcher)
        self._requests[submit.id] = request
        self.scheduler.add(request)

    def cancel(self, id: str) -> list[Output]:
        """End a request now, whatever its state. One that has ended already is left alone."""
        if id in self._compiling:
            self._compiling.remove(id)
            return [Output(id=id, finish_reason=_CANCELLED.finish_reason, timings=Timings())]
        request = self._requests.get(id)
        return [self._finish(request, _CANCELLED)] if request else []

    def act(self, action: SlotAction) -> list[SlotResult]:
        """Begin to save, restore or erase a slot: `work` goes on with it. A refusal is answered at once."""
        try:
            if self._slot_files is None:
                raise NotSupported(
                    "This server does not support slots actions. Start it with `--slot-save-path`"
                )
            job = self._slot_files.start(action, self.scheduler)
        except Exception as error:
            return [SlotResult(id=action.id, error=error_info(action.id, error))]
        self._jobs.append((action, job, self._clock()))
        return []

    def work(self) -> list[SlotResult]:
        """Do a piece of the oldest slot action, if there is one; the result when it is done."""
        if not self._jobs:
            return []
        action, job, started = self._jobs[0]
        try:
            next(job)
            return []
        except StopIteration as stop:
            result: SlotResult = stop.value
            result = msgspec.structs.replace(result, ms=1e3 * (self._clock() - started))
        except IsADirectoryError:
            problem: CorralError = RequestError(
                f"{action.filename!r} is a folder, expected the name of a file"
            )
            result = SlotResult(id=action.id, error=error_info(action.id, problem))
        except OSError as error:
            problem = CorralError(f"can't {action.action} {action.filename}: {error.strerror or error}")
            result = SlotResult(id=action.id, error=error_info(action.id, problem))
        except Exception as error:
            result = SlotResult(id=action.id, error=error_info(action.id, error))
        del self._jobs[0]
        return [result]

    def step(self) -> list[Output]:
        """Compute the next batch, sample, and return what is new."""
        outputs = self._take_compiled() + self._expire()
        parts = self.scheduler.schedule()
        to_tell = [len(part.to_tell) for part in parts]
        if not parts:
            if self._compiling and not outputs:
                self._compiling.wait(COMPILE_POLL_SECONDS)
            return outputs
        started = self._start(parts)
        try:
            logits = self._executor.step(build_batch(parts))  # [S, V]
        except Exception as error:
            return outputs + [self._fail(part.request, error) for part in parts]
        now = self._clock()
        self.scheduler.pace.learn(total_work(parts), now - started)
        outputs += self._progress(parts, now)
        for part in parts:
            self.scheduler.computed(part.request, part.num_new)
        row = 0
        for part, count in zip(parts, to_tell, strict=True):
            rows = logits[row : row + count + (1 + len(part.draft) if part.request.num_todo == 0 else 0)]
            row += len(rows)
            if count:
                outputs.append(self._tell(part.request, rows[:count]))
            if len(rows) > count and part.request.state is State.RUNNING:
                outputs.append(self._advance(part, rows[count:], now))
        assert row == len(logits), f"{len(logits)} rows of logits for {row} places"
        return outputs

    def stats(self) -> Stats:
        pool = self.scheduler.pool
        return Stats(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting) + len(self._compiling),
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

    def _find_place(self, submit: Submit) -> list[Output]:
        """In a full queue, whoever has most waiting makes place for one who has less. Raises Overloaded."""
        try:
            self._check_queue(submit)
        except Overloaded as error:
            loser = self._displaceable(submit)
            if loser is None:
                raise
            reason = "the queue is full, and of all clients yours has most requests in it; try again later"
            return [self._fail(loser, Overloaded(reason, error.retry_after))]
        return []

    def _displaceable(self, submit: Submit) -> Request | None:
        """The newest request of the client that has most waiting, if this one's client would have less."""
        queued = [request for request in self.scheduler.waiting if request.started is None]
        clients = Counter(request.submit.client for request in queued)
        most, count = max(clients.items(), key=itemgetter(1), default=("", 0))
        if most == submit.client or count <= clients[submit.client] + 1:
            return None
        newest = next(request for request in reversed(queued) if request.submit.client == most)
        tokens = sum(request.num_prompt for request in queued) - newest.num_prompt + len(submit.prompt)
        return newest if tokens <= self._limits.max_queue_tokens else None

    def _check_queue(self, submit: Submit) -> None:
        """Whether one more may wait for its turn."""
        limits, scheduler = self._limits, self.scheduler
        queued = [request.num_prompt for request in scheduler.waiting if request.started is None]
        queued += [len(waiting.prompt) for waiting in self._compiling.submits]
        free = limits.sequences - len(scheduler.running)
        if len(queued) < free:
            return
        queued = queued[free:]
        tokens = sum(queued)
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

    def _take_compiled(self) -> list[Output]:
        """Queue the requests whose grammar is ready; those that have none end."""
        failed = []
        for submit, since, result in self._compiling.take():
            if isinstance(result, Exception):
                failed.append(failure(submit.id, result))
            else:
                self._enqueue(submit, since, result)
        return failed

    def _request(self, submit: Submit, submitted: float, matcher: Matcher | None) -> Request:
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
                matcher,
                len(submit.prompt),
            ),
            text=TextStream(self._text, submit.stop, submit.special, submit.least_indent),
            draft=NgramDraft(self._draft) if self._draft else None,
            tokens=list(submit.prompt),
            submitted=submitted,
        )

    def _start(self, parts: Sequence[Part]) -> float:
        now = self._clock()
        for part in parts:
            if part.request.started is None:
                part.request.started = now
        self._counters.steps += 1
        self._counters.step_sequences += len(parts)
        return now

    def _progress(self, parts: Sequence[Part], now: float) -> list[Output]:
        """For those that want to know, how far their prompt is after the step that has just been done."""
        return [
            Output(id=part.request.id, id_slot=part.request.slot, progress=_progress_of(part, now))
            for part in parts
            if part.request.submit.progress and not part.request.num_generated
        ]

    def _tell(self, request: Request, rows: Float32) -> Output:
        """How likely the next prompt tokens are that have not been told of, by the logits of those before."""
        first = request.num_told
        try:
            infos = [
                self._info(request, token, prompt_log_probs(row, token, request.submit.sampling.n_probs))
                for row, token in zip(rows, request.tokens[first : first + len(rows)], strict=True)
            ]
        except Exception as error:
            return self._fail(request, error)
        request.num_told += len(infos)
        return Output(id=request.id, prompt_infos=infos, id_slot=request.slot)

    def _advance(self, part: Part, rows: Float32, now: float) -> Output:
        """Sample from the logits [1 + guesses, V] of a request's last token and of those that were guessed.

        A failure concerns this request only.
        """
        request = part.request
        try:
            if request.first_token is None:
                self._count_prompt(request, now)
            if request.max_new == 0:  # only the prompt was to be computed
                return self._finish(request, _LIMIT)
            return self._add_tokens(part, rows, now)
        except Exception as error:
            return self._fail(request, error)

    def _add_tokens(self, part: Part, rows: Float32, now: float) -> Output:
        """One token, and one more for each guess that the sampler chooses too."""
        request = part.request
        tokens: list[int] = []
        infos: list[TokenInfo] = []
        text = ""
        ending = None
        for row in rows:
            token = request.chain.sample(row, request.tokens)
            infos += self._infos(request, token)
            text += request.text.feed(token)
            request.tokens.append(token)
            tokens.append(token)
            request.has_line_break = request.has_line_break or "\n" in text
            self._count(request, now)
            if ending := self._ending(request, token, now):
                break
            if request.num_tokens >= self._limits.n_ctx:
                self._shift(request)
                break
            if len(tokens) > len(part.draft) or token != part.draft[len(tokens) - 1]:
                break
            self.scheduler.computed(request, 1)
        self._count_draft(part, tokens)
        if ending:
            return self._finish(request, ending, text, tokens, infos)
        return Output(
            id=request.id,
            text=text,
            tokens=tokens,
            infos=infos,
            id_slot=request.slot,
            timings=request.timings(now) if request.submit.timings_per_token else None,
        )

    def _count_draft(self, part: Part, tokens: Sequence[int]) -> None:
        if not part.draft or part.request.draft is None:
            return
        pairs = zip(tokens, part.draft, strict=False)
        accepted = next((i for i, (token, guess) in enumerate(pairs) if token != guess), None)
        accepted = min(len(tokens), len(part.draft)) if accepted is None else accepted
        part.request.draft.learn(len(part.draft), accepted)
        counters = self._counters
        counters.drafts += 1
        counters.draft_tokens += len(part.draft)
        counters.draft_accepted += accepted
        counters.draft_accepted_at += [0] * (accepted - len(counters.draft_accepted_at))
        for i in range(accepted):
            counters.draft_accepted_at[i] += 1

    def _shift(self, request: Request) -> None:
        """Make room in a full context."""
        submit = request.submit
        keep = submit.n_keep if submit.n_keep >= 0 else request.num_prompt
        keep = min(keep, max(0, self._limits.n_ctx - 4))
        rest = request.num_tokens - keep
        discard = min(submit.n_discard or rest // 2, rest - 1)
        self.scheduler.shift(request, keep, max(1, discard))
        request.chain.shift(max(1, discard))

    def _ending(self, request: Request, token: int, now: float) -> Ending | None:
        if request.text.has_short_line:
            return _LIMIT
        if request.text.stopping_word:
            return _WORD
        if token in self._text.eog or request.chain.is_complete:
            return _EOS
        return _LIMIT if request.num_generated >= request.max_new or _is_late(request, now) else None

    def _infos(self, request: Request, token: int) -> list[TokenInfo]:
        probs = request.chain.log_probs(token)
        return [] if probs is None else [self._info(request, token, probs)]

    def _info(self, request: Request, token: int, probs: LogProbs) -> TokenInfo:
        piece = request.text.piece
        top = [TopToken(other, piece(other), value) for other, value in probs.top]
        return TokenInfo(token, piece(token), probs.chosen, top, probs.post_sampling)

    def _count_prompt(self, request: Request, now: float) -> None:
        assert request.started is not None
        request.first_token = now
        self._counters.prompt_tokens += request.num_prompt - request.num_cached
        self._counters.cached_tokens += request.num_cached
        if request.shares_prefix:
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
        return failure(request.id, error)

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


def _progress_of(part: Part, now: float) -> Progress:
    request, count = part.request, part.num_new
    started = now if request.started is None else request.started
    return Progress(
        total=request.num_prompt,
        cache=request.num_cached,
        processed=min(request.num_computed_tokens + count, request.num_prompt),
        time_ms=1e3 * (now - started),
    )


def build_batch(parts: Sequence[Part]) -> Batch:
    """The step's tokens end to end, and where each sequence's are kept."""
    starts = [part.request.num_computed_tokens for part in parts]
    ends = [start + part.num_new for start, part in zip(starts, parts, strict=True)]
    counts = [part.num_new + len(part.draft) for part in parts]
    query_start = np.cumsum([0, *counts], dtype=np.int32)
    block_tables = np.zeros((len(parts), max(len(part.request.block_table) for part in parts)), np.int32)
    tokens: list[int] = []
    logit_rows: list[int] = []
    for part, start, end, table in zip(parts, starts, ends, block_tables, strict=True):
        table[: len(part.request.block_table)] = part.request.block_table
        logit_rows += range(len(tokens) + part.to_tell.start - start, len(tokens) + part.to_tell.stop - start)
        tokens += part.request.tokens[start:end]
        if end == part.request.num_tokens:
            logit_rows += range(len(tokens) - 1, len(tokens) + len(part.draft))
        tokens += part.draft
    positions = [
        np.arange(start, start + count, dtype=np.int32) for start, count in zip(starts, counts, strict=True)
    ]
    return Batch(
        tokens=np.array(tokens, np.int32),
        positions=np.concatenate(positions),
        query_start=query_start,
        context_len=np.array(starts, np.int32) + np.diff(query_start),
        block_tables=block_tables,
        logit_rows=np.array(logit_rows, np.int32),
    )


def failure(id: str, error: Exception) -> Output:
    """How a request ends that can't be served, or that met a bug of ours."""
    return Output(id=id, finish_reason="error", error=error_info(id, error))


def error_info(id: str, error: Exception) -> ErrorInfo:
    """For the envelope of the request `id`; a bug of ours is logged."""
    if not isinstance(error, CorralError):
        log.error("request %s failed", id, exc_info=error)
        error = InternalError(f"the engine failed on this request: {type(error).__name__}: {error}")
    return ErrorInfo(
        status=error.status,
        type=error.type,
        message=str(error),
        extra=error.extra(),
        retry_after=error.retry_after,
    )
