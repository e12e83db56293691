"""An engine that dies is started again, and the server goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import pytest
from fake_engine import READY

from corral.engine.client import Client
from corral.engine.messages import Output, Status, Submit, ToEngine
from corral.errors import Unavailable
from corral.server.supervisor import STARTS, Supervisor

SUBMIT = Submit(id="a", prompt=[1])


class FakeClient(Client):
    """Is ready soon after it is started, unless it is `broken`; dies when told to."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.broken, self.closed = broken, False
        self.sent: list[ToEngine] = []

    async def start(self) -> None:
        if self.broken:
            self.die("broken")
        else:
            ready = Status(state="ready", ready=READY)
            asyncio.get_running_loop().call_later(0.02, self._receive, [ready])

    async def close(self, timeout: float = 5.0) -> None:
        self.closed = True

    def die(self, message: str = "killed") -> None:
        self._fail(message)

    def _send(self, message: ToEngine) -> None:
        self.sent.append(message)


class Started:
    """Clients in the order they were made; those whose number is in `broken` never get ready."""

    def __init__(self, broken: range = range(0)) -> None:
        self.broken = broken
        self.clients: list[FakeClient] = []

    def __call__(self) -> FakeClient:
        self.clients.append(FakeClient(len(self.clients) in self.broken))
        return self.clients[-1]


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def last_of(outputs: AsyncGenerator[Output, None]) -> Output:
    return [output async for output in outputs][-1]


async def test_requests_get_an_error_and_the_next_engine_serves() -> None:
    made = Started()
    engine = Supervisor(made, first_delay=60.0)
    await engine.start()
    assert await engine.wait_ready() == READY
    watching = asyncio.create_task(engine.supervise())
    running = asyncio.create_task(last_of(engine.generate(SUBMIT)))
    await until(lambda: bool(made.clients[0].sent))
    made.clients[0].die()
    output = await running
    assert output.error is not None
    assert (output.finish_reason, output.error.status, output.error.message) == ("error", 503, "killed")
    await until(lambda: engine.status.state == "loading")
    await until(lambda: engine.status.state == "ready")
    assert len(made.clients) == 2
    assert made.clients[0].closed
    again = engine.generate(SUBMIT)
    waiting = asyncio.create_task(anext(again))
    await until(lambda: made.clients[1].sent == [SUBMIT])
    for task in (waiting, watching):
        task.cancel()


async def test_it_waits_longer_each_time_and_gives_up() -> None:
    made = Started(broken=range(1, 100))
    engine = Supervisor(made, first_delay=0.01)
    await engine.start()
    made.clients[0].die()
    began = time.monotonic()
    with pytest.raises(Unavailable, match=f"broken; it was started {STARTS} times in vain"):
        await engine.supervise()
    assert len(made.clients) == 1 + STARTS
    assert time.monotonic() - began > 0.01 * (2 ** (STARTS - 1) - 1)


async def test_the_first_failure_is_final() -> None:
    engine = Supervisor(Started(broken=range(1)))
    await engine.start()
    with pytest.raises(Unavailable, match="broken"):
        await engine.wait_ready()
    assert engine.status.state == "failed"


async def test_deaths_after_a_long_service_are_not_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Started()
    engine = Supervisor(made, first_delay=0.0)
    await engine.start()
    monkeypatch.setattr("corral.server.supervisor.STEADY_SECONDS", -1.0)
    watching = asyncio.create_task(engine.supervise())
    for i in range(2 * STARTS):
        made.clients[i].die()
        await until(lambda i=i: len(made.clients) == i + 2 and engine.status.state == "ready")  # type: ignore[misc]
    assert not watching.done()
    watching.cancel()
