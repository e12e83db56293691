"""Running one or several generations for a request, and ending them when the client has gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any

from corral.engine.messages import INPUTS_AT_ONCE, ErrorInfo, Output, Submit, Timings
from corral.errors import CorralError, Unavailable
from corral.server.state import Engine

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientGone(Exception):
    """The client closed the connection: nobody is there to answer."""


class GenerationFailed(CorralError):
    """The engine ended a request with an error, which becomes the response's."""

    def __init__(self, info: ErrorInfo) -> None:
        self.status, self.type, self._extra = info.status, info.type, info.extra
        self.retry_after = info.retry_after
        super().__init__(info.message)

    def extra(self) -> dict[str, Any]:
        return dict(self._extra)


class Generations:
    """Several requests of the engine as one stream of (index, Output).

    However many there are, only some are with the engine at a time: a request with hundreds of prompts must
    not find the queue full of its own.

    An async context: leaving it, in whatever way, cancels what still runs. `receive` is the ASGI channel,
    read from here on; it says when the client is gone, also while nothing is being written.
    """

    def __init__(self, engine: Engine, submits: Sequence[Submit], receive: Receive) -> None:
        self._engine, self._submits, self._receive = engine, submits, receive
        self._queue: asyncio.Queue[tuple[int, Output] | Exception] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._places = asyncio.Semaphore(INPUTS_AT_ONCE)
        self.running = len(submits)
        self.timings: list[Timings] = []
        """Of those that have ended."""

    async def __aenter__(self) -> Generations:
        self._tasks = [asyncio.create_task(self._run(i, s)) for i, s in enumerate(self._submits)]
        self._tasks.append(asyncio.create_task(self._watch()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def next(self, timeout: float | None = None) -> tuple[int, Output] | None:
        """The next output; None when there was none for `timeout` seconds.

        Raises GenerationFailed, Unavailable, ClientGone. Not to be called once `running` is 0.
        """
        if self._queue.empty():
            try:
                async with asyncio.timeout(timeout):
                    item = await self._queue.get()
            except TimeoutError:
                return None
        else:
            item = self._queue.get_nowait()
        if isinstance(item, Exception):
            raise item
        output = item[1]
        if output.finish_reason is not None:
            self.running -= 1
            if output.timings is not None:
                self.timings.append(output.timings)
        if output.finish_reason == "error":
            raise GenerationFailed(
                output.error or ErrorInfo(500, "server_error", "the engine gave no reason")
            )
        if output.finish_reason == "cancelled":
            raise Unavailable("The request was cancelled because the server is shutting down")
        return item

    async def _run(self, index: int, submit: Submit) -> None:
        try:
            async with self._places, aclosing(self._engine.generate(submit)) as outputs:
                async for output in outputs:
                    self._queue.put_nowait((index, output))
                    if output.finish_reason is not None:
                        return
            raise AssertionError(f"the engine ended request {submit.id} without a finish_reason")
        except Exception as error:
            self._queue.put_nowait(error)

    async def _watch(self) -> None:
        with contextlib.suppress(Exception):
            while (await self._receive())["type"] != "http.disconnect":
                pass
        self._queue.put_nowait(ClientGone())
