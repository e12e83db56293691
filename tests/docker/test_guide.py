"""The commands of a common guide to llama.cpp in Docker, word for word, after changing two names.

The guide is "How to Run LLM Inference with llama.cpp in Docker". Replaced are the image's name, the file of
the model (a small one is here) and, where it is taken, the port of the host. `--gpus all` is left out: an
engine without NVIDIA's runtime refuses it before it looks at the image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from containers import MODEL, Container, build, docker, until

FILE = "mistral-7b-instruct-v0.3.Q4_K_M.gguf"
IMAGE = "ghcr.io/ggerganov/llama.cpp:"

QUICK_START = f"""\
docker run -d \\
  --name llama-server \\
  -p 8080:8080 \\
  -v ~/models:/models \\
  {IMAGE}server \\
  --model /models/{FILE} \\
  --host 0.0.0.0 \\
  --port 8080 \\
  --ctx-size 4096 \\
  --threads 8
"""
CURL = """\
curl http://localhost:8080/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "messages": [
      {"role": "user", "content": "What is container orchestration?"}
    ],
    "temperature": 0.7,
    "max_tokens": 256
  }'
"""
GPU = f"""\
docker run -d \\
  --name llama-gpu \\
  --gpus all \\
  -p 8080:8080 \\
  -v ~/models:/models \\
  {IMAGE}server-cuda \\
  --model /models/{FILE} \\
  --host 0.0.0.0 \\
  --port 8080 \\
  --ctx-size 4096 \\
  --n-gpu-layers 99 \\
  --threads 4
"""
COMPOSE = f"""\
version: "3.8"

services:
  llama:
    image: {IMAGE}server
    container_name: llama-server
    ports:
      - "8080:8080"
    volumes:
      # Mount the directory containing your GGUF model files
      - ./models:/models
    command: >
      --model /models/{FILE}
      --host 0.0.0.0
      --port 8080
      --ctx-size 4096
      --threads 8
      --parallel 4
      --cont-batching
    restart: unless-stopped
    deploy:
      resources:
        limits:
          memory: 8g
"""
CUSTOM_BUILD = "docker build -t llama-custom ."
CUSTOM = f"""\
docker run -d --name llama-custom -p 8080:8080 \\
  -v ~/models:/models \\
  llama-custom \\
  --model /models/{FILE} \\
  --host 0.0.0.0 --port 8080
"""
CLIENT = """\
from openai import OpenAI

# Point the client at the llama.cpp server instead of OpenAI
client = OpenAI(
    base_url="http://localhost:8080/v1",
    api_key="not-needed"  # llama.cpp does not require an API key
)

response = client.chat.completions.create(
    model="local-model",
    messages=[
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Explain microservices architecture."}
    ],
    max_tokens=512,
    temperature=0.7
)

print(response.choices[0].message.content)
"""
OPTIMIZED = f"""\
docker run -d \\
  --name llama-optimized \\
  -p 8080:8080 \\
  -v ~/models:/models \\
  {IMAGE}server \\
  --model /models/{FILE} \\
  --host 0.0.0.0 \\
  --port 8080 \\
  --ctx-size 4096 \\
  --threads 16 \\
  --batch-size 1024 \\
  --parallel 8 \\
  --cont-batching \\
  --mlock
"""
HEALTH = f"""\
docker run -d \\
  --name llama-health \\
  --health-cmd "curl -f http://localhost:8080/health || exit 1" \\
  --health-interval 30s \\
  --health-timeout 5s \\
  --health-retries 3 \\
  -p 8080:8080 \\
  -v ~/models:/models \\
  {IMAGE}server \\
  --model /models/{FILE} \\
  --host 0.0.0.0 --port 8080
