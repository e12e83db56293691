"""What no client library sends: broken requests and connections, over a real port. Seeded, so repeatable."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fake_engine import FakeEngine, fake_state

pytestmark = pytest.mark.slow

HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, Any] = {
    "/v1/chat/completions": {"messages": HI, "stream": True, "max_tokens": 5},
    "/v1/completions": {"prompt": ["a", [98]], "logprobs": 2, "echo": False},
    "/completion": {"prompt": "a", "n_predict": 4, "logit_bias": [[5, -1.5], ["x", False]]},
    "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
    "/v1/messages": {"messages": HI, "max_tokens": 5, "system": "be brief"},
    "/api/chat": {"messages": HI, "options": {"num_predict": 5}},
    "/tokenize": {"content": "a b", "with_pieces": True},
    "/slots/0?action=save": {"filename": "a.bin"},
}
TRICKS = (
    b"\x00", b"\xff\xfe", b"\r\n", b"\r\n\r\n", b"%00", b"..%2f..%2f", b"1e999", b"-1",
    b"99999999999999999999",
    b"null", b"true",
    b"[[[[[[[[", b'{"":', b'"\\ud800"', b"NaN", b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: -5\r\n", b"Expect: 100-continue\r\n",
    b"Origin: \xf0\x9f\x92\xa9\r\n",
    b"Authorization: Bearer \xff\r\n", b"X-Request-Id: " + b"a" * 300 + b"\r\n", b"Upgrade: websocket\r\n",
)  # fmt: skip


def valid(path: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


def broken(rng: random.Random, request: bytes) -> bytes:
    """The request with one to three changes."""
    data = bytearray(request)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                data[at:at] = rng.choice(TRICKS)
            case 2:
                del data[at : at + rng.randint(1, 20)]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 60)]
            case _:  # at the start of a header
                lines = data.find(b"\r\n") + 2
                data[lines:lines] = rng.choice(TRICKS)
    return bytes(data)


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=5)


def exchange(url: str, data: bytes, patience: float = 5) -> bytes:
    """What the server answers until it closes the connection, or waits for more than `patience` seconds."""
    answer = b""
    with connect(url) as sock, contextlib.suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
        sock.sendall(data)
        sock.settimeout(patience)
        while part := sock.recv(65536):
            answer += part
    return answer


def reset(sock: socket.socket) -> None:
    """Closes the connection as a machine does that has lost it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def assert_free(engine: FakeEngine, url: str, seconds: float = 5) -> None:
    """Everything that began has ended, and the server goes on."""
    deadline = time.monotonic() + seconds
    while engine.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.running == 0
    assert httpx.get(url + "/health").status_code == 200


class Counting(FakeEngine):
    running = 0

    async def generate(self, submit: Any) -> Any:
        self.running += 1
        try:
            async for output in super().generate(submit):
                yield output
        finally:
            self.running -= 1


@pytest.mark.parametrize("path", BODIES)
def test_broken_requests(live: Callable[[Any], str], caplog: pytest.LogCaptureFixture, path: str) -> None:
    caplog.set_level(logging.ERROR)
    engine = Counting()
    url = live(fake_state(engine))
    request, rng = valid(path, BODIES[path]), random.Random(path)
    assert exchange(url, request).startswith(b"HTTP/1.1 200 ")
    statuses = set()
    for _ in range(120):
        data = broken(rng, request)
        answer = exchange(url, data, 0.15)
        for status in re.findall(rb"(?:^|\r\n)HTTP/1\.1 (\d{3}) ", answer):
            statuses.add(int(status))
            assert int(status) < 500 or int(status) == 501, data
    assert {200, 400} <= statuses
    assert_free(engine, url)
    assert caplog.records == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion", "/v1/messages"])
def test_connections_that_break(
    live: Callable[[Any], str], caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """In the request line, the headers, the body, before the answer and in the middle of a stream."""
    caplog.set_level(logging.ERROR)
    engine = Counting(["Hel", "lo", "!"], hold=2)
    url = live(fake_state(engine))
    request, rng = valid(path, {**BODIES[path], "stream": True}), random.Random(path)
    for i in range(60):
        sock = connect(url)
        sock.sendall(request if i % 2 else request[: rng.randrange(len(request))])
        if i % 4 == 1:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        if rng.random() < 0.5:
            reset(sock)
        else:
            sock.close()
    assert len(engine.submits) > 10
    assert_free(engine, url)
    assert caplog.records == []


def test_connections_that_say_nothing_hold_nobody_up(live: Callable[[Any], str]) -> None:
    url = live(fake_state())
    silent = [connect(url) for _ in range(50)]
    for sock in silent[25:]:
        sock.sendall(valid("/completion", {"prompt": "a"})[:-3])
    assert httpx.post(url + "/completion", json={"prompt": "a"}).status_code == 200
    for sock in silent:
        sock.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n" * 100,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,  # TLS spoken to a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        b"POST /tokenize HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
    ],
    ids=range(9),
)
def test_what_is_no_request_is_refused_or_dropped(live: Callable[[Any], str], data: bytes) -> None:
    url = live(fake_state())
    answer = exchange(url, data, 0.5)
    assert not re.findall(rb"HTTP/1\.1 5", answer)
    assert httpx.get(url + "/health").status_code == 200
