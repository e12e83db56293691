"""An engine that is started anew when its process dies."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable

from corral.engine.client import Client
from corral.engine.messages import Output, Ready, SlotAction, SlotResult, Status, Submit
from corral.errors import Unavailable

log = logging.getLogger("corral.server")

FIRST_DELAY = 0.5
"""Seconds before the second new start in a row (the first is at once), and twice as many before the next."""
STARTS = 5
"""New starts in a row before giving up: whoever started the server may do better."""
STEADY_SECONDS = 10.0
"""An engine that served this long did not die of its start: counting begins again."""


class Supervisor:
    """The engine as the server sees it (`state.Engine`): one client after another, each with its own process.

    The requests of an engine that dies get an error each. Until the next one is ready the status is
    "loading"; "failed" is final.
    """

    def __init__(self, make: Callable[[], Client], first_delay: float = FIRST_DELAY) -> None:
        self._make, self._first_delay = make, first_delay
        self._client: Client | None = None
        self._restarting = False
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The engine's process."""
        return self._client.pid if self._client else None

    @property
    def status(self) -> Status:
        return Status(state="loading") if self._restarting or not self._client else self._client.status

    def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
        """See Client.generate."""
        return self._started().generate(submit)

    async def act(self, action: SlotAction) -> SlotResult:
        """See Client.act."""
        return await self._started().act(action)

    async def start(self) -> None:
        """Start the first engine; it loads while the caller goes on."""
        self._client = self._make()
        await self._client.start()

    async def wait_ready(self) -> Ready:
        """Wait for the engine. Raises Unavailable when it failed: starting it again would not help."""
        return await self._started().wait_ready()

    async def close(self, timeout: float) -> None:
        """End the engine within `timeout` seconds; requests that still run get an error."""
        if self._client is not None:
            await self._client.close(timeout)

    async def supervise(self) -> None:
        """Keep an engine that was ready alive. Raises Unavailable when new starts don't help."""
        starts, since = 0, time.monotonic()
        while True:
            client = self._started()
            await client.lost.wait()
            reason = client.status.message
            if time.monotonic() - since > STEADY_SECONDS:
                starts = 0
            if starts == STARTS:
                raise Unavailable(f"{reason}; it was started {starts} times in vain")
            delay = self._first_delay * 2 ** (starts - 1) if starts else 0.0
            starts += 1
            log.error("%s; starting it again%s", reason, f" in {delay:g} s" if delay else "")
            self._restarting = True
            self.restarts += 1
            await client.close(0)
            await asyncio.sleep(delay)
            since = math.inf  # it does not serve yet
            self._client = self._make()
            await self._client.start()
            try:
                await self._client.wait_ready()
            except Unavailable:
                continue  # still restarting: counted above
            self._restarting = False
            since = time.monotonic()
            log.info("the engine is ready again")

    def _started(self) -> Client:
        assert self._client is not None, "no engine was started"
        return self._client
