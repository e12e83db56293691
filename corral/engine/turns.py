"""Whose turn it is when several wait: clients come in turns, and so do the connections of one client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from corral.engine.messages import Submit

Name = tuple[str, ...]
"""A client, or a client and one of its connections."""
MOST_NAMES = 4096
"""Of more, those are forgotten that had their turn the longest time ago."""


class Turns:
    """Who has the fewest running is next; of those, who has had the fewest turns.

    As in start-time fair queueing (Goyal, Vin, Cheng 1996), turns are numbered: whoever begins to wait has
    the turn that is on, or the one after his own last. So neither who comes anew nor who has much waiting
    keeps others waiting for more than a turn. When nobody waited, all begin anew.
    """

    def __init__(self) -> None:
        self._next: dict[Name, int] = {}
        self._now = 0

    def begin(self, submit: Submit, waiting: Iterable[Submit]) -> None:
        """A request joins those that wait."""
        others = {name for other in waiting for name in names(other)}
        if not others:
            self._next.clear()
            self._now = 0
        for name in names(submit):
            if name not in others:
                self._next[name] = max(self._now, self._next.get(name, 0))

    def order(self, submit: Submit, running: Counter[Name]) -> tuple[int, ...]:
        """The least is next; equal ones in the order of their arrival. `running`: see `tally`."""
        return tuple(
            value for name in names(submit) for value in (running[name], self._next.get(name, self._now))
        )

    def take(self, submit: Submit) -> None:
        """A request has its turn."""
        client, connection = names(submit)
        self._now = max(self._now, self._next.get(client, 0))
        for name in (client, connection):
            self._next[name] = self._next.pop(name, self._now) + 1
        while len(self._next) > MOST_NAMES:
            del self._next[next(iter(self._next))]


def names(submit: Submit) -> tuple[Name, Name]:
    return (submit.client,), (submit.client, submit.connection)


def tally(submits: Iterable[Submit]) -> Counter[Name]:
    """How many each has."""
    return Counter(name for submit in submits for name in names(submit))
