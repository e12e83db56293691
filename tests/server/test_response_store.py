from __future__ import annotations

import pytest

from corral.errors import NotFound, RequestError
from corral.server.response_store import ResponseStore


def response(id: str, text: str = "") -> dict[str, object]:
    return {"id": id, "output": [text]}


def test_history_is_the_whole_conversation_oldest_first() -> None:
    store = ResponseStore()
    store.put(response("a", "a said"), ["a asked"], None)
    store.put(response("b", "b said"), ["b asked", "b asked more"], "a")
    assert store.history("b") == ["a asked", "a said", "b asked", "b asked more", "b said"]


def test_a_lost_link_is_a_mistake_of_the_request() -> None:
    store = ResponseStore()
    store.put(response("a"), [], None)
    store.put(response("b"), [], "a")
    store.delete("a")
    with pytest.raises(RequestError, match="'previous_response_id': response 'a' not found"):
        store.history("b")


def test_delete() -> None:
    store = ResponseStore()
    store.put(response("a"), [], None)
    store.delete("a")
    assert store.n_bytes == 0
    with pytest.raises(NotFound, match="'a'"):
        store.get("a")
    with pytest.raises(NotFound):
        store.delete("a")


def test_the_oldest_go_first() -> None:
    store = ResponseStore(max_count=2)
    for id in "abc":
        store.put(response(id), [], None)
    with pytest.raises(NotFound):
        store.get("a")
    assert store.get("b").previous is None


def test_a_conversation_in_use_stays() -> None:
    store = ResponseStore(max_count=2)
    store.put(response("a"), [], None)
    store.put(response("b"), [], None)
    store.history("a")
    store.put(response("c"), [], None)
    assert store.get("a")
    with pytest.raises(NotFound):
        store.get("b")


def test_bytes_are_bounded_and_counted() -> None:
    store = ResponseStore(max_bytes=1000)
    for i in range(50):
        store.put(response(str(i), "x" * (i * 7 % 400)), [], None)
        kept = [len(s.response) + len(s.items) for s in store._stored.values()]
        assert sum(kept) == store.n_bytes <= 1000
    store.put(response("big", "x" * 1000), [], None)
    with pytest.raises(NotFound):
        store.get("big")
    assert store.get("49")
