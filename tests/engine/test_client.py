"""The client and its process, with the fake executor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_executor import build_engine, prompt, run, text_of, tokens_of

from corral.config import EngineConfig, ModelConfig
from corral.engine.client import Client, EngineClient
from corral.engine.messages import Output, SlotAction, Submit
from corral.errors import Unavailable
from corral.sampling.params import SamplingParams

COMMAND = (sys.executable, str(Path(__file__).with_name("engine_process.py")))
LONG = SamplingParams(seed=1, ignore_eos=True)


def process_client(path: str = "slow") -> EngineClient:
    return EngineClient(ModelConfig(path=path), EngineConfig(parallel=4), command=COMMAND)


@contextlib.asynccontextmanager
async def running(client: Client) -> AsyncIterator[Client]:
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running(process_client()) as client:
        yield client


async def gather(client: Client, submit: Submit) -> list[Output]:
    return [output async for output in client.generate(submit)]


async def until(condition, seconds: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def child_of(client: Client) -> int:
    """The fake loader reports its process id as load time."""
    assert client.status.ready is not None
    return int(client.status.ready.load_ms)


async def test_same_outputs_as_the_engine_itself(client: Client) -> None:
    submits = [
        Submit(id=str(i), prompt=prompt(10 + i), max_tokens=20, sampling=SamplingParams(seed=i))
        for i in range(6)
    ]
    expected = run(build_engine(), submits)
    results = await asyncio.gather(*(gather(client, submit) for submit in submits))
    for submit, outputs in zip(submits, results, strict=True):
        assert tokens_of(outputs) == tokens_of(expected[submit.id])
        assert text_of(outputs) == text_of(expected[submit.id])
        assert [output.finish_reason for output in outputs[:-1]] == [None] * (len(outputs) - 1)
        assert outputs[-1].finish_reason in ("stop", "length")


async def test_a_request_before_the_engine_is_ready_waits(client: Client) -> None:
    outputs = await gather(client, Submit(id="early", prompt=[1], max_tokens=2))
    assert outputs[-1].finish_reason == "length"
    assert (await client.wait_ready()).n_ctx == 1024
    assert client.status.state == "ready"


async def test_closing_the_generator_frees_what_the_request_held(client: Client) -> None:
    await client.wait_ready()
    generator = client.generate(Submit(id="endless", prompt=prompt(40), sampling=LONG))
    await anext(generator)
    await until(lambda: client.status.stats.running == 1)
    await generator.aclose()
    await until(lambda: client.status.stats.running == client.status.stats.blocks_used == 0)
    # the id is free again
    assert (await gather(client, Submit(id="endless", prompt=[1], max_tokens=1)))[
        -1
    ].finish_reason == "length"


async def test_a_cancelled_task_cancels_its_request_only(client: Client) -> None:
    other = asyncio.create_task(gather(client, Submit(id="other", prompt=[5], max_tokens=60, sampling=LONG)))
    task = asyncio.create_task(gather(client, Submit(id="gone", prompt=[6], sampling=LONG)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await other)[-1].finish_reason == "length"
    await until(lambda: client.status.stats.running == 0)


async def test_a_slot_action_is_answered(client: Client) -> None:
    result = await client.act(SlotAction(id="x", action="save", id_slot=0, filename="f"))
    assert result.error is not None
    assert (result.id, result.error.status) == ("x", 501)  # without a folder
    await client.close()
    lost = await client.act(SlotAction(id="y", action="erase", id_slot=0))
    assert lost.error is not None
    assert lost.error.status == 503


async def test_close_ends_running_requests_with_an_error(client: Client) -> None:
    task = asyncio.create_task(gather(client, Submit(id="endless", prompt=[1], sampling=LONG)))
    await client.wait_ready()
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await client.close()
    assert time.monotonic() - started < 4  # not the 5 after which it would be killed
    last = (await task)[-1]
    assert last.error is not None
    assert (last.finish_reason, last.error.status) == ("error", 503)
    assert "shutting down" in last.error.message


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_to_all_processes_are_the_servers(number: signal.Signals) -> None:
    """A service manager sends SIGTERM to the engine too, and running requests are to finish."""
    async with running(process_client()) as client:
        await client.wait_ready()
        submit = Submit(id="a", prompt=[1], max_tokens=100, sampling=LONG)
        task = asyncio.create_task(gather(client, submit))
        await until(lambda: client.status.stats.running == 1)
        os.kill(child_of(client), number)
        assert (await task)[-1].finish_reason == "length"
        assert client.status.state == "ready"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
async def test_death_is_reported_to_every_request_and_to_later_ones(number: signal.Signals) -> None:
    async with running(process_client()) as client:
        await client.wait_ready()
        tasks = [
            asyncio.create_task(gather(client, Submit(id=str(i), prompt=[1], sampling=LONG)))
            for i in range(6)
        ]
        await until(lambda: client.status.stats.running == 4)
        os.kill(child_of(client), number)
        async with asyncio.timeout(2):
            results = await asyncio.gather(*tasks, gather(client, Submit(id="later", prompt=[1])))
        assert [outputs[-1].error.status for outputs in results if outputs[-1].error] == [503] * 7
        await until(lambda: client.status.state == "failed")
        assert number.name in client.status.message
        with pytest.raises(Unavailable, match="The engine process"):
            await client.wait_ready()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("too big", "error: the model does not fit"),
        ("bug", "the engine failed: ZeroDivisionError: oops"),
        ("killed", "The engine process was killed by SIGKILL, perhaps because memory ran out"),
    ],
)
async def test_failure_to_load(path: str, message: str) -> None:
    async with running(process_client(path)) as client:
        waiting = asyncio.create_task(gather(client, Submit(id="early", prompt=[1])))
        async with asyncio.timeout(60):
            with pytest.raises(Unavailable) as failure:
                await client.wait_ready()
            assert str(failure.value) == client.status.message == message
            (output,) = await waiting
        assert output.error is not None
        assert output.error.message == message


async def test_progress_while_loading_and_close_at_that_time() -> None:
    async with running(process_client("never")) as client:
        await until(lambda: client.status.progress == 0.5)
        assert (client.status.state, client.status.message) == ("loading", "half")
        started = time.monotonic()
        await client.close()
        assert time.monotonic() - started < 4


async def test_sigint_is_left_to_the_server() -> None:
    async with running(process_client("fast")) as client:
        await client.wait_ready()
        os.kill(child_of(client), signal.SIGINT)
        assert (await gather(client, Submit(id="a", prompt=[1], max_tokens=1)))[-1].finish_reason == "length"


async def test_an_idle_engine_uses_no_time() -> None:
    async with running(process_client("fast")) as client:
        await client.wait_ready()
        await gather(client, Submit(id="a", prompt=[1], max_tokens=1))

        def ticks() -> int:
            return sum(
                map(int, Path(f"/proc/{child_of(client)}/stat").read_text().rsplit(")")[-1].split()[11:13])
            )

        await asyncio.sleep(0.05)
        before = ticks()
        await asyncio.sleep(0.4)
        assert ticks() - before < 10  # of 10 ms; one that polls would use 40


async def test_an_engine_does_not_outlive_a_server_that_is_killed() -> None:
    program = f"""
