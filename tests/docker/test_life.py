"""Start, stop, kill: what `docker stop`, restart policies and health checks meet."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from containers import CHAT, MODEL, Container, chat, docker, until

Start = Callable[..., Container]
SMALL = ("--ctx-size", "2048")


class Stream(threading.Thread):
    """A client of a long generation; `lines` are what it got, `error` is why it ended early."""

    def __init__(self, url: str, max_tokens: int) -> None:
        super().__init__()
        self.url, self.max_tokens = url, max_tokens
        self.lines: list[str] = []
        self.error = ""
        self.start()
        until(lambda: len(self.lines) > 5 or bool(self.error), 30)

    def run(self) -> None:
        body = {
            "messages": [{"role": "user", "content": "Write a long story about the sea."}],
            "max_tokens": self.max_tokens, "stream": True, "logit_bias": [[2, False]],
        }  # fmt: skip
        try:
            with httpx.stream("POST", self.url + CHAT, json=body, timeout=120) as response:
                self.lines.extend(line for line in response.iter_lines() if line)
        except httpx.HTTPError as error:
            self.error = repr(error)

    def run_lines(self) -> list[str]:
        self.join(30)
        return self.lines


def test_stop_ends_within_ten_seconds_and_a_stream_with_an_error_event(start: Start) -> None:
    container = start(*SMALL)
    stream = Stream(container.wait_ready(), max_tokens=-1)
    began = time.monotonic()
    docker("stop", container.id)
    assert time.monotonic() - began < 10
    assert container.state["ExitCode"] == 0
    lines = stream.run_lines()
    assert stream.error == ""  # the chunked body was ended, not cut off
    assert "The server is shutting down" in lines[-1] or lines[-1] == "data: [DONE]"
    assert "SIGTERM: finishing the running requests, for 7 s at most" in container.logs()
    assert "Traceback" not in container.logs()


def test_what_can_finish_in_time_does_and_nothing_new_begins(start: Start) -> None:
    container = start(*SMALL, "--drain-timeout", "60")
    url = container.wait_ready()
    stream = Stream(url, max_tokens=300)
    docker("kill", "--signal", "TERM", container.id)
    time.sleep(0.5)
    with contextlib.suppress(httpx.TransportError):
        assert httpx.get(url + "/health").status_code == 503
        raise AssertionError("a new connection was taken")
    assert stream.run_lines()[-1] == "data: [DONE]"
    assert container.wait_exit(60) == 0


def test_a_second_signal_ends_at_once(start: Start) -> None:
    container = start(*SMALL, "--drain-timeout", "60")
    Stream(container.wait_ready(), max_tokens=-1)
    docker("kill", "--signal", "TERM", container.id)
    until(lambda: "finishing the running requests" in container.logs(), 10)
    began = time.monotonic()
    docker("kill", "--signal", "INT", container.id)
    assert container.wait_exit(15) == 0
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("seconds", [0.4, 1.0, 1.6])
def test_stop_while_it_starts(start: Start, seconds: float) -> None:
    """Process 1 ignores a signal that it has no handler for: there must be one before anything is loaded."""
    container = start(*SMALL)
    time.sleep(seconds)
    began = time.monotonic()
    docker("stop", container.id)
    assert time.monotonic() - began < 8
    assert container.state["ExitCode"] == 0, container.logs()


def test_health_from_starting_to_healthy_to_unhealthy_and_restart(start: Start, home: Path) -> None:
    folder = home / "changing"
    folder.mkdir(exist_ok=True)
    shutil.copy(home / "models" / MODEL, folder / MODEL)
    container = start(
        *SMALL,
        volume=f"{folder}:/models",
        options=(
            "--health-interval", "1s", "--health-retries", "2", "--health-start-period", "60s",
            "--restart", "on-failure:1",
        ),
    )  # fmt: skip
    assert container.health == "starting"
    container.wait_ready()
    until(lambda: container.health == "healthy", 30, lambda: container.state)

    # an engine that dies is started again, and the container stays
    container.kill_engine()
    until(lambda: "the engine is ready again" in container.logs(), 60, container.logs)
    assert "was killed by SIGKILL, perhaps because memory ran out" in container.logs()
    assert chat(container.wait_ready()).status_code == 200
    assert container.state["Running"]

    # one that can't come back: unhealthy, then the end with an error, and the restart policy has its turn
    (folder / MODEL).rename(folder / "gone.gguf")
    container.kill_engine()
    until(lambda: container.health == "unhealthy", 40, lambda: (container.state, container.logs()))
    until(lambda: container.inspect(".RestartCount") == 1, 60, container.logs)
    until(lambda: not container.state["Running"], 60, container.logs)
    assert container.state["ExitCode"] == 1
    logs = container.logs()
    assert "it was started 5 times in vain" in logs
    assert f"/models/{MODEL}: file is missing" in logs


def test_killed_it_leaves_nothing_behind_and_starts_again(start: Start) -> None:
    container = start(*SMALL)
    container.wait_ready()
    docker("kill", container.id)
    assert container.state["ExitCode"] == 137
    docker("start", container.id)
    assert chat(container.wait_ready()).status_code == 200


def test_orphans_are_collected(start: Start) -> None:
    container = start(*SMALL)
    container.wait_ready()
    # what a health check leaves when it is killed for taking too long
    container.exec("sh", "-c", "(sleep 0.2 &) ; exit 0")
    until(lambda: "Z (zombie)" not in container.exec("sh", "-c", "cat /proc/[0-9]*/status"), 20)


def test_the_log_as_json(start: Start) -> None:
    """On standard output alone: `docker logs NAME | grep` finds it."""
    container = start(*SMALL, "--log-jsonl")
    url = container.wait_ready()
    chat(url)
    docker("stop", container.id)
    assert docker("logs", container.id) == container.logs().strip()
    entries = [json.loads(line) for line in container.logs().splitlines()]
    assert {"time", "level", "logger", "message"} <= entries[0].keys()
    messages = [entry["message"] for entry in entries]
    assert any(message.startswith("server is listening on http://0.0.0.0:8080") for message in messages)
    assert any(message.startswith(f"POST {CHAT} 200") for message in messages)


def test_what_ends_it_is_json_too(start: Start) -> None:
    container = start("--log-jsonl", model="/models/none.gguf")
    assert container.wait_exit() == 1
    last = json.loads(container.logs().splitlines()[-1])
    assert last["level"] == "error"
    assert "/models/none.gguf: file is missing" in last["message"]


def test_a_mistake_is_one_line_and_exit_code_1(start: Start) -> None:
    container = start("--ctx-sice", "4096")
    assert container.wait_exit() == 1
    assert container.logs().splitlines()[0] == "error: invalid argument: --ctx-sice"
