"""Responses that can be asked for again, or gone on from: in memory, bounded, the oldest go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from corral.errors import NotFound, RequestError


@dataclass(frozen=True)
class Stored:
    """A response and the input that was new with it, as JSON. `previous` is the id it went on from."""

    response: bytes
    items: bytes
    previous: str | None

    @property
    def n_bytes(self) -> int:
        return len(self.response) + len(self.items)


class ResponseStore:
    """At most `max_count` responses with `max_bytes` together. A response larger than that is not kept."""

    def __init__(self, max_count: int = 1024, max_bytes: int = 32 << 20) -> None:
        self.max_count, self.max_bytes = max_count, max_bytes
        self._stored: OrderedDict[str, Stored] = OrderedDict()
        self.n_bytes = 0

    def put(self, response: dict[str, Any], items: Sequence[Any], previous: str | None) -> None:
        stored = Stored(msgspec.json.encode(response), msgspec.json.encode(items), previous)
        if stored.n_bytes > self.max_bytes:
            return
        self._stored[response["id"]] = stored
        self.n_bytes += stored.n_bytes
        while len(self._stored) > self.max_count or self.n_bytes > self.max_bytes:
            self.n_bytes -= self._stored.popitem(last=False)[1].n_bytes

    def get(self, id: str) -> Stored:
        """Raises NotFound."""
        if id not in self._stored:
            raise NotFound(f"Response {id[:80]!r} not found: it was deleted, not stored, or is too old")
        return self._stored[id]

    def delete(self, id: str) -> None:
        """Raises NotFound."""
        self.n_bytes -= self.get(id).n_bytes
        del self._stored[id]

    def history(self, id: str) -> list[Any]:
        """The items of the conversation that ended with response `id`, oldest first. Raises RequestError."""
        turns: list[list[Any]] = []
        link: str | None = id
        while link is not None:
            if link not in self._stored:
                raise RequestError(
                    f"Field 'previous_response_id': response {link[:80]!r} not found: "
                    "it was deleted, not stored, or is too old"
                )
            stored = self._stored[link]
            self._stored.move_to_end(link)
            output = msgspec.json.decode(stored.response)["output"]
            turns.append([*msgspec.json.decode(stored.items), *output])
            link = stored.previous
        return [item for turn in reversed(turns) for item in turn]
