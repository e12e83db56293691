"""Memory for large bodies: what the container has left decides whether one is read.

The plan at start is for the model, and leaves little where `--ctx-size` takes what there is. A body of many
megabytes, most likely a mistake, must get an answer and not the kernel's end of the whole container.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.errors import Overloaded, PayloadTooLarge
from corral.system.budget import mib

SMALL = 1 << 20
"""Bytes of a body that nobody asks about."""
FACTOR = 10
"""Memory that a byte of a body takes while it becomes a prompt. Measured: 2 to 4 for one long text, 5 for
token ids, 9 for many short messages."""


class BodyMemory:
    """Refuses a body for which there is no memory: 413 if it could not be read alone, else 429.

    `left` says how many bytes the container has left, None if nobody knows. Memory that was granted stays so
    until the answer begins: by then the body has become tokens. One above `most` bytes is not read anyway.
    """

    def __init__(self, app: ASGIApp, left: Callable[[], int | None], most: int) -> None:
        self.app, self._left, self._most, self._granted = app, left, most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        mine = come = 0

        def grant(size: int) -> None:
            nonlocal mine
            more = size * FACTOR - mine
            if SMALL < size <= self._most and more > 0:
                self._check(size, others=self._granted - mine)
                mine += more
                self._granted += more

        def give_back() -> None:
            nonlocal mine
            self._granted -= mine
            mine = 0

        async def counted() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            grant(come)
            return message

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                give_back()
            await send(message)

        try:
            grant(int(declared) if declared.isdecimal() else 0)
            await self.app(scope, counted, watched)
        finally:
            give_back()

    def _check(self, size: int, others: int) -> None:
        left, needed = self._left(), size * FACTOR
        if left is None or needed <= left - others:
            return
        message = (
            f"The body has {size} bytes, for which {mib(needed)} of memory are needed; "
            f"the server has {mib(left)} left"
        )
        if not others:
            raise PayloadTooLarge(message)
        raise Overloaded(f"{message}, of which {mib(others)} are for other requests")
