"""Says in the log when the container's CPU quota holds the threads back: otherwise it only looks slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from corral.system import cgroup
from corral.system.cgroup import Throttling

log = logging.getLogger("corral.server")

INTERVAL_SECONDS = 10.0
SHARE = 0.25
"""Of the quota's periods: a start, or a burst of short requests, uses up some."""
MOST_INTERVALS = 64
"""Between two warnings at most; each next one waits twice as long."""


async def watch_throttling(
    interval: float = INTERVAL_SECONDS, read: Callable[[], Throttling | None] = cgroup.cpu_throttling
) -> None:
    """Compare the counters now and then, for ever; ends at once where there is no quota."""
    before = read()
    wait = 1
    silent = 0
    while before is not None:
        await asyncio.sleep(interval)
        now = read()
        if now is None:
            return
        held, periods = now.throttled - before.throttled, now.periods - before.periods
        silent -= 1
        if periods > 0 and held > SHARE * periods and silent <= 0:
            log.warning(
                "%s: the CPU quota was used up in %d of %d periods, %.1f s lost in %g s (all CPUs); "
                "expected fewer --threads or more CPUs",
                now.source,
                held,
                periods,
                now.seconds - before.seconds,
                interval,
            )
            silent, wait = wait, min(2 * wait, MOST_INTERVALS)
        before = now
