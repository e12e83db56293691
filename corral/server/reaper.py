"""What the first process of a container owes it: to collect the orphans that ended.

A health check that takes too long is killed, and what it had started becomes a child of process 1. Once that
ends it stays as a zombie until its parent asks for it; thousands of them fill the table of processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Set

INTERVAL_SECONDS = 5.0


async def reap_orphans(interval: float = INTERVAL_SECONDS) -> None:
    """Collect the zombies among our children, for ever.

    Only those that are there for a second time: who started a child itself asks for it at once.
    """
    before: Set[int] = frozenset()
    while True:
        await asyncio.sleep(interval)
        now = zombies()
        for pid in now & before:
            with contextlib.suppress(ChildProcessError):  # somebody asked for it after all
                os.waitpid(pid, os.WNOHANG)
        before = now - before


def zombies() -> Set[int]:
    """Children of this process that have ended and were not asked for."""
    found = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # `pid (name) state parent ...`, and the name may have brackets and blanks in it
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        if state == b"Z" and int(parent) == os.getpid():
            found.add(int(name))
    return found
