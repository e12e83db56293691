"""Sees every output on its way from the engine to whoever asked for it, and remembers what others report."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from corral.engine.messages import Output, SlotAction, SlotResult, Status, Submit

if TYPE_CHECKING:  # the state has an observer
    from corral.server.state import WholeEngine

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0)
"""Seconds: the upper ends of the buckets of times that last."""
TOKEN_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
"""The same for the time between two tokens."""


class Histogram:
    """Counts by bucket. `counts[i]` has the values in (bounds[i - 1], bounds[i]], the last one the rest."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass
class Seen:
    """What was seen of one request."""

    submit: Submit
    """Without the prompt, which may be long."""
    has_new_line: bool = False


@dataclass
class Observer:
    """Totals since the server started, and the newest request of every slot.

    An output costs about a microsecond.
    """

    clock: Callable[[], float] = time.perf_counter
    first_token: Histogram = field(default_factory=lambda: Histogram(LATENCY))
    """Seconds from the request to its first token."""
    next_token: Histogram = field(default_factory=lambda: Histogram(TOKEN_LATENCY))
    """Seconds from one output with tokens to the next."""
    queue: Histogram = field(default_factory=lambda: Histogram(LATENCY))
    """Seconds until a request was first computed."""
    whole: Histogram = field(default_factory=lambda: Histogram(LATENCY))
    """Seconds from the request to its last output."""
    endings: Counter[str] = field(default_factory=Counter)
    """Generations by finish_reason."""
    responses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Responses by (route, status)."""
    slots: dict[int, Seen] = field(default_factory=dict)
    """By the number of the slot; as many as the engine has."""

    def watch(self, engine: WholeEngine) -> WholeEngine:
        """The engine, with this observer at its outputs."""
        return _Watched(engine, self)

    async def follow(
        self, submit: Submit, outputs: AsyncGenerator[Output, None]
    ) -> AsyncGenerator[Output, None]:
        """The same outputs."""
        seen = Seen(msgspec.structs.replace(submit, prompt=[]))
        began = self.clock()
        last: float | None = None
        slot = -1
        async with aclosing(outputs):
            async for output in outputs:
                if output.id_slot != slot:
                    slot = output.id_slot
                    self.slots[slot] = seen
                seen.has_new_line = seen.has_new_line or "\n" in output.text
                if output.tokens:
                    now = self.clock()
                    if last is None:
                        self.first_token.observe(now - began)
                    else:
                        self.next_token.observe(now - last)
                    last = now
                if output.finish_reason is not None:
                    self._finished(output, began)
                yield output

    def _finished(self, output: Output, began: float) -> None:
        self.endings[output.finish_reason or ""] += 1
        self.whole.observe(self.clock() - began)
        if output.timings is not None:
            self.queue.observe(output.timings.queue_ms / 1e3)


@dataclass(frozen=True)
class _Watched:
    engine: WholeEngine
    observer: Observer

    @property
    def status(self) -> Status:
        return self.engine.status

    @property
    def restarts(self) -> int:
        return self.engine.restarts

    @property
    def pid(self) -> int | None:
        return self.engine.pid

    async def act(self, action: SlotAction, /) -> SlotResult:
        return await self.engine.act(action)

    def generate(self, submit: Submit, /) -> AsyncGenerator[Output, None]:
        return self.observer.follow(submit, self.engine.generate(submit))
