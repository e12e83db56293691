"""Bodies for which there is no memory: refused, not read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fake_engine import fake_state

from corral.errors import Overloaded, PayloadTooLarge
from corral.server.body_memory import FACTOR, SMALL, BodyMemory

MIB = 1 << 20


def body(size: int) -> bytes:
    head, tail = b'{"prompt": "', b'"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


@pytest.mark.parametrize("size", [SMALL, 3 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_needs_memory(size: int, chunked: bool, connected: Any) -> None:
    state = fake_state()
    state.memory_left = lambda: 29 * MIB
    content = body(size)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, size, 1 << 16):
            yield content[at : at + (1 << 16)]

    async with connected(state) as client:
        sent = chunks() if chunked else content
        response: httpx.Response = await client.post("/tokenize", content=sent)
        assert (await client.post("/completion", json={"prompt": "hi"})).status_code == 200
    if size <= SMALL:
        assert response.status_code != 413
        return
    assert response.status_code == 413
    message = response.json()["error"]["message"]
    assert message.endswith("30 MiB of memory are needed; the server has 29 MiB left")


async def test_without_a_limit_and_within_it_bodies_are_read(connected: Any) -> None:
    for left in (None, 30 * MIB):
        state = fake_state()
        state.memory_left = lambda left=left: left
        async with connected(state) as client:
            response = await client.post("/tokenize", content=body(3 * MIB))
            assert response.json() == {"tokens": []}  # there is no content


def scope(size: int) -> dict[str, Any]:
    return {"type": "http", "headers": [(b"content-length", b"%d" % size)]}


async def nothing(*_: Any) -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def test_what_others_were_granted_is_not_there_until_their_answer_begins() -> None:
    size = 2 * MIB
    said: list[type[Exception] | None] = []

    async def inner(_scope: Any, _receive: Any, _send: Any) -> None:
        pass

    async def outer(_scope: Any, _receive: Any, send: Any) -> None:
        for begun in (False, True):
            if begun:
                await send({"type": "http.response.start"})
            memory.app = inner
            try:
                await memory(scope(size), nothing, nothing)
                said.append(None)
            except (Overloaded, PayloadTooLarge) as error:
                said.append(type(error))

    memory = BodyMemory(outer, left=lambda: size * FACTOR * 3 // 2, most=64 * MIB)
    await memory(scope(size), nothing, nothing)
    assert said == [Overloaded, None]


async def test_one_beyond_the_most_is_left_to_others() -> None:
    async def app(*_: Any) -> None:
        pass

    await BodyMemory(app, left=lambda: 0, most=2 * MIB)(scope(3 * MIB), nothing, nothing)
    with pytest.raises(PayloadTooLarge):
        await BodyMemory(app, left=lambda: 0, most=3 * MIB)(scope(3 * MIB), nothing, nothing)
