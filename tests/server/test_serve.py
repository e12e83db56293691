"""The server as a process: start, announcement, signals, failures. A fake engine, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, fake_state

from corral import __version__
from corral.engine.messages import Status
from corral.errors import OptionError
from corral.server import serve, sockets

sys.path.insert(0, str(Path(__file__).parent.parent / "download"))
from stand_in import Fault, File, StandIn, stand_in

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PATIENT = ("--", "--drain-timeout", "30")
"""A server that ends sooner did not wait for what it need not wait for."""
BODY: Any = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


class Process:
    def __init__(self, *arguments: str, **variables: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "serve_fake.py"), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT), **variables},
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        self.lines.extend(iter(self.popen.stderr.readline, ""))  # one by one, as they come
        self.popen.stderr.close()

    def until(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while True:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.lines}"
            time.sleep(0.01)

    def url(self) -> str:
        return self.until(r"server is listening on (https?://\S+)")[1]

    def wait(self, seconds: float = 10) -> int:
        code = self.popen.wait(seconds)
        self.reader.join(5)
        return code


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str, **variables: str) -> Process:
        started.append(Process(*arguments, **variables))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.popen.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_start_announce_serve_and_end(start: Callable[..., Process]) -> None:
    port = free_port()
    process = start("127.0.0.1", str(port), "loads", "Hel", "lo", *PATIENT)
    url = f"http://127.0.0.1:{port}"
    states = []
    deadline = time.monotonic() + 60
    while not states or states[-1] != 200:
        with contextlib.suppress(httpx.ConnectError):
            response = httpx.get(url + "/health")
            states.append(response.status_code)
            if response.status_code == 503:
                assert response.json()["error"]["message"] == "Loading model"
        assert time.monotonic() < deadline
    assert 503 in states
    assert process.url() == url
    text = "".join(process.lines)
    for word in (
        "warning: a warning",
        "corral 0.",
        "model: tiny",
        "context: 256 tokens",
        "avx2, 2 threads",
        "ready after",
    ):
        assert word in text
    assert "Hel" in httpx.post(url + "/v1/chat/completions", json=BODY).text
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "Traceback" not in "".join(process.lines)


async def test_a_log_says_how_far_a_long_load_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serve, "PROGRESS_SECONDS", 0.05)
    engine = FakeEngine([])
    engine.status = Status(state="loading", progress=0.42)
    with caplog.at_level("INFO"), serve._progress(fake_state(engine)):
        await asyncio.sleep(0.2)
    lines = caplog.messages
    assert lines[0] == "loading the model: 42 %"
    await asyncio.sleep(0.1)
    assert caplog.messages == lines  # no more of them once it is ready


def test_an_idle_server_sleeps(start: Callable[..., Process]) -> None:
    process = start("127.0.0.1", str(free_port()), "loads", "Hi")
    assert httpx.post(process.url() + "/v1/chat/completions", json=BODY).status_code == 200

    def wakes() -> int:
        tasks = Path(f"/proc/{process.popen.pid}/task").glob("*/status")
        return sum(int(n) for task in tasks for n in re.findall(r"_ctxt_switches:\s+(\d+)", task.read_text()))

    time.sleep(1)  # for the connection that was closed
    before = wakes()
    time.sleep(3)
    assert wakes() - before <= 9  # a date each second


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_stream_is_finished_before_the_end(start: Callable[..., Process], number: int) -> None:
    process = start("127.0.0.1", "0", "loads", "a", "b", "c", "d")
    with httpx.stream("POST", process.url() + "/v1/chat/completions", json=BODY) as response:
        lines = response.iter_lines()
        next(lines)
        process.popen.send_signal(number)
        rest = list(lines)
    assert rest[-2:] == ["data: [DONE]", ""]
    assert process.wait() == 0


@pytest.mark.slow
def test_a_stream_that_takes_too_long_ends_with_an_error(start: Callable[..., Process]) -> None:
    process = start("127.0.0.1", "0", "loads", *"abcdefghijklmnopqrstuvwxyz" * 2)
    with httpx.stream("POST", process.url() + "/v1/chat/completions", json=BODY) as response:
        lines = response.iter_lines()
        next(lines)
        process.popen.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert "The server is shutting down" in rest[-2]
    assert process.wait(4) == 0


def test_a_second_signal_ends_at_once(start: Callable[..., Process]) -> None:
    process = start("127.0.0.1", "0", "loads", *["word"] * 300, *PATIENT)
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.stream("POST", process.url() + "/v1/chat/completions", json=BODY) as response,
    ):
        next(response.iter_lines())
        process.popen.send_signal(signal.SIGTERM)
        process.until("finishing the running requests")
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("fate", "message"),
    [
        ("fails", "error: model.gguf: magic is HTML, expected GGUF"),
        ("dies", "error: The engine process was killed; it was started 5 times in vain"),
    ],
)
def test_without_an_engine_the_process_ends_with_one_line(
    start: Callable[..., Process], fate: str, message: str
) -> None:
    process = start("127.0.0.1", "0", fate)
    assert process.wait() == 1
    assert process.lines[-1].strip() == message


def test_an_occupied_port_is_an_error_that_names_it(start: Callable[..., Process]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start("127.0.0.1", str(port), "loads")
        assert process.wait() == 1
    assert process.lines == [
        f"corral {__version__}\n",
        "warning: a warning\n",
        f"error: couldn't bind to 127.0.0.1, port {port}: another process listens there; "
        "stop it or choose another --port\n",
    ]


def test_a_unix_socket(start: Callable[..., Process], tmp_path: Path) -> None:
    path = tmp_path / "llama.sock"
    process = start(str(path), "8080", "loads", "hi")
    process.until("server is listening on unix://")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x") as client:
        assert client.get("/health").json() == {"status": "ok"}
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert not path.exists()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "cert.pem", folder / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(made)]
    subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
    return made, key


def test_tls(start: Callable[..., Process], certificate: tuple[Path, Path]) -> None:
    made, key = certificate
    process = start(
        "127.0.0.1", "0", "loads", "Hel", "lo", "--", "--ssl-cert-file", str(made), "--ssl-key-file", str(key)
    )
    url = process.url()
    assert url.startswith("https://")
    trusting = ssl.create_default_context(cafile=str(made))
    with httpx.Client(base_url=url, verify=trusting) as client:
        assert client.get("/health").json() == {"status": "ok"}
        text = client.post("/v1/chat/completions", json=BODY).text
        assert text.endswith("data: [DONE]\n\n")
    with pytest.raises(httpx.ConnectError, match="self-signed certificate"):
        httpx.get(url + "/health")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url.replace("https:", "http:") + "/health")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "error: --ssl-cert-file needs --ssl-key-file too"),
        ("absent.pem", "absent.pem: can't be read: No such file or directory"),
        ("junk.pem", "can't be used: "),
    ],
)
def test_tls_without_a_key_of_use(
    start: Callable[..., Process], certificate: tuple[Path, Path], tmp_path: Path, key: Any, message: str
) -> None:
    (tmp_path / "junk.pem").write_text("no key")
    flags = ["--ssl-key-file", str(tmp_path / key)] if key else []
    process = start("127.0.0.1", "0", "loads", "--", "--ssl-cert-file", str(certificate[0]), *flags)
    assert process.wait() == 1
    assert message in process.lines[-1]


def test_keys_of_a_file_and_a_variable(start: Callable[..., Process], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\n two \n")
    process = start("127.0.0.1", "0", "loads", "--", "--api-key-file", str(file), LLAMA_API_KEY="three")
    with httpx.Client(base_url=process.url()) as client:
        assert client.get("/health").status_code == 200
        for key, status in {"one": 200, "two": 200, "three": 200, "four": 401}.items():
            assert client.get("/v1/models", headers={"X-Api-Key": key}).status_code == status, key
            bearer = client.get("/v1/models", headers={"Authorization": f"bearer {key}"})
            assert bearer.status_code == status, key
        refusal = client.get("/v1/models").json()["error"]
        assert (refusal["code"], refusal["type"]) == (401, "authentication_error")
    assert "three" not in "".join(process.lines)


def test_binding() -> None:
    bound = sockets.bind(["127.0.0.1", "127.0.0.2"], 0)
    ports = {s.getsockname()[1] for s in bound}
    assert len(ports) == 1
    with pytest.raises(OptionError, match="another process listens there"):
        sockets.bind(["127.0.0.1"], ports.pop())
    sockets.close(bound)


@pytest.mark.parametrize(("hosts", "answers"), [(["::"], True), (["::", "127.0.0.2"], False)])
def test_any_address_alone_takes_both_versions(hosts: list[str], answers: bool) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    bound = sockets.bind(hosts, 0)
    with socket.socket() as client:
        assert (client.connect_ex(("127.0.0.1", bound[0].getsockname()[1])) == 0) == answers
    sockets.close(bound)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("no such host", "--host no such host: not an address"),
        ("192.0.2.1", "not an address of this machine"),
        ("/nowhere/at/all.sock", "can't listen on this unix socket: No such file"),
    ],
)
def test_a_host_that_cant_be_listened_on_is_named(host: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sockets.bind([host], 0)


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    sockets.close(sockets.bind([path], 0))  # leaves the file
    assert Path(path).exists()
    bound = sockets.bind([path], 0)
    with pytest.raises(OptionError, match="can't listen on this unix socket: Address already in use"):
        sockets.bind([path], 0)
    sockets.close(bound)
    sockets.unlink([path, "127.0.0.1"])
    assert not Path(path).exists()


def test_the_server_is_imported_quickly_and_without_what_it_does_not_need() -> None:
    code = "import sys, corral.server.serve; print(*sorted(m.split('.')[0] for m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(result.stdout.split())
    assert loaded.isdisjoint(
        {"pydantic", "rich", "websockets", "prometheus_client", "httpx", "openai", "yaml"}
    )


@pytest.fixture
def files() -> Iterator[StandIn]:
    with stand_in() as server:
        server.files["/m.gguf"] = File(b"GGUF" + bytes(1000), faults=[Fault(cut=100, hang=True)])
        yield server


def test_while_a_model_is_downloaded_the_server_says_so(
    start: Callable[..., Process], files: StandIn, tmp_path: Path
) -> None:
    port = free_port()
    process = start("127.0.0.1", str(port), f"{files.url}/m.gguf", str(tmp_path), "hi")
    process.until(r"downloading m\.gguf, 1 kB")
    url = f"http://127.0.0.1:{port}"
    answer = httpx.get(f"{url}/health")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "Loading model"
    assert httpx.get(f"{url}/livez").status_code == 200
    files.release.set()
    process.until(r"model file: .*/m\.gguf")
    process.url()
    assert httpx.get(f"{url}/health").status_code == 200
    process.popen.terminate()
    assert process.wait() == 0


def test_a_download_may_be_ended_at_any_moment(
    start: Callable[..., Process], files: StandIn, tmp_path: Path
) -> None:
    process = start("127.0.0.1", "0", f"{files.url}/m.gguf", str(tmp_path), "hi")
    process.until("downloading")
    process.popen.terminate()
    assert process.wait(5) == 0


def test_a_download_that_fails_is_one_line(
    start: Callable[..., Process], files: StandIn, tmp_path: Path
) -> None:
    process = start("127.0.0.1", "0", f"{files.url}/none.gguf", str(tmp_path))
    assert process.wait() == 1
    assert process.lines[-1].startswith(f"error: can't download {files.url}/none.gguf: 404 Not Found")
