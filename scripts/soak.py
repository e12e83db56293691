"""Hours of trouble for a server, or minutes: does every request end once, does everything come back?

    python scripts/soak.py --model MODEL.gguf --minutes 60

Starts `corral serve` and lets clients do what clients do: short and long prompts, streams left in the
middle, bad requests, constrained output; now and then the engine process is killed. At the end every request
must have had exactly one result, all slots and all blocks of the KV cache must be free, and memory must not
have grown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT = 120.0
"""Seconds in which every request must have ended, and a killed engine must be back."""
IDLE_SECONDS = 10.0
GROWTH_BYTES = 24 << 20
"""By which the most memory in the last third of the time may exceed that of the third before."""
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards bake bread near an old stone bridge"


@dataclass
class Answer:
    """What came back for one request."""

    status: int = 0
    body: bytes = b""
    left: bool = False
    """We closed the connection before its end."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON events of a stream."""
        return [json.loads(line[6:]) for line in self.body.split(b"\n") if line.startswith(b"data: {")]


@dataclass
class Soak:
    """The server under test, and what has been seen."""

    port: int
    server: subprocess.Popen[bytes]
    context: int
    rng: random.Random
    deadline: float
    tokens_per_word: float = 1.0
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    last_kill: float = -1e9
    down_until: float = -1e9
    """When the engine was there again; infinite while it is not."""
    memory: list[tuple[float, int]] = field(default_factory=list)

    async def send(self, method: str, path: str, body: bytes = b"", leave_after: int | None = None) -> Answer:
        """One request on a connection of its own; with `leave_after`, closed after so many events."""
        answer = Answer()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            head += "Connection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            if leave_after == 0:
                answer.left = True
                return answer
            answer.status = int((await reader.readline()).split()[1])
            while line := await reader.readline():
                answer.body += line
                if leave_after is not None and answer.body.count(b"data: ") >= leave_after:
                    answer.left = True
                    break
        finally:
            writer.close()
        return answer

    def text(self, tokens: int) -> str:
        """Of about so many tokens."""
        return " ".join(self.rng.choices(WORDS.split(), k=max(1, int(tokens / self.tokens_per_word))))

    def chat(self, tokens: int, **fields: Any) -> bytes:
        message = {"role": "user", "content": self.text(tokens)}
        return json.dumps({"messages": [message], "max_tokens": self.rng.randint(1, 40), **fields}).encode()


async def stream(soak: Soak) -> str:
    answer = await soak.send("POST", "/v1/chat/completions", soak.chat(soak.rng.randint(1, 60), stream=True))
    return judge_stream(answer)


async def long_stream(soak: Soak) -> str:
    body = soak.chat(int(soak.context * soak.rng.uniform(0.2, 0.5)), stream=True)
    return judge_stream(await soak.send("POST", "/v1/chat/completions", body))


async def whole(soak: Soak) -> str:
    body = soak.chat(soak.rng.randint(1, 60), n=soak.rng.choice([1, 1, 2]), temperature=1.0)
    answer = await soak.send("POST", "/v1/chat/completions", body)
    if answer.status != 200:
        return refused(answer)
    return "ok" if b'"finish_reason"' in answer.body else "WRONG: no finish_reason"


async def same_beginning(soak: Soak) -> str:
    repeats = int(soak.context / 3 / soak.tokens_per_word / len(WORDS.split()))
    prompt = f"{WORDS} " * repeats + soak.text(3)
    body = json.dumps({"prompt": prompt, "max_tokens": 8, "stream": True}).encode()
    return judge_stream(await soak.send("POST", "/v1/completions", body))


