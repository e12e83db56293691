"""The files of deploy/proxy in the proxies that are installed: streams, lost clients, large bodies."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, fake_state

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent.parent / "deploy/proxy"
HOST = "llm.example.com"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def with_changes(name: str, *changes: tuple[str, str]) -> str:
    """A file, with the addresses and the certificate of the test."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def nginx(folder: Path, backend: str, port: int) -> list[str]:
    site = with_changes(
        "nginx.conf",
        ("127.0.0.1:8080", backend),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/llm.example.com.pem", f"{folder}/cert.pem"),
        ("/etc/ssl/llm.example.com.key", f"{folder}/key.pem"),
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root root;" if os.getuid() == 0 else ""  # who may enter the folder
    head = f"{user} daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}"
    path = folder / "nginx.conf"
    path.write_text(f"{head} http {{ access_log off; {temporary}\n{site}}}", encoding="utf-8")
    return ["nginx", "-e", "stderr", "-c", str(path)]


def caddy(folder: Path, backend: str, port: int) -> list[str]:
    site = with_changes(
        "Caddyfile",
        ("127.0.0.1:8080", backend),
        (f"{HOST} {{", f"https://{HOST}:{port} {{\n\ttls {folder}/cert.pem {folder}/key.pem"),
    )
    path = folder / "Caddyfile"
    path.write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{site}", encoding="utf-8")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)]


def traefik(folder: Path, backend: str, port: int) -> list[str]:
    text = with_changes(
        "traefik.yaml", ("127.0.0.1:8080", backend), ("        certResolver: letsencrypt\n", "")
    )
    text = text.replace("      tls:\n", "      tls: {}\n")
    path = folder / "traefik.yaml"
    path.write_text(text, encoding="utf-8")
    return [
        "traefik",
        f"--providers.file.filename={path}",
        f"--entryPoints.websecure.address=127.0.0.1:{port}",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
    ]


PROXIES = {"nginx": nginx, "caddy": caddy, "traefik": traefik}


class Proxy:
    def __init__(self, make: Callable[[Path, str, int], list[str]], folder: Path, backend: str) -> None:
        self.folder = folder
        files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
        kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
        subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        command = make(folder, backend, self.port)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": ""}
            self.popen = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def client(self) -> httpx.Client:
        """Asks the proxy by its name, whatever its certificate says: Traefik makes one up."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        url = f"https://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, headers={"Host": HOST}, verify=context, timeout=10)

    def wait(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                with self.client() as client:
                    if client.get("/health", extensions={"sni_hostname": HOST}).status_code == 200:
                        return
            except httpx.TransportError:
                pass
            running = self.popen.poll() is None and time.monotonic() < deadline
            assert running, self.log.read_text(encoding="utf-8")
            time.sleep(0.05)

    def stop(self) -> None:
        self.popen.terminate()
        try:
            self.popen.wait(5)
        finally:
            self.popen.kill()
            self.popen.wait()


@pytest.fixture(params=PROXIES)
def behind(
    request: pytest.FixtureRequest,
    live: Callable[[Any], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[FakeEngine], httpx.Client]]:
    """`behind(engine)`: a client of a proxy before a server of that engine."""
    name: str = request.param
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
    if not shutil.which(name, path=path):
        pytest.skip(f"no {name} on the PATH")
    monkeypatch.setenv("PATH", path)
    proxies: list[Proxy] = []

    def start(engine: FakeEngine) -> httpx.Client:
        backend = re.sub("^https?://", "", live(fake_state(engine)))
        proxies.append(Proxy(PROXIES[name], tmp_path, backend))
        proxies[0].wait()
        client = proxies[0].client()
        client.event_hooks["request"].append(lambda r: r.extensions.update(sni_hostname=HOST.encode()))
        return client

    yield start
    for proxy in proxies:
        proxy.stop()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_tokens_come_as_they_are_made_and_a_lost_client_is_noticed(
    behind: Callable[[FakeEngine], httpx.Client], path: str
) -> None:
    """Events, and lines of JSON."""
    engine = FakeEngine(["Hel", "lo", "never"], hold=2)  # a proxy that buffers would wait for the end
    with behind(engine) as client:
        with client.stream("POST", path, json={**BODY, "model": "m", "stream": True}) as reply:
            assert reply.status_code == 200
            lines = reply.iter_lines()
            assert any('"lo"' in line for line in lines)
            assert engine.cancelled == []
        deadline = time.monotonic() + 5
        while not engine.cancelled:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_whole_answers_and_large_bodies(behind: Callable[[FakeEngine], httpx.Client]) -> None:
    with behind(FakeEngine(["Hel", "lo"])) as client:
        reply = client.post("/v1/chat/completions", json=BODY)
        assert reply.json()["choices"][0]["message"]["content"] == "Hello"
        # too long for the model, not for the proxy
        long = {"messages": [{"role": "user", "content": "word " * 1_000_000}]}
        reply = client.post("/v1/chat/completions", json=long)
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "exceed_context_size_error")
