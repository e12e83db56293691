"""The server's end of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path

import corral
from corral.config import EngineConfig, ModelConfig
from corral.engine import wire
from corral.engine.messages import (
    Cancel,
    ErrorInfo,
    Output,
    Ready,
    SlotAction,
    SlotResult,
    Status,
    Submit,
    ToEngine,
    ToServer,
)
from corral.errors import Unavailable

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "corral.engine.process")


class Client(ABC):
    """An engine that runs elsewhere: hands each request its outputs. Lives in one event loop."""

    def __init__(self) -> None:
        self._status = Status(state="loading")
        self._settled = asyncio.Event()  # ready or failed
        self.lost = asyncio.Event()
        """Set when the engine has failed or ended."""
        self._queues: dict[str, asyncio.Queue[Output]] = {}
        self._actions: dict[str, asyncio.Future[SlotResult]] = {}

    @property
    def status(self) -> Status:
        """The newest status of the engine. "failed" is final."""
        return self._status

    @property
    def pid(self) -> int | None:
        """The engine's process; None if it has none of its own."""
        return None

    @abstractmethod
    async def start(self) -> None:
        """Start the engine; it loads while the caller goes on."""

    @abstractmethod
    async def close(self, timeout: float = 5.0) -> None:
        """End the engine within `timeout` seconds; requests that still run get an error."""

    @abstractmethod
    def _send(self, message: ToEngine) -> None:
        """Give the engine a message, without waiting."""

    async def wait_ready(self) -> Ready:
        """Wait until requests can be served.

        Raises:
            Unavailable: the engine failed to load, or died.
        """
        gone = self._status.state == "failed"
        await self._settled.wait()
        # one that was ready, and is gone before the caller wakes up, was ready: see `lost`
        if self._status.ready is None or gone:
            raise Unavailable(self._status.message)
        return self._status.ready

    async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
        """The outputs of a request, up to one with a finish_reason. Closing the generator cancels the
        request.

        Before the engine is ready a request waits; when it has failed, it gets an error of status 503.
        """
        assert submit.id not in self._queues, f"request {submit.id!r} is running already"
        if self._status.state == "failed":
            yield self._lost(submit.id)
            return
        queue = self._queues[submit.id] = asyncio.Queue()
        self._send(submit)
        try:
            while submit.id in self._queues:
                output = await queue.get()
                if output.finish_reason is not None:
                    del self._queues[submit.id]
                yield output
        finally:
            if self._queues.pop(submit.id, None) is not None:
                self._send(Cancel(submit.id))

    async def act(self, action: SlotAction) -> SlotResult:
        """Save, restore or erase a slot. A result with an error of status 503 when the engine is gone."""
        assert action.id not in self._actions, f"slot action {action.id!r} is running already"
        if self._status.state == "failed":
            return SlotResult(id=action.id, error=self._loss())
        future: asyncio.Future[SlotResult] = asyncio.get_running_loop().create_future()
        self._actions[action.id] = future
        self._send(action)
        try:
            return await future
        finally:
            del self._actions[action.id]

    def _receive(self, messages: Iterable[ToServer]) -> None:
        for message in messages:
            match message:
                case Output():
                    if queue := self._queues.get(message.id):  # else nobody waits for it any more
                        queue.put_nowait(message)
                case SlotResult():
                    future = self._actions.get(message.id)
                    if future is not None and not future.done():
                        future.set_result(message)
                case Status(state="failed"):
                    self._fail(message.message)
                case Status():
                    if message.message not in ("", self._status.message):
                        log.info("%s", message.message)
                    self._status = message
                    if message.state == "ready":
                        self._settled.set()

    def _fail(self, message: str) -> None:
        """The engine is gone. Only the first reason counts."""
        if self._status.state != "failed":
            self._status = Status(state="failed", message=message, ready=self._status.ready)
            self._settled.set()
            self.lost.set()
        for id, queue in self._queues.items():
            queue.put_nowait(self._lost(id))
        for id, future in self._actions.items():
            if not future.done():
                future.set_result(SlotResult(id=id, error=self._loss()))

    def _lost(self, id: str) -> Output:
        return Output(id=id, finish_reason="error", error=self._loss())

    def _loss(self) -> ErrorInfo:
        error = Unavailable(self._status.message)
        return ErrorInfo(
            status=error.status, type=error.type, message=str(error), retry_after=error.retry_after
        )


class EngineClient(Client):
    """An engine in a child process."""

    def __init__(self, model: ModelConfig, config: EngineConfig, command: Sequence[str] = COMMAND) -> None:
        """`command` gets one more argument: the number of the file descriptor of its end of a socket pair."""
        super().__init__()
        self._command = command
        self._first = wire.frame((model, config))
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, str(theirs.fileno()), pass_fds=(theirs.fileno(),), env=_environment()
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._writer.write(self._first)
        self._reading = asyncio.create_task(self._read(reader, self._process))

    async def close(self, timeout: float = 5.0) -> None:
        if self._process is None or self._writer is None or self._reading is None:
            return
        self._fail("The server is shutting down")
        self._writer.close()  # the engine ends with its socket
        try:
            await asyncio.wait_for(self._process.wait(), timeout)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._reading

    def _send(self, message: ToEngine) -> None:
        assert self._writer is not None, "a request before start()"
        if self._status.state != "failed":
            self._writer.write(wire.frame([message]))

    async def _read(self, reader: asyncio.StreamReader, process: asyncio.subprocess.Process) -> None:
        """Receive until the engine is gone, then tell why."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = wire.LENGTH.unpack(await reader.readexactly(wire.LENGTH.size))
                self._receive(wire.to_server.decode(await reader.readexactly(length)))
        self._fail(f"The engine process {_describe_end(await process.wait())}")


def _environment() -> dict[str, str]:
    """The child finds the same `corral` as we, wherever that was."""
    folders = [str(Path(corral.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    hint = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{hint}"