async def constrained(soak: Soak) -> str:
    properties = {"a": {"enum": ["x", "y"]}}
    schema = {"type": "object", "properties": properties, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = soak.chat(5, response_format=form, max_tokens=200)
    answer = await soak.send("POST", "/v1/chat/completions", body)
    if answer.status != 200:
        return refused(answer)
    choice = json.loads(body_of(answer))["choices"][0]
    if choice["finish_reason"] == "stop" and json.loads(choice["message"]["content"])["a"] not in ("x", "y"):
        return "WRONG: not of the schema"
    return "ok"


async def leave_early(soak: Soak) -> str:
    body = soak.chat(soak.rng.choice([5, soak.context // 3]), stream=True, max_tokens=200)
    answer = await soak.send("POST", "/v1/chat/completions", body, leave_after=soak.rng.choice([0, 1, 2, 5]))
    return "left" if answer.left else judge_stream(answer)


async def too_long(soak: Soak) -> str:
    answer = await soak.send("POST", "/v1/chat/completions", soak.chat(2 * soak.context))
    if answer.status == 400 and b"exceed_context_size_error" in answer.body:
        return "refused 400"
    return refused(answer) if answer.status in (429, 503) else f"WRONG: {answer.status} for a long prompt"


async def nonsense(soak: Soak) -> str:
    """Requests whose answer is known."""
    method, path, body, status = soak.rng.choice(
        [
            ("POST", "/v1/chat/completions", b"{", 400),
            ("POST", "/v1/chat/completions", b'{"messages": 7}', 400),
            ("POST", "/v1/chat/completions", b'{"messages": [], "top_p": 9}', 400),
            ("POST", "/v1/completions", b'{"prompt": [1, 2, -3]}', 400),
            ("POST", "/v1/completions", b'{"prompt": "x", "grammar": "root ::= ("}', 400),
            ("GET", "/v1/nothing", b"", 404),
            ("PUT", "/health", b"", 405),
        ]
    )
    answer = await soak.send(method, path, body)
    if answer.status == status:
        return f"refused {status}"
    return refused(answer) if answer.status == 503 else f"WRONG: {answer.status} for {method} {path} {body!r}"


ACTIONS: dict[Callable[[Soak], Awaitable[str]], int] = {
    stream: 6,
    whole: 3,
    long_stream: 2,
    same_beginning: 3,
    constrained: 1,
    leave_early: 4,
    too_long: 1,
    nonsense: 2,
}
"""What a client does next, and how often."""


def judge_stream(answer: Answer) -> str:
    """A stream must end with exactly one finish_reason or one error."""
    if answer.status != 200:
        return refused(answer)
    ends = sum(
        1 for e in answer.events if "error" in e or any(c.get("finish_reason") for c in e.get("choices", ()))
    )
    if ends != 1:
        return f"WRONG: a stream with {ends} ends"
    if any("error" in event for event in answer.events):
        return "error event"
    return "ok" if b"data: [DONE]" in answer.body else "WRONG: no [DONE]"


def refused(answer: Answer) -> str:
    """What to say of an answer that is neither 200 nor a client's mistake."""
    if answer.status in (429, 503) and b'"error"' in answer.body:
        return f"refused {answer.status}"
    if answer.status == 500:
        return "error 500"
    return f"WRONG: status {answer.status}"


def body_of(answer: Answer) -> bytes:
    """The JSON of an answer whose headers were read along."""
    return answer.body.split(b"\r\n\r\n", 1)[1]


async def client(soak: Soak) -> None:
    while time.monotonic() < soak.deadline:
        action = soak.rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
        start = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT):
                result = await action(soak)
        except TimeoutError:
            result = f"WRONG: no end within {TIMEOUT:.0f} s"
        except (OSError, ValueError, IndexError, KeyError) as error:
            result = f"WRONG: {type(error).__name__}: {error}"
        if result in ("error event", "error 500") and soak.last_kill < start:
            result = f"WRONG: {result} though the engine lived"
        if result == "refused 503" and soak.down_until < start:
            result = "WRONG: refused 503 though the engine was ready"
        soak.seen[f"{action.__name__}: {result.split(':')[0]}"] += 1
        if result.startswith("WRONG"):
            soak.wrong.append(f"{action.__name__}: {result}")
        await asyncio.sleep(soak.rng.expovariate(5))


async def killer(soak: Soak, seconds: float) -> None:
    """Kill the engine now and then; it must be back in time."""
    while time.monotonic() + 2 * seconds < soak.deadline:
        await asyncio.sleep(seconds * soak.rng.uniform(0.5, 1.5))
        killed = engines_of(soak.server.pid)
        for pid in killed:
            soak.last_kill, soak.down_until = time.monotonic(), math.inf
            os.kill(pid, signal.SIGKILL)
            soak.seen["engine killed"] += 1
        # /health of the time before the server knew would say nothing of the next engine
        while not set(engines_of(soak.server.pid)) - set(killed):
            if soak.server.poll() is not None or time.monotonic() > soak.last_kill + TIMEOUT:
                break
            await asyncio.sleep(0.05)
        if not await ready(soak, TIMEOUT):
            soak.wrong.append(f"the engine did not come back within {TIMEOUT:.0f} s")
            soak.deadline = 0.0
        soak.down_until = time.monotonic()


async def watch_memory(soak: Soak) -> None:
    while True:
        pids = [soak.server.pid, *engines_of(soak.server.pid)]
        soak.memory.append((time.monotonic(), sum(map(resident, pids))))
        await asyncio.sleep(0.5)


async def ready(soak: Soak, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and soak.server.poll() is None:
        try:
            if (await soak.send("GET", "/health")).status == 200:
                return True
        except (OSError, IndexError):
            pass
        await asyncio.sleep(0.1)
    return False


ZERO_WHEN_IDLE = ("llamacpp:requests_processing", "llamacpp:requests_deferred", "corral_kv_blocks_used")


async def check_idle(soak: Soak) -> None:
    """All slots and blocks must come back once nobody asks."""
    end = time.monotonic() + IDLE_SECONDS
    while True:
        slots = json.loads(body_of(await soak.send("GET", "/slots")))
        busy = [slot["id"] for slot in slots if slot["is_processing"]]
        metrics = (await soak.send("GET", "/metrics")).body.decode()
        kept = {name: value for name in ZERO_WHEN_IDLE if (value := gauge(metrics, name)) != 0.0}
        if not busy and not kept:
            return
        if time.monotonic() > end:
            soak.wrong.append(f"{IDLE_SECONDS:.0f} s after the last request: busy slots {busy}, {kept}")
            return
        await asyncio.sleep(0.2)


def gauge(metrics: str, name: str) -> float | None:
    found = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else None


def check_memory(soak: Soak) -> str:
    """Compares the most in the last third of the time with the most in the third before."""
    start, end = soak.memory[0][0], soak.memory[-1][0]
    thirds = [start + (end - start) * share for share in (1 / 3, 2 / 3, 1.0)]
    middle = max(size for at, size in soak.memory if thirds[0] <= at <= thirds[1])
    last = max(size for at, size in soak.memory if thirds[1] <= at <= thirds[2])
    if last > middle + GROWTH_BYTES:
        soak.wrong.append(f"memory grew from {middle >> 20} to {last >> 20} MiB")
    return f"memory: at most {middle >> 20} MiB in the middle third, {last >> 20} MiB in the last"


def engines_of(server: int) -> list[int]:
    """The engine processes of a server."""
    try:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return [int(c) for c in children if b"corral.engine" in Path(f"/proc/{c}/cmdline").read_bytes()]
    except OSError:
        return []


def resident(pid: int) -> int:
    """Bytes of memory that are the process's own: mapped files are the page cache's."""
    try:
        return sum(
            int(line.split()[1]) << 10
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("RssAnon:")
        )
    except OSError:
        return 0


async def measure_words(soak: Soak) -> None:
    answer = await soak.send("POST", "/tokenize", json.dumps({"content": WORDS}).encode())
    soak.tokens_per_word = len(json.loads(body_of(answer))["tokens"]) / len(WORDS.split())


async def run(args: argparse.Namespace, port: int, server: subprocess.Popen[bytes]) -> Soak:
    soak = Soak(port, server, args.ctx_size, random.Random(args.seed), time.monotonic() + 60 * args.minutes)
    if not await ready(soak, TIMEOUT):
        soak.wrong.append("the server did not get ready")
        return soak
    await measure_words(soak)
    memory = asyncio.create_task(watch_memory(soak))
    try:
        tasks = [client(soak) for _ in range(args.clients)]
        await asyncio.gather(killer(soak, args.kill_seconds), *tasks)
        if not await ready(soak, TIMEOUT):
            soak.wrong.append("the server was not ready at the end")
        else:
            await check_idle(soak)
    finally:
        memory.cancel()
    return soak


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--ctx-size", type=int, default=1024)
    parser.add_argument(
        "--kill-seconds", type=float, default=30.0, help="between two kills of the engine, about"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "corral.cli", "serve", "--model", args.model, "--port", str(port)]
    command += ["--ctx-size", str(args.ctx_size), "--parallel", "4", "--metrics", "--verbosity", "1"]
    server = subprocess.Popen(command)
    try:
        soak = asyncio.run(run(args, port, server))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(30)
    if code != 0:
        soak.wrong.append(f"the server ended with code {code}, expected 0")
    if not any(what.endswith(": ok") for what in soak.seen):
        soak.wrong.append("no request got what it asked for")
    for what, count in sorted(soak.seen.items()):
        print(f"{count:8d}  {what}")
    if soak.memory:
        print(check_memory(soak))
    for what in sorted(set(soak.wrong)):
        print(f"{soak.wrong.count(what):8d}  {what}")
    print("failed" if soak.wrong else "passed")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
