"""Zombies are collected, but not at once: who started a child asks for it first."""

from __future__ import annotations

import asyncio
import os

import pytest

from corral.server.reaper import reap_orphans, zombies


def ended_child() -> int:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


async def test_a_child_nobody_asks_for_is_collected() -> None:
    pid = ended_child()
    assert pid in zombies()
    task = asyncio.create_task(reap_orphans(interval=0.02))
    for _ in range(250):
        await asyncio.sleep(0.02)
        if pid not in zombies():
            break
    task.cancel()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


async def test_a_child_is_left_to_who_started_it_for_a_while() -> None:
    pid = ended_child()
    task = asyncio.create_task(reap_orphans(interval=0.2))
    await asyncio.sleep(0.3)  # one look
    task.cancel()
    assert os.waitpid(pid, 0) == (pid, 0)
