"""Models that come from elsewhere, in containers: an init container, a server that fetches, what can fail.

The hub is a stand-in on this machine's loopback, which the containers share.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from containers import Container, chat, docker, until

sys.path.insert(0, str(Path(__file__).parent.parent / "download"))
from stand_in import COMMIT, Fault, File, Repo, StandIn, stand_in

Start = Callable[..., Container]
NAME = "model-Q4_K_M.gguf"
IN_CACHE = f"/models/models--u--m/snapshots/{COMMIT}/{NAME}"
CLOSED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
TMP = ("--tmpfs", "/tmp", "-e", "HF_HOME=/tmp/huggingface")


@pytest.fixture
def hub(smollm2_path: Path) -> Iterator[StandIn]:
    with stand_in() as server:
        content = smollm2_path.read_bytes()
        server.repos["u/m"] = Repo({NAME: content})
        server.files["/model.gguf"] = File(content)
        yield server


@pytest.fixture
def volume(images: str) -> Iterator[str]:
    name = docker("volume", "create", f"corral-test-{uuid.uuid4().hex[:12]}")
    yield name
    docker("volume", "rm", "--force", name, check=False)


@dataclass(frozen=True)
class Pull:
    """As an init container: `corral pull WORDS`, closed, the volume at /models."""

    images: str
    hub: StandIn
    volume: str

    def __call__(self, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        place = () if "/models:" in " ".join(options) else ("-v", f"{self.volume}:/models")
        command = [
            "docker", "run", "--rm", "--network", "host", *CLOSED, *TMP, *place,
            "-e", f"HF_ENDPOINT={self.hub.url}", "-e", "LLAMA_CACHE=/models", *options,
            "--entrypoint", "corral", f"{self.images}:server", "pull", *words,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def pull(images: str, hub: StandIn, volume: str) -> Pull:
    return Pull(images, hub, volume)


def test_an_init_container_fetches_and_the_server_only_reads(pull: Pull, start: Start) -> None:
    pull.hub.repos["u/m"].faults = [Fault(cut=30_000_000)]  # the connection breaks once
    done = pull("u/m:Q4_K_M", options=("--user", "12345:0"))
    assert (done.returncode, done.stdout) == (0, f"{IN_CACHE}\n"), done.stderr
    assert f"{NAME}: 100 %, 98.4 MB of 98.4 MB" in done.stderr.splitlines()[-1]
    fetched = len(pull.hub.requests)
    assert pull("u/m:Q4_K_M", options=("--user", "12345:0")).stdout == f"{IN_CACHE}\n"
    again = pull.hub.requests[fetched:]
    assert [path for method, path, _ in again if method == "GET" and "/resolve/" in path] == []

    container = start(
        "-hf", "u/m:Q4_K_M", "--offline", "--ctx-size", "512",
        model=None, volume=f"{pull.volume}:/models:ro",
        options=("-e", "LLAMA_CACHE=/models", "--user", "54321:54321", *CLOSED),
    )  # fmt: skip
    assert "Berlin" in chat(container.wait_ready()).json()["choices"][0]["message"]["content"]
    assert f"model file: {IN_CACHE}" in container.logs()


def test_a_server_that_fetches_is_not_ready_meanwhile_and_goes_on_after_a_stop(
    hub: StandIn, volume: str, start: Start, unused_tcp_port: int
) -> None:
    hub.files["/model.gguf"].faults = [Fault(cut=50_000_000, hang=True)]
    container = start(
        "--model-url", f"{hub.url}/model.gguf", "--ctx-size", "512", "--port", str(unused_tcp_port),
        model=None, volume=f"{volume}:/models",
        options=("--network", "host", "-e", "LLAMA_CACHE=/models", *CLOSED, "--tmpfs", "/tmp"),
    )  # fmt: skip
    until(lambda: "downloading model.gguf, 98.4 MB" in container.logs(), 30, container.logs)
    until(lambda: _health(unused_tcp_port) == 503, 10)
    size = ("sh", "-c", "stat -c %s /models/*/model.gguf.part")
    until(lambda: container.exec(*size) == "50000000", 30, container.logs)
    docker("stop", container.id)
    assert container.state["ExitCode"] == 0
    docker("start", container.id)
    until(lambda: _health(unused_tcp_port) == 200, 60, container.logs)
    assert "98.4 MB, 50 MB of it are here already" in container.logs()


def _health(port: int) -> int:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize(
    ("repo", "words", "options", "said"),
    [
        (Repo({}, status=403, code="GatedRepo"), ("u/m",), (), "is gated: accept the terms on its page"),
        (Repo({}, status=401), ("u/m",), (), "401: not for everybody; give --hf-token or HF_TOKEN"),
        (Repo({}, status=401), ("u/m",), ("-e", "HF_TOKEN=t"), "401: the token is not valid"),
        (None, ("u/none",), (), "no such model: check the name; if it is private, give --hf-token"),
        (None, ("u/m:Q8_0",), (), f"u/m has no GGUF file of quantization 'Q8_0'; it has {NAME}"),
        (None, ("u/m",), ("--tmpfs", "/models:size=50m,mode=1777"), "98.4 MB more in /models, where 52.4 MB"),
        (None, ("u/m", "-o", "/away"), (), "can't write to /away: Read-only file system (uid 10001)"),
        (None, ("u/m",), ("-e", "HF_ENDPOINT=http://127.0.0.1:9"), ":9/u/m: no answer: "),
    ],
    ids=["gated", "no token", "wrong token", "not there", "no such file", "disk full", "read-only", "nobody"],
)
def test_what_is_wrong_is_one_line(
    pull: Pull, repo: Repo | None, words: tuple[str, ...], options: tuple[str, ...], said: str
) -> None:
    if repo is not None:
        pull.hub.repos["u/m"] = repo
    done = pull(*words, options=options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
