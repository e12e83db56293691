"""The engine process: `python -m corral.engine.process FD`, FD being its end of a socket pair.

A thread reads the socket, so that a step is not disturbed; the main thread steps. The process ends when the
socket does: an engine without a server has nothing to do.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from corral.config import EngineConfig, ModelConfig
from corral.engine import loop, wire
from corral.engine.loop import LoadedModel, Loader, Progress
from corral.engine.messages import Status, ToServer
from corral.errors import CorralError

log = logging.getLogger(__name__)

SEND_BUFFER = 4 << 20
"""Bytes that may wait for a busy server before the engine waits for it."""
PROGRESS_SECONDS = 0.05
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def load(model: ModelConfig, config: EngineConfig, progress: Progress) -> LoadedModel:
    from corral.engine import load  # here, so that a broken installation is reported like any other failure

    return load.load(model, config, progress)


def main(fd: int, load: Loader = load) -> int:
    """Load what the first frame asks for, then serve until the socket is closed. Returns the exit code."""
    # Ctrl-C goes to the whole group, systemd's SIGTERM to all of a service: the server decides
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(level=logging.WARNING, format="engine: %(message)s")
    logging.getLogger("corral.tokenizer").setLevel(logging.ERROR)  # the server logs the same

    sock = socket.socket(fileno=fd)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    first = wire.read_frame(sock)
    if first is None:
        return 0
    model, config = wire.first_to_engine.decode(first)
    inbox: loop.Inbox = SimpleQueue()
    threading.Thread(target=_read, args=(sock, inbox), daemon=True).start()

    def send(messages: Sequence[ToServer]) -> None:
        sock.sendall(wire.frame(messages))

    try:
        loaded = load(model, config, _reporter(send))
        if loaded.beside:
            threading.Thread(target=_run_beside, args=(loaded.beside, inbox), daemon=True).start()
        loop.run(loaded, inbox, send)
    except (BrokenPipeError, ConnectionResetError):
        return 0
    except CorralError as error:
        send([Status(state="failed", message=str(error))])
        return 1
    except Exception as error:
        log.exception("the engine failed")
        send([Status(state="failed", message=f"the engine failed: {type(error).__name__}: {error}")])
        return 1
    return 0


def _read(sock: socket.socket, inbox: loop.Inbox) -> None:
    """Put what arrives into the inbox; end the process with the stream, even in the middle of a step."""
    try:
        while (body := wire.read_frame(sock)) is not None:
            for message in wire.to_engine.decode(body):
                inbox.put(message)
    except ConnectionError:
        pass
    except Exception:
        log.exception("the server sent what is no frame")
        os._exit(1)
    os._exit(0)


def _run_beside(work: Callable[[], None], inbox: loop.Inbox) -> None:
    try:
        work()
    except CorralError as error:
        inbox.put(error)


def _reporter(send: loop.Send) -> Callable[[float, str], None]:
    """Sends each new message, and of progress as much as somebody could watch."""
    sent, said = -PROGRESS_SECONDS, ""

    def progress(share: float, message: str) -> None:
        nonlocal sent, said
        if message != said or time.monotonic() - sent >= PROGRESS_SECONDS:
            sent, said = time.monotonic(), message
            send([Status(state="loading", progress=share, message=message)])

    return progress


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
