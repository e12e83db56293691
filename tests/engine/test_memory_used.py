"""What a server of a real model takes at its most is what its plan says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from real_server import Server

pytestmark = [pytest.mark.model, pytest.mark.native, pytest.mark.slow]

MIB = 1 << 20
CLIENTS = 8
EXTRAS = ({}, {"logprobs": True, "top_logprobs": 10}, {"response_format": {"type": "json_object"}})


def processes(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from processes(int(child))


def anonymous(pid: int) -> int:
    """Bytes of memory that are no file's."""
    status = "".join(Path(f"/proc/{process}/status").read_text() for process in processes(pid))
    return sum(1024 * int(kib) for kib in re.findall(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE))


@pytest.mark.parametrize("model", ["smollm2_path", "gemma3_path"])
def test_planned_is_taken(model: str, request: pytest.FixtureRequest) -> None:
    server = Server(request.getfixturevalue(model), "--ctx-size", "4096", "--parallel", str(CLIENTS))

    def ask(i: int) -> None:
        body = {
            "messages": [{"role": "user", "content": f"{i} sheep, " * 80}],
            "max_tokens": 8,
            **EXTRAS[i % len(EXTRAS)],
        }
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=300)
        assert reply.status_code == 200, reply.text

    while httpx.get(f"{server.url}/health").status_code != 200:
        pass
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(ask, range(2 * CLIENTS)))
    taken = anonymous(server.popen.pid)
    server.stop()
    (planned,) = re.findall(r"^.*memory: weights .* = (\d+) MiB", "".join(server.lines), re.MULTILINE)
    # less than all: the pages of programs and libraries are planned for too
    assert 0.75 * int(planned) < taken / MIB < int(planned), server.lines
