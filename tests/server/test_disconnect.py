"""A client that goes away frees the engine at once, and silence is filled with pings: at the ASGI level."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from fake_engine import FakeEngine, fake_state

from corral.server.app import build_app


class Connection:
    """One request, its body sent; `leave` closes the client's end."""

    def __init__(
        self, engine: FakeEngine, body: Any, path: str = "/v1/chat/completions", **state: Any
    ) -> None:
        self.state = fake_state(engine)
        for name, value in state.items():
            setattr(self.state, name, value)
        self.sent: list[dict[str, Any]] = []
        self.most = -1
        self._news = asyncio.Event()
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._inbox.put_nowait(
            {"type": "http.request", "body": msgspec.json.encode(body), "more_body": False}
        )
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [],
            "client": ("1.2.3.4", 5),
        }
        app: Any = build_app(self.state)
        self.task = asyncio.create_task(app(scope, self._inbox.get, self._send))

    async def _send(self, message: Any) -> None:
        if len(self.sent) == self.most:
            await asyncio.sleep(3600)  # the client does not read
        self.sent.append(message)
        self._news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(2):
            while len(self.sent) < count:
                self._news.clear()
                await self._news.wait()

    def leave(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    @property
    def text(self) -> str:
        return b"".join(m.get("body", b"") for m in self.sent).decode()


MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("hold", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_cancels_the_generation(
    stream: bool, hold: int, n: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "corral.http")
    engine = FakeEngine(hold=hold)
    connection = Connection(engine, {"messages": MESSAGES, "stream": stream, "n": n})
    if stream and hold:
        await connection.until(1 + n)
    else:
        async with asyncio.timeout(2):
            while len(engine.submits) < n:
                await asyncio.sleep(0)
    assert engine.cancelled == []
    connection.leave()
    async with asyncio.timeout(2):
        await connection.task
    assert sorted(engine.cancelled) == sorted(s.id for s in engine.submits)
    assert len(engine.cancelled) == n
    assert "[DONE]" not in connection.text
    (line,) = caplog.messages
    assert "]: the client left" in line if stream and hold else " 499, " in line


async def test_a_client_that_takes_nothing_counts_as_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "corral.http")
    engine = FakeEngine(["a"] * 10, hold=5)
    config = replace(fake_state().config, timeout=1)
    connection = Connection(engine, {"messages": MESSAGES, "stream": True}, config=config)
    connection.most = 3
    async with asyncio.timeout(60):
        await connection.task
    assert engine.cancelled == [s.id for s in engine.submits]
    (line,) = caplog.messages
    assert line.endswith("]: the client has taken nothing for 1 s")


async def test_leaving_after_the_end_cancels_nothing() -> None:
    engine = FakeEngine()
    connection = Connection(engine, {"messages": MESSAGES, "stream": True})
    await connection.task
    connection.leave()
    assert connection.text.endswith("[DONE]\n\n")
    assert engine.cancelled == []


async def test_leaving_before_the_body_is_there_is_no_error() -> None:
    connection = Connection(FakeEngine(), {})
    connection._inbox.get_nowait()
    connection.leave()
    await connection.task
    assert all(m.get("status", 0) != 500 for m in connection.sent)


async def test_a_cancelled_handler_cancels_the_generation() -> None:
    engine = FakeEngine(["a"] * 1000)
    connection = Connection(engine, {"messages": MESSAGES, "stream": True})
    await connection.until(2)
    connection.task.cancel()
    await asyncio.gather(connection.task, return_exceptions=True)
    assert len(engine.cancelled) == 1


async def test_one_failed_choice_cancels_the_others() -> None:
    class OneFails(FakeEngine):
        async def generate(self, submit: Any) -> Any:
            self.hold = None if submit.id.endswith("-1") else 0
            self.words = [ValueError("x")]
            async for output in super().generate(submit):
                yield output

    engine = OneFails()
    connection = Connection(engine, {"messages": MESSAGES, "n": 2})
    async with asyncio.timeout(2):
        await connection.task
    assert connection.sent[0]["status"] == 500
    assert len(engine.cancelled) == 2


async def test_pings_fill_the_silence_before_and_between_tokens() -> None:
    for hold in (0, 1):
        connection = Connection(
            FakeEngine(hold=hold), {"messages": MESSAGES, "stream": True}, ping_seconds=0.01
        )
        async with asyncio.timeout(2):
            while connection.text.count(":\n\n") < 3:
                await asyncio.sleep(0.005)
        assert connection.sent[0]["status"] == 200
        assert connection.text.startswith(":\n\n" if hold == 0 else "data: ")
        connection.leave()
        await connection.task


async def test_pings_of_anthropic_are_events() -> None:
    body = {"messages": MESSAGES, "stream": True}
    connection = Connection(FakeEngine(hold=1), body, "/v1/messages", ping_seconds=0.01)
    ping = 'event: ping\ndata: {"type":"ping"}\n\n'
    async with asyncio.timeout(2):
        while not connection.text.endswith(ping + ping):
            await asyncio.sleep(0.005)
    assert connection.text.startswith("event: message_start\n")
    connection.leave()
    await connection.task


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/messages", {"messages": MESSAGES}), ("/v1/responses", {"input": "hi"})]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_cancels_on_other_paths_too(path: str, body: Any, stream: bool) -> None:
    engine = FakeEngine(hold=1)
    connection = Connection(engine, {**body, "stream": stream}, path)
    async with asyncio.timeout(2):
        while not engine.submits:
            await asyncio.sleep(0)
        connection.leave()
        await connection.task
    assert len(engine.cancelled) == 1


async def test_a_request_may_switch_the_pings_off() -> None:
    body = {"messages": MESSAGES, "stream": True, "sse_ping_interval": -1}
    connection = Connection(FakeEngine(hold=0), body, ping_seconds=0.01)
    await asyncio.sleep(0.05)
    assert connection.sent == []
    connection.leave()
    await connection.task


async def test_a_body_that_never_arrives_is_given_up() -> None:
    import dataclasses

    connection = Connection(FakeEngine(), {})
    connection._inbox.get_nowait()
    connection.state.config = dataclasses.replace(connection.state.config, timeout=0)
    async with asyncio.timeout(2):
        await connection.task
    assert connection.sent[0]["status"] == 408
