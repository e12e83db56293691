"""A server of files and of the hub's API on the loopback, which can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c" * 40


@dataclass
class File:
    """What is at one path. The faults come one a GET, in order; then all is well."""

    content: bytes
    etag: str | None = "auto"
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """`status` instead of the file; or the first `cut` bytes of the answer, then silence or the end."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    hang: bool = False


@dataclass
class Repo:
    """A model of the hub. `sums`: what the API says, where that is not the truth."""

    files: dict[str, bytes]
    status: int = 0
    code: str = ""
    sums: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    commit: str = COMMIT


class StandIn(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, File] = {}
        self.repos: dict[str, Repo] = {}
        self.token = ""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def gets(self, path: str) -> list[dict[str, str]]:
        """The headers of all GETs of `path`."""
        return [headers for method, seen, headers in self.requests if (method, seen) == ("GET", path)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._say(401, {})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/main)?", path):
            self._model(found[1])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._resolve(found[1], found[2])
        elif path in self.server.files:
            self._file(self.server.files[path])
        else:
            self._say(404, {})

    def _model(self, name: str) -> None:
        repo = self.server.repos.get(name)
        if repo is None:
            self._say(401, {"X-Error-Code": "RepoNotFound"})
        elif repo.status:
            self._say(repo.status, {"X-Error-Code": repo.code} if repo.code else {})
        else:
            siblings = [
                {
                    "rfilename": file,
                    "size": len(data),
                    "lfs": {"sha256": sum, "size": len(data), "pointerSize": 1},
                }
                for file, data in repo.files.items()
                for sum in [repo.sums.get(file, hashlib.sha256(data).hexdigest())]
            ]
            self._say(200, {}, json.dumps({"id": name, "sha": repo.commit, "siblings": siblings}).encode())

    def _resolve(self, name: str, file: str) -> None:
        repo = self.server.repos.get(name)
        if repo is None or file not in repo.files:
            self._say(404, {"X-Error-Code": "EntryNotFound" if repo else "RepoNotFound"})
            return
        etag = f'"{hashlib.sha256(repo.files[file]).hexdigest()}"'
        faults = repo.faults if self.command == "GET" else []
        self._file(File(repo.files[file], etag, {"X-Repo-Commit": repo.commit}, faults=faults))

    def _file(self, file: File) -> None:
        fault = file.faults.pop(0) if file.faults else Fault()
        if fault.status:
            self._say(fault.status, fault.headers)
            return
        etag = f'"{hashlib.md5(file.content).hexdigest()}"' if file.etag == "auto" else file.etag
        headers = {"Content-Type": "application/octet-stream", **file.headers}
        if etag is not None:
            headers["ETag"] = etag
        if etag is not None and self.headers.get("If-None-Match") == etag:
            self._say(304, {"ETag": etag})
            return
        start, size = 0, len(file.content)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and file.ranges and self.headers.get("If-Range", etag) == etag:
            start = int(asked[1])
            if start >= size:
                self._say(416, {"Content-Range": f"bytes */{size}"})
                return
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self._say(206 if start else 200, headers, file.content[start:], fault)

    def _say(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes = b"",
        fault: Fault = Fault(),
    ) -> None:
        self.send_response(status)
        if "Transfer-Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or status == 304:
            return
        self.wfile.write(body[: fault.cut] if fault.cut else body)
        self.wfile.flush()
        if fault.hang:
            self.server.release.wait(20)
        if fault.cut:
            self.close_connection = True


@contextmanager
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Said:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.starts: list[tuple[str, int | None, int]] = []
        self.came = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, name: str, total: int | None, done: int) -> None:
        self.starts.append((name, total, done))

    def advance(self, count: int) -> None:
        self.came += count

    def finish(self) -> None:
        pass