import asyncio, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_client import LONG, Submit, child_of, process_client, running

async def main():
    async with running(process_client()) as client:
        await client.wait_ready()
        generator = client.generate(Submit(id="endless", prompt=[1], sampling=LONG))
        await anext(generator)
        print(child_of(client), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    path = os.pathsep.join(filter(None, sys.path))
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    output, _ = await server.communicate()
    assert server.returncode == -signal.SIGKILL
    status = Path(f"/proc/{int(output)}/stat")

    def is_gone() -> bool:
        # a zombie, where nobody reaps orphans
        return not status.exists() or status.read_text().rsplit(")")[-1].split()[0] == "Z"

    await until(is_gone, seconds=1)


@pytest.mark.parametrize("busy", [False, True])
async def test_what_is_found_out_beside_the_steps_ends_the_engine_and_is_its_reason(busy: bool) -> None:
    """It has said that it is ready before: it was found fit once, and may be started again."""
    async with running(process_client("damaged")) as client:
        waiting = gather(client, Submit(id="a", prompt=prompt(5), sampling=LONG)) if busy else None
        task = asyncio.create_task(waiting) if waiting else None
        await client.wait_ready()
        await asyncio.wait_for(client.lost.wait(), 5)
        assert client.status.message == "the weights are damaged"
        if task:
            outputs = await task
            assert outputs[-1].error is not None
            assert (outputs[-1].error.status, outputs[-1].error.message) == (503, "the weights are damaged")
