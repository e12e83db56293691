"""The engine's main loop, the same in a process and in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from corral.config import EngineConfig, ModelConfig
from corral.engine.messages import Output, Ready, Stats, Status, ToEngine, ToServer
from corral.errors import CorralError

Inbox = SimpleQueue[ToEngine | CorralError | None]
"""Messages for the engine; None ends the loop, an error is raised by it."""
Send = Callable[[Sequence[ToServer]], None]


class Engine(Protocol):
    """What the loop asks of an engine: `engine.Engine` generates, `embedder.Embedder` embeds."""

    @property
    def has_work(self) -> bool: ...

    @property
    def load(self) -> tuple[int, int]:
        """Requests that run, and that wait."""
        ...

    def handle(self, message: ToEngine) -> Sequence[ToServer]: ...

    def work(self) -> Sequence[ToServer]:
        """A piece of what is to be done besides the steps."""
        ...

    def step(self) -> Sequence[Output]: ...

    def stats(self) -> Stats: ...


@dataclass(frozen=True)
class LoadedModel:
    """An engine that can take requests, and what was decided for it."""

    engine: Engine
    ready: Ready
    beside: Callable[[], None] | None = None
    """To be run in a thread beside the steps; should it raise a CorralError, the engine must not go on."""


Progress = Callable[[float, str], None]
"""Told while loading: the share done, 0 to 1, and what is going on."""
Loader = Callable[[ModelConfig, EngineConfig, Progress], LoadedModel]


def run(loaded: LoadedModel, inbox: Inbox, send: Send) -> None:
    """Say that it is ready, take in messages, step, send what is new; sleep while there is nothing to do.

    Returns at a None.
    """
    engine = loaded.engine
    reports = Reports(loaded)
    while True:
        news: list[ToServer] = list(reports.due(time.monotonic()))
        if news and not engine.has_work:
            send(news)
            news = []
        for message in _drain(inbox, wait=not engine.has_work):
            if message is None:
                return
            if isinstance(message, CorralError):
                raise message
            news += engine.handle(message)
        news += engine.work()
        news += engine.step()
        if news:
            send(news)


class Reports:
    """Decides when the server hears how the engine is.

    At once when it has become idle, soon after requests came or went, and now and then while it works.
    """

    CHANGE_SECONDS = 0.1
    WORK_SECONDS = 1.0

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._sent = -self.WORK_SECONDS
        self._last: Stats | None = None

    def due(self, now: float) -> list[Status]:
        """The status, if it should be sent now (seconds)."""
        engine = self._loaded.engine
        if self._last is not None and engine.has_work:
            changed = engine.load != (self._last.running, self._last.waiting)
            if now - self._sent < (self.CHANGE_SECONDS if changed else self.WORK_SECONDS):
                return []
        stats = engine.stats()
        if stats == self._last:
            return []
        self._sent, self._last = now, stats
        return [Status(state="ready", progress=1.0, ready=self._loaded.ready, stats=stats)]


def _drain(inbox: Inbox, wait: bool) -> list[ToEngine | CorralError | None]:
    messages = [inbox.get()] if wait else []
    try:
        while True:
            messages.append(inbox.get_nowait())
    except Empty:
        return messages
