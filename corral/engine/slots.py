"""The numbers of the sequences that run at the same time, and who had each last."""

from __future__ import annotations

from collections import OrderedDict

from corral.engine.messages import SlotStats
from corral.engine.request import Request, State


class Slots:
    """A slot is a place among those that run: no memory belongs to it, only the request that is in it.

    It remembers its last request, so that what that one left in the prefix cache can be saved by the slot's
    number.
    """

    def __init__(self, count: int) -> None:
        self.last: list[Request | None] = [None] * count
        self._restored: dict[int, list[int]] = {}
        self._free = OrderedDict.fromkeys(range(count))  # the one free for the longest time first

    @property
    def count(self) -> int:
        return len(self.last)

    def is_taken(self, slot: int) -> bool:
        return slot not in self._free

    def content(self, slot: int) -> list[int]:
        """The tokens that the slot's request has computed, or that were restored since then."""
        if slot in self._restored:
            return self._restored[slot]
        request = self.last[slot]
        if request is None or request.slot != slot:
            return []
        return request.tokens[: request.num_computed_tokens]

    def set_content(self, slot: int, tokens: list[int]) -> None:
        """What a free slot is said to hold."""
        assert not self.is_taken(slot), f"slot {slot} is in use"
        self._restored[slot] = tokens

    def take(self, request: Request) -> None:
        """Give a request the slot it would like, else the one that was used last the longest time ago."""
        wanted = request.submit.id_slot
        slot = wanted if wanted in self._free else next(iter(self._free))
        del self._free[slot]
        self._restored.pop(slot, None)
        self.last[slot] = request
        request.slot = slot

    def give_back(self, request: Request) -> None:
        self._free[request.slot] = None

    def stats(self) -> list[SlotStats]:
        return [_stats(id, request) for id, request in enumerate(self.last)]

    def check(self, running: list[Request]) -> None:
        """Assert that those that run, and nobody else, have a slot each."""
        taken = [slot for slot in range(len(self.last)) if slot not in self._free]
        assert sorted(request.slot for request in running) == taken
        assert all(self.last[request.slot] is request for request in running)


def _stats(id: int, request: Request | None) -> SlotStats:
    if request is None:
        return SlotStats(id)
    running = request.state is State.RUNNING and request.slot == id
    return SlotStats(
        id=id,
        is_processing=running,
        request=request.id,
        task=request.arrival,
        n_prompt_tokens=request.num_prompt,
        n_prompt_tokens_processed=max(0, request.num_prompt_done - request.num_cached),
        n_prompt_tokens_cache=request.num_cached,
        n_decoded=request.num_generated if running else 0,
        n_remain=max(0, request.max_new - request.num_generated) if running else -1,
    )
