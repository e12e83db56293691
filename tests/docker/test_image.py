"""What is in the image, and under which users and restrictions it runs."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable

import pytest
from containers import Container, chat, docker, until

Start = Callable[..., Container]
MOST_COMPRESSED = 150e6


def run(image: str, *words: str) -> str:
    return docker("run", "--rm", "--entrypoint", words[0], image, *words[1:])


def test_what_scripts_for_other_images_expect(images: str) -> None:
    config = json.loads(docker("inspect", f"{images}:server"))[0]["Config"]
    assert config["Entrypoint"] == ["/app/llama-server"]
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert config["User"] == "10001:0"
    assert config["WorkingDir"] == "/app"
    assert "LLAMA_ARG_HOST=0.0.0.0" in config["Env"]
    assert config["Healthcheck"]["Test"] == ["CMD", "corral", "health"]
    assert config["Healthcheck"]["StartPeriod"] > 0
    assert config["Labels"]["org.opencontainers.image.title"] == "corral"
    look = "for name in curl llama-server corral; do command -v $name; done; ls /app"
    found = run(f"{images}:server", "sh", "-c", look)
    assert found.split() == [
        "/usr/bin/curl", "/usr/local/bin/llama-server", "/usr/local/bin/corral", "corral", "llama-server",
    ]  # fmt: skip


def test_no_compiler_no_pip_no_bytecode_to_write(images: str) -> None:
    script = """
        command -v gcc cc g++ make pip pip3
        find / -xdev ( -name 'numpy*' -path '*tests*' -o -path '/root/.cache/*' ) -print
        find /opt/corral -name '*.py' ! -path '*/bin/*' | while read -r f; do
            b=${f##*/}
            ls "${f%/*}/__pycache__/${b%.py}".*.pyc >/dev/null 2>&1 || echo "no bytecode: $f"
        done | head -n 3
        true
    """
    script = script.replace("( ", "\\( ").replace(" )", " \\)")
    assert run(f"{images}:server", "sh", "-c", script) == ""


def test_size(images: str) -> None:
    """Printed by layer, as a registry would hold them."""
    total = 0
    with subprocess.Popen(["docker", "save", f"{images}:server"], stdout=subprocess.PIPE) as save:
        assert save.stdout is not None
        with tarfile.open(fileobj=save.stdout, mode="r|") as archive:
            for member in archive:
                if member.size < 1 << 16 or not member.isfile():
                    continue
                layer = archive.extractfile(member)
                assert layer is not None
                packed = compressed_size(layer)
                total += packed
                print(f"{member.name[:20]} {member.size / 1e6:.1f} MB, compressed {packed / 1e6:.1f} MB")
    print(f"in all {total / 1e6:.1f} MB compressed")
    assert 0 < total <= MOST_COMPRESSED


def compressed_size(layer: io.BufferedIOBase | object) -> int:
    class Counter(io.RawIOBase):
        count = 0

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            size = len(memoryview(data))  # type: ignore[arg-type]
            self.count += size
            return size

    counter = Counter()
    with gzip.GzipFile(fileobj=counter, mode="wb", compresslevel=6) as out:  # type: ignore[call-overload]
        while chunk := layer.read(1 << 20):  # type: ignore[union-attr]
            out.write(chunk)
    return counter.count


def test_version_and_help_need_no_model(images: str) -> None:
    assert docker("run", "--rm", f"{images}:server", "--version").startswith("version: 0.")
    assert "--ctx-size" in docker("run", "--rm", f"{images}:server", "--help")


HARD = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "64")


@pytest.mark.parametrize(
    "options",
    [
        ("--user", "0:0"),
        ("--user", "12345:0", *HARD),  # OpenShift: any user, group 0
        ("--user", "54321:54321", *HARD, "--network", "bridge"),
        ("--init",),
    ],
    ids=["root", "any user of group 0, all closed", "any user and group, all closed", "with an init"],
)
def test_users_and_restrictions(start: Start, options: tuple[str, ...]) -> None:
    container = start("--ctx-size", "1024", options=options)
    url = container.wait_ready()
    assert "Berlin" in chat(url).json()["choices"][0]["message"]["content"]
    assert container.exec("corral", "health").startswith("healthy: 127.0.0.1:8080/health says 200")
    assert "Traceback" not in container.logs()


def test_the_variables_are_enough(start: Start) -> None:
    variables = (
        "-e",
        "LLAMA_ARG_MODEL=/models/SmolLM2-135M-Instruct.Q4_1.gguf",
        "-e",
        "LLAMA_ARG_CTX_SIZE=768",
    )
    container = start(options=variables, model=None)
    container.wait_ready()
    assert "context: 768 tokens" in container.logs()


def test_the_demo_image_needs_nothing(start: Start) -> None:
    container = start(model=None, volume=None, tag="demo", options=("--network", "bridge"))
    assert chat(container.wait_ready()).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("--port", "9000"), "127.0.0.1:9000/health"),
        (("--api-prefix", "/llm"), "127.0.0.1:8080/llm/health"),
        (("--host", "/tmp/llama.sock"), "/tmp/llama.sock/health"),
        (("--host", "::"), "127.0.0.1:8080/health"),
    ],
)
def test_the_probe_knows_where_to_ask(start: Start, arguments: tuple[str, ...], where: str) -> None:
    container = start("--ctx-size", "512", *arguments, options=("--health-interval", "1s"))
    until(lambda: container.health == "healthy", 60, lambda: (container.state, container.logs()))
    assert container.state["Health"]["Log"][-1]["Output"].startswith(f"healthy: {where} says 200")
