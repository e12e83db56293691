"""Packed weights that are damaged where no start looks: found while the server serves, and packed anew."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from real_server import Server

pytestmark = [pytest.mark.model, pytest.mark.native, pytest.mark.slow]


def ask(url: str) -> str:
    body = {"prompt": "The capital of France is", "n_predict": 8, "temperature": 0}
    reply = httpx.post(f"{url}/completion", json=body, timeout=60)
    return str(reply.json()["content"]) if reply.status_code == 200 else f"HTTP {reply.status_code}"


def until_ready(url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if httpx.get(f"{url}/health").status_code == 200:
            return
        time.sleep(0.05)
    raise TimeoutError(url)


def test_damaged_weights_are_packed_anew(smollm2_path: Path, tmp_path: Path) -> None:
    flags = ("--ctx-size", "256", "--pack-cache", str(tmp_path))
    server = Server(smollm2_path, *flags)
    until_ready(server.url)
    wanted = ask(server.url)
    server.stop()
    assert "removed" not in "".join(server.lines)

    (path,) = tmp_path.glob("*.weights")
    with path.open("r+b") as file:  # all but the header and what lies near the sampled pages
        size = path.stat().st_size
        for part in range(10):
            file.seek(size // 64 * (6 * part + 1) + size // 128)
            file.write(b"\x55" * 100_000)
    server = Server(smollm2_path, *flags)
    end = time.monotonic() + 60
    while "the engine is ready again" not in "".join(server.lines):
        assert time.monotonic() < end, server.lines
        time.sleep(0.05)
    assert ask(server.url) == wanted
    server.stop()
    said = f"--pack-cache: {path} does not hold what was packed any more: removed; starting it again"
    assert said in "".join(server.lines)
