"""The process that downloads for a server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from stand_in import Fault, File, Said, StandIn

from corral.config import DownloadConfig
from corral.download import client
from corral.errors import DownloadError

pytestmark = pytest.mark.slow
CONTENT = b"GGUF" + bytes(1000)


def config(server: StandIn, folder: Path) -> DownloadConfig:
    server.files["/m.gguf"] = File(CONTENT)
    return DownloadConfig(model_url=f"{server.url}/m.gguf", url_cache=str(folder))


async def test_it_says_what_it_does(server: StandIn, tmp_path: Path) -> None:
    said = Said()
    wanted = config(server, tmp_path)
    server.files["/m.gguf"].faults = [Fault(cut=100)]
    path = await client.fetch(wanted, said)
    assert Path(path).read_bytes() == CONTENT
    assert said.came == len(CONTENT)
    assert "the connection ended after 100 of 1004 bytes" in said.notes[0]


async def test_what_went_wrong_arrives(server: StandIn, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404 Not Found"):
        await client.fetch(DownloadConfig(model_url=f"{server.url}/x.gguf", url_cache=str(tmp_path)), Said())


async def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(DownloadError, match="ended with code 3"):
        await client.fetch(DownloadConfig(), Said(), (sys.executable, "-c", "raise SystemExit(3)"))


async def test_cancelling_ends_it(server: StandIn, tmp_path: Path) -> None:
    wanted = config(server, tmp_path)
    server.files["/m.gguf"].faults = [Fault(cut=100, hang=True)]
    task = asyncio.create_task(client.fetch(wanted, Said()))
    while not server.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(3):
            await task


async def test_it_ends_with_its_server() -> None:
    child = await asyncio.create_subprocess_exec(
        *client.COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    child.stdin.write(b'{"model_url": "http://192.0.2.1/m.gguf", "url_cache": "/nowhere"}\n')
    child.stdin.close()
    async with asyncio.timeout(10):  # by itself it would try for longer
        await child.communicate()
