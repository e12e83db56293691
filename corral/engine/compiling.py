"""Requests whose grammar is being compiled: they come to the scheduler when it is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import NamedTuple

from corral.engine.messages import Constraint, Submit
from corral.errors import Overloaded, RequestError
from corral.sampling.constraint import Grammars, Matcher

MOST_WAITING = 256
MOST_SECONDS = 20.0
"""A grammar that takes longer is refused; what it computes is thrown away."""


class Compiled(NamedTuple):
    """`result` is an exception when there is no matcher."""

    submit: Submit
    since: float
    """When it was submitted, on the engine's clock."""
    result: Matcher | Exception


class _Waiting(NamedTuple):
    submit: Submit
    since: float
    future: Future[Matcher]


class Compiling:
    def __init__(self, grammars: Grammars, clock: Callable[[], float]) -> None:
        self._grammars, self._clock = grammars, clock
        self._waiting: dict[str, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, id: str) -> bool:
        return id in self._waiting

    @property
    def submits(self) -> Iterator[Submit]:
        return (waiting.submit for waiting in self._waiting.values())

    def add(self, submit: Submit, constraint: Constraint) -> None:
        """Raises Overloaded."""
        if len(self._waiting) >= MOST_WAITING:
            raise Overloaded(f"{len(self._waiting)} grammars wait to be compiled already; try again later")
        future = self._grammars.compile(constraint.kind, constraint.text)
        self._waiting[submit.id] = _Waiting(submit, self._clock(), future)

    def remove(self, id: str) -> None:
        """Forget a request that waits here."""
        self._waiting.pop(id).future.cancel()

    def take(self) -> list[Compiled]:
        """Those that are ready, or have failed; they no longer wait here."""
        now = self._clock()
        taken = [w for w in self._waiting.values() if w.future.done() or now - w.since > MOST_SECONDS]
        for waiting in taken:
            self.remove(waiting.submit.id)
        return [Compiled(w.submit, w.since, _result(w.future)) for w in taken]

    def wait(self, seconds: float) -> None:
        """Sleep until one is ready, at most so long."""
        wait([w.future for w in self._waiting.values()], seconds, FIRST_COMPLETED)


def _result(future: Future[Matcher]) -> Matcher | Exception:
    if not future.done() or future.cancelled():
        return RequestError(
            f"the grammar took more than {MOST_SECONDS:g} s to compile, expected a simpler one"
        )
    error = future.exception()
    if error is None:
        return future.result()
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
