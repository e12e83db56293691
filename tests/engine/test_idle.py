"""An engine that has nothing to do uses no CPU: its threads sleep."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from toy_model import write_toy_model

pytest.importorskip("corral._native", reason="the extension is not built")

from corral.config import EngineConfig, ModelConfig
from corral.engine.client import EngineClient
from corral.engine.messages import Submit
from corral.sampling.params import SamplingParams

pytestmark = [pytest.mark.native, pytest.mark.slow]

THREADS = 4


def child_of_this_process() -> int:
    (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return int(child)


def threads_of(pid: int) -> dict[str, tuple[str, int]]:
    """Thread id -> state and CPU time in clock ticks. See proc(5) for the fields of stat."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        found[task.name] = fields[0], int(fields[11]) + int(fields[12])
    return found


async def test_an_idle_engine_sleeps(tmp_path: Path) -> None:
    path = write_toy_model(tmp_path / "toy.gguf")
    client = EngineClient(ModelConfig(path=str(path)), EngineConfig(threads=THREADS, force_threads=True))
    await client.start()
    try:
        await client.wait_ready()
        for tokens in (0, 30):  # just ready, and after work
            if tokens:
                submit = Submit(
                    id="a", prompt=[1, 75], max_tokens=tokens, sampling=SamplingParams(ignore_eos=True)
                )
                assert [output async for output in client.generate(submit)]
            await asyncio.sleep(0.3)  # the last report is on its way
            before = threads_of(child_of_this_process())
            await asyncio.sleep(1)
            after = threads_of(child_of_this_process())
            assert len(before) >= THREADS
            assert before.keys() == after.keys()
            assert {state for state, _ in after.values()} == {"S"}
            used = sum(after[thread][1] - before[thread][1] for thread in after)
            assert used <= 1, f"{used} ticks in a second"
    finally:
        await client.close()
