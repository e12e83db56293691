"""`docker compose up` from a checkout."""

from __future__ import annotations

import json
import os

from containers import MODEL, ROOT, Container, chat, docker, until


def test_compose_up_serves_the_model_in_the_image(images: str) -> None:
    environment = {**os.environ, "CORRAL_PORT": "0"}
    compose = ("compose", "--project-name", "corral-test", "--file", str(ROOT / "compose.yaml"))
    had_models = (ROOT / "models").exists()
    docker(*compose, "up", "--detach", "--no-build", env=environment)
    try:
        container = Container(docker(*compose, "ps", "--quiet", "corral", env=environment))
        url = container.wait_ready()
        assert "Berlin" in chat(url).json()["choices"][0]["message"]["content"]
        until(lambda: container.health == "healthy", 40, lambda: container.state)
        assert container.inspect(".HostConfig.Memory") == 2 << 30
        assert container.inspect(".HostConfig.RestartPolicy.Name") == "unless-stopped"
        assert container.inspect(".HostConfig.ReadonlyRootfs") is True
        docker(*compose, "stop", env=environment)
        assert container.state["ExitCode"] == 0
    finally:
        docker(*compose, "down", "--volumes", env=environment)
        if not had_models:
            (ROOT / "models").rmdir()  # the engine makes a folder that a volume names


def test_another_model_by_variable() -> None:
    environment = {**os.environ, "CORRAL_MODEL": MODEL, "CORRAL_MEMORY": "8g", "CORRAL_MODELS": "/srv/models"}
    words = (
        "compose",
        "--file",
        str(ROOT / "compose.yaml"),
        "--profile",
        "monitoring",
        "config",
        "--format",
        "json",
    )
    config = json.loads(docker(*words, env=environment))
    service = config["services"]["corral"]
    assert service["environment"]["LLAMA_ARG_MODEL"] == f"/models/{MODEL}"
    assert service["volumes"][0]["source"] == "/srv/models"
    assert {"prometheus", "grafana"} <= config["services"].keys()
