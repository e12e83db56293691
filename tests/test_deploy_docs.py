"""docs/deploy.md and the files that it points to: what they say must be so for this program."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from corral.command_line import parse
from corral.config import build
from corral.options import FLAGS, OTHER_VARIABLES
from corral.server import app
from corral.server.serve import KEEP_ALIVE_SECONDS
from corral.server.state import ServerState

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
NOWHERE = Path("/nonexistent/config.ini")
OURS = {name for flag in FLAGS for name in (*flag.names, *flag.off_names)} | {"--output"}
OTHERS = {
    # flags of docker, kubectl and traefik that the page may use
    "--cap-add", "--cap-drop", "--cpus", "--entrypoint", "--from-literal", "--health-start-period",
    "--memory", "--name", "--platform", "--profile", "--pull", "--push", "--read-only", "--restart", "--rm",
    "--security-opt", "--stop-timeout", "--target", "--tmpfs", "--ulimit", "--user",
}  # fmt: skip
VARIABLES = {name for flag in FLAGS for name in (*flag.env, *flag.off_env)} | OTHER_VARIABLES.keys()
OF_COMPOSE = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text(encoding="utf-8")))
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for language, block in BLOCKS if language == "sh" for line in block.replace("\\\n", " ").splitlines()
]
WORDS = [shlex.split(line.replace("...", "")) for line in COMMANDS]


def test_every_flag_exists() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", PAGE))
    assert len(named) > 30
    assert named - OURS - OTHERS == set()


def test_every_variable_exists() -> None:
    named = set(re.findall(r"\b(?:LLAMA|CORRAL|HF)_[A-Z_]+\b", PAGE))
    assert len(named) > 8
    assert named - VARIABLES - OF_COMPOSE == set()


def test_every_file_exists() -> None:
    named = set(re.findall(r"\b(?:corral/)?(deploy/[\w./-]+\w)", PAGE)) | {"compose.yaml"}
    named |= {f"docs/{name}" for name in re.findall(r"\]\(([^):]+)\)", PAGE)}
    assert len(named) > 8
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_path_is_served() -> None:
    named = set(re.findall(r"`(/(?:health|readyz|livez|metrics|v1/\w+))`", PAGE))
    assert len(named) == 5
    assert named <= {path for _, path, _ in app.ROUTES}


SERVERS = [
    words[next(i for i, word in enumerate(words) if word.startswith("corral:")) + 1 :]
    for words in WORDS
    if words[:2] == ["docker", "run"] and "--entrypoint" not in words
]


@pytest.mark.parametrize("words", SERVERS, ids=" ".join)
def test_a_server_would_start(words: list[str], tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("key\n")
    parsed = parse([str(keys) if word == "/tls/keys.txt" else word for word in words], {}, NOWHERE)
    build(parsed)
    assert parsed.warnings == []


def test_there_are_commands() -> None:
    assert len(SERVERS) >= 5
    assert {words[0] for words in WORDS if words and "=" not in words[0]} == {
        "docker", "corral", "kubectl", "git", "printf",
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [line for line in COMMANDS if re.search(r"\bcorral(:server)? pull\b", line)]
    + re.findall(r"`(corral info [^`]+)`", PAGE),
)
def test_a_tool_would_run(line: str) -> None:
    tool, *words = shlex.split(re.sub(r"^.*\bcorral(:server)? (?=pull|info)", "", line))
    parser = argparse.ArgumentParser()
    import_module(f"corral.tools.{tool}").add_arguments(parser)
    parser.parse_args(words)


def test_yaml_is_yaml() -> None:
    blocks = [block for language, block in BLOCKS if language == "yaml"]
    assert [yaml.safe_load(block)["kind"] for block in blocks] == ["Kustomization"]


def test_the_example_changes_what_the_base_has() -> None:
    base = yaml.safe_load((ROOT / "deploy/kubernetes/base/kustomization.yaml").read_text(encoding="utf-8"))
    (mine,) = [yaml.safe_load(block) for language, block in BLOCKS if language == "yaml"]
    assert mine["images"][0]["name"] == base["images"][0]["newName"]
    assert mine["configMapGenerator"][0]["name"] == base["configMapGenerator"][0]["name"]
    names = {line.split("=")[0] for line in mine["configMapGenerator"][0]["literals"]}
    assert names <= VARIABLES


def test_the_stack_says_what_the_server_knows() -> None:
    stack = yaml.safe_load((ROOT / "deploy/swarm/stack.yaml").read_text(encoding="utf-8"))
    service = stack["services"]["corral"]
    assert service["environment"].keys() <= VARIABLES
    assert service["environment"]["LLAMA_ARG_API_KEY_FILE"] == f"/run/secrets/{service['secrets'][0]}"
    drain = int(service["environment"]["CORRAL_DRAIN_TIMEOUT"])
    assert int(service["stop_grace_period"].removesuffix("s")) > drain


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile", "traefik.yaml"])
def test_a_proxy_closes_idle_connections_first(name: str) -> None:
    text = (ROOT / "deploy/proxy" / name).read_text(encoding="utf-8")
    (seconds,) = re.findall(r"(?:keepalive_timeout|keepalive|idleConnTimeout:) (\d+)s", text)
    assert int(seconds) < KEEP_ALIVE_SECONDS
    assert f"after {KEEP_ALIVE_SECONDS} s" in text


def test_a_proxy_lets_through_what_the_server_takes() -> None:
    largest = next(f.default for f in ServerState.__dataclass_fields__.values() if f.name == "max_body")
    assert f"client_max_body_size {largest >> 20}m;" in (ROOT / "deploy/proxy/nginx.conf").read_text("utf-8")
    assert f"max_size {largest >> 20}MiB" in (ROOT / "deploy/proxy/Caddyfile").read_text("utf-8")


def test_nginx_has_balanced_blocks() -> None:
    text = re.sub("#.*", "", (ROOT / "deploy/proxy/nginx.conf").read_text("utf-8"))
    assert text.count("{") == text.count("}") == 3
    assert all(line.strip().endswith((";", "{", "}")) for line in text.splitlines() if line.strip())
