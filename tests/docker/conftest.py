"""A real Docker engine, as engine.sh sets one up. `./dev test docker` runs these, nothing else does.

The images are built once. Containers publish a port of their own choosing and are removed after each test.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import MODEL, ROOT, Container, build, docker

HERE = Path(__file__).parent

if "CORRAL_TEST_DOCKER" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("docker")


@pytest.fixture(scope="session")
def engine() -> str:
    """The version of the engine that runs."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command; tests/docker/engine.sh installs it")
    try:
        return docker("version", "--format", "{{.Server.Version}}")
    except (AssertionError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no Docker engine answers; tests/docker/engine.sh starts one: {error}")


@pytest.fixture(scope="session")
def images(engine: str) -> str:
    """The name of the images whose tags are server, server-cuda and demo.

    CORRAL_TEST_IMAGES names some that are there already and are not built again.
    """
    if "CORRAL_TEST_IMAGES" in os.environ:
        return os.environ["CORRAL_TEST_IMAGES"]
    for tag in ("server", "server-cuda", "demo"):
        build("--file", str(ROOT / "deploy/docker/Dockerfile"), "--target", tag, "--tag", f"corral:{tag}")
    return "corral"


@pytest.fixture(scope="session")
def home(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the model in models/, readable for anyone: the image does not run as root."""
    home = tmp_path_factory.mktemp("home")
    for folder in (home, *home.parents[:-1]):
        if folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)  # pytest's folders are closed to others
    (home / "models").mkdir()
    shutil.copy(smollm2_path, home / "models" / MODEL)
    (home / "models" / MODEL).chmod(0o644)
    return home


@pytest.fixture
def start(images: str, home: Path) -> Iterator[Callable[..., Container]]:
    """start(ARGUMENTS of the server, options=OPTIONS of docker run), the model mounted, a port published."""
    started: list[str] = []

    def run(
        *arguments: str,
        options: tuple[str, ...] = (),
        model: str | None = f"/models/{MODEL}",
        volume: str | None = "",
        tag: str = "server",
    ) -> Container:
        name = f"corral-test-{uuid.uuid4().hex[:12]}"
        started.append(name)
        mount = f"{home}/models:/models" if volume == "" else volume
        words = ["run", "-d", "--name", name, "-p", "127.0.0.1::8080", *options]
        words += ["-v", mount] if mount else []
        words += [f"{images}:{tag}", *(["--model", model] if model else []), *arguments]
        docker(*words)
        return Container(name)

    yield run
    for name in started:
        docker("rm", "--force", "--volumes", name, check=False)


@pytest.fixture(scope="session")
def host_port() -> int:
    """8080, as the guide has it, if it is free here."""
    for port in (8080, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("no port is free")
