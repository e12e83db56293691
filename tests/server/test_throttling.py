"""When the log says that the CPU quota holds the threads back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from corral.server.throttling import watch_throttling
from corral.system.cgroup import Throttling


async def warnings(counts: Sequence[tuple[int, int]], caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings for these (periods, throttled), read one after another."""
    readings = iter([*(Throttling(p, t, t * 0.05, "/cpu.max") for p, t in counts), None])
    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(watch_throttling(0.001, lambda: next(readings)), 5)
    return [record.getMessage() for record in caplog.records]


async def test_a_quota_that_is_used_up_is_told_with_numbers(caplog: pytest.LogCaptureFixture) -> None:
    (text,) = await warnings([(0, 0), (100, 80)], caplog)
    assert text.startswith("/cpu.max: the CPU quota was used up in 80 of 100 periods, 4.0 s lost")


@pytest.mark.parametrize("counts", [[], [(0, 0)], [(0, 0), (100, 20)], [(500, 500), (500, 500)]])
async def test_no_warning(counts: list[tuple[int, int]], caplog: pytest.LogCaptureFixture) -> None:
    assert await warnings(counts, caplog) == []


async def test_warnings_become_rare(caplog: pytest.LogCaptureFixture) -> None:
    assert len(await warnings([(100 * i, 100 * i) for i in range(32)], caplog)) == 5  # after 1, 2, 4, 8, 16
