"""`corral health` against real sockets; the process that serves is this one, or a child."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corral.tools import health

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'
LOADING = b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"error":{"message":"Loading model"}}'

Serve = Callable[..., socket.socket]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server that gives every client the same bytes, and keeps what they sent in `requests`."""
    with contextlib.ExitStack() as stack:

        def start(answer: bytes, address: tuple[str, int] | str = ("127.0.0.1", 0)) -> socket.socket:
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            sock = stack.enter_context(socket.socket(family))
            sock.bind(address)
            sock.listen()
            sock.settimeout(5)

            def run() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        client, _ = sock.accept()
                        with client:
                            requests.append(client.recv(4096))
                            client.sendall(answer)

            threading.Thread(target=run, daemon=True).start()
            return sock

        requests.clear()
        yield start


requests: list[bytes] = []


def url(sock: socket.socket) -> str:
    return "http://{}:{}".format(*sock.getsockname())


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (OK, 0, 'healthy: 127.0.0.1:PORT/health says 200 {"status":"ok"}'),
        (LOADING, 1, 'unhealthy: 127.0.0.1:PORT/health says 503 {"error":{"message":"Loading model"}}'),
        (b"SSH-2.0-OpenSSH\r\n", 1, "unhealthy: 127.0.0.1:PORT does not speak HTTP"),
        (b"", 1, "unhealthy: 127.0.0.1:PORT does not speak HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", 1, "unhealthy: 127.0.0.1:PORT does not speak HTTP"),
    ],
)
def test_answers(
    answer: bytes, code: int, words: str, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    sock = serve(answer)
    assert health.main([url(sock)]) == code
    assert capsys.readouterr().out.strip() == words.replace("PORT", str(sock.getsockname()[1]))


def test_a_path_in_the_url_is_the_prefix(serve: Serve) -> None:
    assert health.main([url(serve(OK)) + "/llm/"]) == 0
    assert requests[0].startswith(b"GET /llm/health HTTP/1.1\r\n")


def test_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    serve(OK, str(tmp_path / "a.sock"))
    assert health.main([f"unix://{tmp_path}/a.sock"]) == 0


def test_nobody_listens(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert health.main([url(free)]) == 1
    assert "Connection refused" in capsys.readouterr().out


def test_a_silent_server_is_waited_for_as_long_as_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert health.main([url(silent), "--timeout", "0.1"]) == 1
    assert "did not answer within 0.1 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "1"], "invalid argument: --port"),
        (["ftp://x"], "expected http://HOST:PORT"),
        (["http://a", "http://b"], "invalid argument: http://b"),
        (["--timeout"], "--timeout: expected seconds above 0, got ''"),
        (["--timeout=soon"], "got 'soon'"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(words) == 1
    assert message in capsys.readouterr().err


def test_what_a_process_listens_on(tmp_path: Path) -> None:
    path = str(tmp_path / "with a space.sock")
    with (
        socket.socket() as tcp,
        socket.socket(socket.AF_INET6) as tcp6,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        tcp.bind(("0.0.0.0", 0))
        tcp6.bind(("::1", 0))
        unix.bind(path)
        before = list(health.listening(os.getpid()))
        for sock in (tcp, tcp6, unix):
            sock.listen()
        found = [address for address in health.listening(os.getpid()) if address not in before]
        assert found == [("127.0.0.1", tcp.getsockname()[1]), ("::1", tcp6.getsockname()[1]), path]


SERVER = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as sock:
    print("listening", flush=True)
    while True:
        client, _ = sock.accept()
        print(client.recv(4096).split()[1].decode(), flush=True)
        client.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n{}")
        client.close()
"""


@pytest.mark.slow
def test_the_server_is_found_among_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama-server").write_text(SERVER)
    command = [sys.executable, str(tmp_path / "llama-server"), "--api-prefix", "/llm", "-m", "x.gguf"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            # other servers of this machine are not ours to ask
            monkeypatch.setattr(health.os, "listdir", only(process.pid, os.listdir))
            assert health.main([]) == 0
            assert process.stdout.readline() == "/llm/health\n"
        finally:
            process.kill()


def only(pid: int, listdir: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    return lambda path: [str(pid)] if path == "/proc" else listdir(path)


@pytest.mark.parametrize(
    ("words", "serves"),
    [
        (["/usr/bin/python3", "/app/llama-server", "-m", "x"], True),
        (["llama-server"], True),
        (["/opt/corral/bin/python3", "/opt/corral/bin/corral", "serve", "-m", "x"], True),
        (["python3", "-m", "corral.cli", "serve"], True),
        (["python3", "/usr/local/bin/corral", "health"], False),
        (["sh", "-c", "llama-server -m x"], False),
        (["tail", "-f", "llama-server.log"], False),
        ([], False),
    ],
)
def test_who_is_a_server(words: list[str], serves: bool) -> None:
    assert health._serves(words) is serves


def test_without_a_server_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health.os, "listdir", only(os.getpid(), os.listdir))
    assert health.main([]) == 1
    assert capsys.readouterr().out == "unhealthy: no llama-server or corral serve runs here\n"


def test_it_is_quick() -> None:
    code = "import sys, corral.cli, corral.tools.health; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert loaded.isdisjoint({"argparse", "asyncio", "dataclasses", "json", "logging", "numpy", "ssl"})
