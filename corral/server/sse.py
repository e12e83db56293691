"""Server-sent events: framing, pings, and errors before and after the first byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from corral.engine.messages import Output
from corral.errors import CorralError
from corral.server.errors import as_corral_error, envelope
from corral.server.generation import ClientGone, Generations

DONE = b"data: [DONE]\n\n"
PING = b":\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back
]

_encoder = msgspec.json.Encoder()


def frame(value: Any) -> bytes:
    """One event with a JSON value."""
    return b"data: " + _encoder.encode(value) + b"\n\n"


def named_frames(values: Iterable[Mapping[str, Any]]) -> bytes:
    """Events that say their `type` twice: as the event's name too."""
    return b"".join(b"event: " + value["type"].encode() + b"\n" + frame(value) for value in values)


def failure(error: CorralError) -> bytes:
    """The event of an error in the middle of a stream."""
    return frame(envelope(error))


class EventStream:
    """The response of a streaming endpoint: an ASGI application.

    `first` and what `generations` still gives go through `events(index, output)`, which returns the bytes for
    it; `last()` gives the end of the stream, or `failed(error)` when something fails. A silence of
    `ping_seconds` is broken with `ping`. A client that takes nothing for `write_seconds` counts as gone. The
    generations are closed in every case. `scope["outcome"]` says
    what went wrong, for the log.
    """

    def __init__(
        self,
        generations: Generations,
        first: tuple[int, Output] | None,
        events: Callable[[int, Output], bytes],
        last: Callable[[], bytes],
        failed: Callable[[CorralError], bytes],
        ping: bytes,
        ping_seconds: float | None,
        write_seconds: float,
    ) -> None:
        self._generations, self._first, self._events = generations, first, events
        self._last, self._failed = last, failed
        self._ping, self._ping_seconds, self._write_seconds = ping, ping_seconds, write_seconds
        self._outcome = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(body: bytes, more: bool = True) -> None:
            if body or not more:
                async with asyncio.timeout(self._write_seconds):
                    await send({"type": "http.response.body", "body": body, "more_body": more})

        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            async for body in self._body():
                await write(body)
            await write(b"", more=False)
        except ClientGone:
            self._outcome = "the client left"
        except TimeoutError:
            self._outcome = f"the client has taken nothing for {self._write_seconds:g} s"
        finally:
            scope["outcome"] = self._outcome
            await self._generations.close()

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            item = self._first
            while True:
                yield self._ping if item is None else self._events(*item)
                if not self._generations.running:
                    break
                item = await self._generations.next(self._ping_seconds)
            yield self._last()
        except ClientGone:
            raise
        except Exception as error:
            known = as_corral_error(error)
            self._outcome = str(known)
            yield self._failed(known)