"""
TEXTS = (QUICK_START, CURL, GPU, COMPOSE, CUSTOM_BUILD, CUSTOM, CLIENT, OPTIMIZED, HEALTH)


def test_these_are_the_words_of_the_guide(shared_dir: Path) -> None:
    guide = (shared_dir / "guide" / "llama-cpp-in-docker.md").read_text(encoding="utf-8")
    assert [text for text in TEXTS if text.strip() not in guide] == []


@dataclass(frozen=True)
class Machine:
    """Where the commands are typed: a home with models/, and a host's port."""

    home: Path
    port: int
    images: str

    def here(self, text: str) -> str:
        replaced = text.replace(IMAGE, f"{self.images}:").replace(FILE, MODEL)
        replaced = replaced.replace("  --gpus all \\\n", "")
        replaced = replaced.replace("-p 8080:8080", f"-p {self.port}:8080")
        replaced = replaced.replace('- "8080:8080"', f'- "{self.port}:8080"')
        if "docker run" in text:
            return replaced  # --health-cmd is about the port inside
        return replaced.replace("localhost:8080", f"localhost:{self.port}")

    def type(self, command: str) -> str:
        """What the command prints on standard output."""
        result = subprocess.run(
            ["sh", "-c", self.here(command)],
            env={**os.environ, "HOME": str(self.home)},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


NAMES = ("llama-server", "llama-gpu", "llama-custom", "llama-optimized", "llama-health")


@pytest.fixture
def machine(images: str, home: Path, host_port: int) -> Iterator[Machine]:
    taken = set(docker("ps", "--all", "--format", "{{.Names}}").split()) & set(NAMES)
    assert not taken, f"there are containers {taken}; remove them: the guide uses these names"
    yield Machine(home, host_port, images)
    for name in NAMES:
        docker("rm", "--force", name, check=False)


def test_quick_start_and_the_first_request(machine: Machine) -> None:
    id = machine.type(QUICK_START).strip()
    assert len(id) == 64
    container = Container("llama-server")
    container.wait_ready()
    assert docker("ps", "--filter", "name=llama-server", "--format", "{{.Status}}").startswith("Up")
    logs = container.logs()
    for words in ("corral ", "Q4_1", "context: ", "server is listening on http://0.0.0.0:8080"):
        assert words in logs
    cores = len(os.sched_getaffinity(0))
    if cores < 8:
        assert f"warning: --threads 8 is more than the {cores} that can run at once" in logs
    assert logs.count("warning") == (cores < 8)

    reply = json.loads(machine.type(CURL))
    assert reply["object"] == "chat.completion"
    assert reply["choices"][0]["message"]["role"] == "assistant"
    assert reply["choices"][0]["message"]["content"].strip()
    assert reply["choices"][0]["finish_reason"] in ("stop", "length")
    assert 0 < reply["usage"]["completion_tokens"] <= 256

    (machine.home / "app.py").write_text(machine.here(CLIENT))
    words = subprocess.run(
        [sys.executable, "app.py"], cwd=machine.home, capture_output=True, text=True, timeout=300
    )
    assert words.returncode == 0, words.stderr
    assert len(words.stdout.split()) > 3

    url = f"http://localhost:{machine.port}"
    assert httpx.get(url + "/v1/models").json()["data"][0]["id"]
    docker("stop", "llama-server")
    assert container.state["ExitCode"] == 0


def test_the_image_for_gpus_runs_on_the_cpu_and_says_so_once(machine: Machine) -> None:
    machine.type(GPU)
    container = Container("llama-gpu")
    container.wait_ready()
    assert container.logs().count("there is no GPU backend") == 1
    assert json.loads(machine.type(CURL))["choices"]


def test_the_image_for_gpus_says_so_without_a_flag(start: Callable[..., Container]) -> None:
    container = start("--ctx-size", "512", tag="server-cuda")
    container.wait_ready()
    assert container.logs().count("there is no GPU backend") == 1


def test_compose(machine: Machine) -> None:
    folder = machine.home / "compose"
    folder.mkdir(exist_ok=True)
    (folder / "docker-compose.yml").write_text(machine.here(COMPOSE))
    if not (folder / "models").exists():
        (folder / "models").symlink_to(machine.home / "models")
    compose = ("compose", "--project-directory", str(folder), "--file", str(folder / "docker-compose.yml"))
    docker(*compose, "up", "-d")
    try:
        container = Container("llama-server")
        container.wait_ready()
        assert "4 requests at a time" in container.logs()
        assert container.inspect(".HostConfig.Memory") == 8 << 30
        assert container.inspect(".HostConfig.RestartPolicy.Name") == "unless-stopped"
        assert json.loads(machine.type(CURL))["choices"]
        docker(*compose, "stop")
        assert container.state["ExitCode"] == 0
    finally:
        docker(*compose, "down")


def test_a_custom_image(machine: Machine) -> None:
    *_, option, name, _ = CUSTOM_BUILD.split()
    build(option, name)  # in a checkout, which has a Dockerfile where the guide has its own
    machine.type(CUSTOM)
    container = Container("llama-custom")
    container.wait_ready()
    assert container.inspect(".Config.Entrypoint") == ["llama-server"]
    built = container.exec(
        "/opt/corral/bin/python", "-c", "from corral import _native; print(_native.isas())"
    )
    assert set(built.strip("[]").replace("'", "").split(", ")) <= {"avx2", "scalar"}
    assert json.loads(machine.type(CURL))["choices"]


def test_the_optimized_command(machine: Machine) -> None:
    machine.type(OPTIMIZED)
    container = Container("llama-optimized")
    container.wait_ready()
    logs = container.logs()
    assert "8 requests at a time" in logs
    if "--mlock has no effect" in logs:
        assert "docker run --ulimit memlock=-1:-1" in logs
    else:
        locked = container.exec("sh", "-c", "grep -h VmLck /proc/[0-9]*/status")
        assert any(int(line.split()[1]) > 0 for line in locked.splitlines())
    assert json.loads(machine.type(CURL))["choices"]


def test_the_health_check_of_the_guide(machine: Machine) -> None:
    machine.type(HEALTH)
    container = Container("llama-health")
    assert container.health == "starting"
    container.wait_ready()
    until(lambda: container.health == "healthy", 60, lambda: container.state)
    log = container.state["Health"]["Log"]
    assert log[-1]["ExitCode"] == 0
    assert '{"status":"ok"}' in log[-1]["Output"]
