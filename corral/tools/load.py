"""Clients of an OpenAI-compatible server on this machine, and when each piece of their answers came.

Only the standard library, one event loop, plain HTTP/1.1 with a connection for each request.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

REQUEST_SECONDS = 600.0
HEALTH_SECONDS = 0.1
"""Between two looks at /health."""

TEXT = """a server reads the model file and answers about containers weights tokens layers memory threads
batches caches blocks prompts streams clients queues limits probes images volumes ports while rivers hills and
cities of old stories wait for somebody who writes down what they saw on the way"""


@dataclass
class Reply:
    """What one request met. Times in seconds since it was sent."""

    status: int = 0
    """Of HTTP; 0 when there was no answer."""
    arrivals: list[float] = field(default_factory=list)
    """When pieces of text came."""
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200 and not self.error and bool(self.arrivals)

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in pairwise(self.arrivals)]


@dataclass
class Load:
    """The replies to a run of requests, how long it took, and how long /health took meanwhile."""

    replies: list[Reply]
    seconds: float
    health: list[float]

    def summary(self) -> dict[str, float]:
        """Tokens a second, and times in seconds: medians, 99th percentiles and worst."""
        good = [reply for reply in self.replies if reply.ok]
        first = [reply.arrivals[0] for reply in good]
        gaps = [gap for reply in good for gap in reply.gaps]
        return {
            "failed": len(self.replies) - len(good),
            "output_tokens_per_second": sum(reply.tokens for reply in good) / self.seconds,
            "prompt_tokens_per_second": sum(reply.prompt_tokens for reply in good) / self.seconds,
            "first_token_median": percentile(first, 50),
            "first_token_p99": percentile(first, 99),
            "between_tokens_median": percentile(gaps, 50),
            "between_tokens_p99": percentile(gaps, 99),
            "longest_pause": percentile(gaps, 100),
            "health_p99": percentile(self.health, 99),
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of the values don't exceed; NaN of none."""
    if not values:
        return float("nan")
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(0, int(rank) - 1)]


def prompts(count: int, words: int, seed: int) -> list[str]:
    """Different texts, so that no cache of prompts helps."""
    rng = random.Random(seed)
    return [f"{rng.getrandbits(32)}: " + " ".join(rng.choices(TEXT.split(), k=words)) for _ in range(count)]


def chat_body(prompt: str, max_tokens: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def closed_loop(port: int, bodies: Sequence[dict[str, Any]], clients: int) -> Load:
    """So many clients, each of which sends its next request when it has the answer to the one before."""
    waiting = list(reversed(bodies))
    replies: list[Reply] = []

    async def client() -> None:
        while waiting:
            replies.append(await ask(port, waiting.pop()))

    return await _timed(port, [client() for _ in range(clients)], replies)


async def open_loop(port: int, bodies: Sequence[dict[str, Any]], rate: float, seed: int) -> Load:
    """`rate` requests a second on average, at random times, whether or not earlier ones are answered."""
    rng = random.Random(seed)
    replies: list[Reply] = []
    starts = [0.0]
    for _ in bodies[1:]:
        starts.append(starts[-1] + rng.expovariate(rate))

    async def client(start: float, body: dict[str, Any]) -> None:
        await asyncio.sleep(start)
        replies.append(await ask(port, body))

    return await _timed(port, [client(*pair) for pair in zip(starts, bodies, strict=True)], replies)


async def _timed(port: int, clients: Sequence[Any], replies: list[Reply]) -> Load:
    health: list[float] = []
    probe = asyncio.create_task(_watch_health(port, health))
    start = time.perf_counter()
    try:
        await asyncio.gather(*clients)
        seconds = time.perf_counter() - start
    finally:
        probe.cancel()
    return Load(replies, seconds, health)


async def ask(port: int, body: dict[str, Any]) -> Reply:
    """One streamed chat completion. Never raises for what the server does: see `Reply.error`."""
    reply = Reply()
    start = time.perf_counter()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            await _stream(port, body, reply, start)
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
        reply.error = f"{type(error).__name__}: {error}"
    reply.seconds = time.perf_counter() - start
    return reply


async def healthy(port: int) -> bool:
    """Whether /health says 200."""
    try:
        return b" 200 " in (await _get(port, "/health")).split(b"\r\n", 1)[0]
    except (OSError, TimeoutError):
        return False


async def _stream(port: int, body: dict[str, Any], reply: Reply, start: float) -> None:
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        writer.write(head.encode() + data)
        await writer.drain()
        reply.status = int((await reader.readuntil(b"\r\n")).split()[1])
        while line := await reader.readline():  # the sizes of chunks are lines too, and pass by
            if line.startswith(b"data: {"):
                _event(json.loads(line[6:]), reply, time.perf_counter() - start)
    finally:
        writer.close()


def _event(event: dict[str, Any], reply: Reply, now: float) -> None:
    if error := event.get("error"):
        reply.error = str(error.get("message", error))
    if usage := event.get("usage"):
        reply.tokens, reply.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
    for choice in event.get("choices", ()):
        delta = choice.get("delta", {})
        if delta.get("content") or delta.get("reasoning_content"):
            reply.arrivals.append(now)


async def _watch_health(port: int, times: list[float]) -> None:
    while True:
        start = time.perf_counter()
        try:
            await _get(port, "/health")
        except (OSError, TimeoutError):
            times.append(float("inf"))
        else:
            times.append(time.perf_counter() - start)
        await asyncio.sleep(HEALTH_SECONDS)


async def _get(port: int, path: str) -> bytes:
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.close()
