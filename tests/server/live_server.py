"""The fixture of a server on a real port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from corral.server import sockets
from corral.server.app import build_app


@pytest.fixture
def live() -> Iterator[Callable[[Any], str]]:
    """`live(state)` serves it on a port of its own and gives the URL."""
    stops: list[Callable[[], None]] = []

    def start(state: Any) -> str:
        (bound,) = sockets.bind(["127.0.0.1"], 0)
        config = uvicorn.Config(
            build_app(state),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            server_header=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(5)
            assert not thread.is_alive()

        stops.append(stop)
        return sockets.url(bound)

    yield start
    for stop in stops:
        stop()
