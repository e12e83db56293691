"""An engine in a thread of this process: for tests, with the interface of `client.EngineClient`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from queue import SimpleQueue

from corral.engine import loop
from corral.engine.client import Client
from corral.engine.engine import Engine
from corral.engine.messages import Ready, ToEngine, ToServer


class LocalClient(Client):
    """Runs the steps of `engine` in a thread."""

    def __init__(self, engine: Engine, ready: Ready) -> None:
        super().__init__()
        self._loaded = loop.LoadedModel(engine, ready)
        self._inbox: loop.Inbox = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        event_loop = asyncio.get_running_loop()

        def send(messages: Sequence[ToServer]) -> None:
            event_loop.call_soon_threadsafe(self._receive, list(messages))

        def run() -> None:
            try:
                loop.run(self._loaded, self._inbox, send)
            except Exception as error:
                reason = f"the engine failed: {type(error).__name__}: {error}"
                event_loop.call_soon_threadsafe(self._fail, reason)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    async def close(self, timeout: float = 5.0) -> None:
        if self._thread is None:
            return
        self._fail("The server is shutting down")
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join, timeout)

    def _send(self, message: ToEngine) -> None:
        self._inbox.put(message)
