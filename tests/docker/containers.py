"""Running `docker`, and what a container says of itself."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent.parent
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHAT = "/v1/chat/completions"
BUILD_SECONDS = 3600
READY_SECONDS = 90


def docker(*words: str, timeout: float = 60, check: bool = True, **more: Any) -> str:
    """What `docker WORDS` prints on standard output."""
    result = subprocess.run(
        ["docker", *words], capture_output=True, text=True, timeout=timeout, check=False, **more
    )
    assert not check or result.returncode == 0, f"docker {' '.join(words)}: {result.stdout}{result.stderr}"
    return result.stdout.strip()


class Container:
    """One that was started; `id` may be its name."""

    def __init__(self, id: str) -> None:
        self.id = id

    def inspect(self, what: str) -> Any:
        return json.loads(docker("inspect", "--format", f"{{{{json {what}}}}}", self.id))

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.inspect(".State")
        return found

    @property
    def health(self) -> str:
        return str(self.state["Health"]["Status"])

    def logs(self) -> str:
        """Both streams."""
        result = subprocess.run(
            ["docker", "logs", self.id],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        return result.stdout

    def exec(self, *words: str, user: str = "") -> str:
        return docker("exec", *(["--user", user] if user else []), self.id, *words)

    def url(self, port: int = 8080) -> str:
        published = self.inspect(".NetworkSettings.Ports")[f"{port}/tcp"][0]["HostPort"]
        return f"http://127.0.0.1:{published}"

    def wait_exit(self, seconds: float = 30) -> int:
        """Its exit code."""
        return int(docker("wait", self.id, timeout=seconds))

    def wait_ready(self, seconds: float = READY_SECONDS) -> str:
        """The address, once /health says 200."""
        until(lambda: not self.state["Running"] or self._answers(), seconds, self.logs)
        assert self.state["Running"], f"exit code {self.state['ExitCode']}: {self.logs()}"
        return self.url()

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url() + "/health", timeout=2).status_code == 200
        except (httpx.TransportError, TypeError, KeyError, IndexError):
            return False

    def kill_engine(self) -> None:
        """SIGKILL to the engine process."""
        self.exec(
            "sh",
            "-c",
            "for p in /proc/[0-9]*; do grep -qs engine[.]process $p/cmdline && kill -9 ${p#/proc/}; done; :",
        )


def until(condition: Callable[[], bool], seconds: float, explain: Callable[[], object] = str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {explain()}"
        time.sleep(0.2)


def build(*words: str) -> None:
    """The builder without BuildKit can use a base image that was imported."""
    command = ["docker", "build", "--network", "host", *words, str(ROOT)]
    result = subprocess.run(
        command,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
    )
    assert result.returncode == 0, f"{' '.join(command)}: {result.stdout[-4000:]}"


def chat(url: str, text: str = "What is the capital of Germany?", **more: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 16, **more}
    return httpx.post(url + CHAT, json=body, timeout=120)
