"""The clients of `corral bench serve`, against a server of a few lines."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

import pytest

from corral.tools import load
from corral.tools.load import Load, Reply

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORD = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
EMPTY = b'data: {"choices": [{"delta": {"role": "assistant", "content": null}}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"completion_tokens": 2, "prompt_tokens": 7}}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"code": 500, "message": "lost"}}\n\n'


@contextlib.asynccontextmanager
async def server(*events: bytes, head: bytes = HEAD) -> AsyncIterator[int]:
    """Answers each POST with the events and any GET with 200; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            writer.write(head)
            for event in events:
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(0.002)
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def test_a_stream_is_timed_by_its_pieces_of_text() -> None:
    async with server(EMPTY, WORD, WORD, USAGE, DONE) as port:
        reply = await load.ask(port, load.chat_body("hello", 2))
    assert reply.ok
    assert (reply.status, reply.tokens, reply.prompt_tokens) == (200, 2, 7)
    assert len(reply.arrivals) == 2
    assert reply.arrivals[0] < reply.arrivals[1] <= reply.seconds
    assert reply.gaps == [reply.arrivals[1] - reply.arrivals[0]]


@pytest.mark.parametrize(
    ("events", "head"),
    [
        ([WORD, ERROR], HEAD),
        ([], HEAD),
        ([], b"HTTP/1.1 503 Service Unavailable\r\n\r\n"),
        ([], b""),
    ],
)
async def test_what_fails_is_not_ok(events: list[bytes], head: bytes) -> None:
    async with server(*events, head=head) as port:
        reply = await load.ask(port, load.chat_body("hello", 2))
    assert not reply.ok


async def test_no_server_is_a_failed_reply() -> None:
    async with server() as port:
        pass
    reply = await load.ask(port, {})
    assert not reply.ok
    assert "ConnectionRefusedError" in reply.error
    assert not await load.healthy(port)


@pytest.mark.parametrize("loop", ["closed", "open"])
async def test_every_request_gets_its_reply_and_health_is_watched(loop: str) -> None:
    bodies = [load.chat_body(text, 2) for text in load.prompts(5, words=3, seed=0)]
    async with server(WORD, USAGE) as port:
        if loop == "closed":
            result = await load.closed_loop(port, bodies, clients=2)
        else:
            result = await load.open_loop(port, bodies, rate=500.0, seed=0)
    summary = result.summary()
    assert (len(result.replies), summary["failed"]) == (5, 0)
    assert summary["output_tokens_per_second"] == pytest.approx(10 / result.seconds)
    assert summary["health_p99"] > 0


def test_summary_of_known_times() -> None:
    replies = [
        Reply(status=200, arrivals=[1.0, 1.5, 4.0], tokens=3, prompt_tokens=10, seconds=4.0),
        Reply(status=200, arrivals=[2.0, 2.5], tokens=2, prompt_tokens=10, seconds=3.0),
        Reply(status=503),
    ]
    assert Load(replies, seconds=5.0, health=[0.1, 0.3]).summary() == {
        "failed": 1,
        "output_tokens_per_second": 1.0,
        "prompt_tokens_per_second": 4.0,
        "first_token_median": 1.0,
        "first_token_p99": 2.0,
        "between_tokens_median": 0.5,
        "between_tokens_p99": 2.5,
        "longest_pause": 2.5,
        "health_p99": 0.3,
    }


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([3, 1, 2], 50, 2),
        ([1, 2, 3, 4], 50, 2),
        ([1, 2, 3, 4], 51, 3),
        ([5], 0, 5),
        (list(range(200)), 99, 197),
    ],
)
def test_percentile(values: list[float], percent: float, expected: float) -> None:
    assert load.percentile(values, percent) == expected


def test_percentile_of_nothing() -> None:
    assert math.isnan(load.percentile([], 50))


def test_prompts_differ_and_repeat_with_their_seed() -> None:
    texts = load.prompts(3, words=5, seed=1)
    assert len(set(texts)) == 3
    assert texts == load.prompts(3, words=5, seed=1)
    assert all(len(text.split()) == 6 for text in texts)
