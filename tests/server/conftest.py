from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, connect, fake_state
from live_server import live as live


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(fake_state(engine)) as client:
        yield client


@pytest.fixture
def connected() -> Callable[[Any], Any]:
    """`async with connected(state) as client`, for a state of one's own."""
    return connect
