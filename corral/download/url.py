"""A file from any http or https address: taken up again where it stopped, checked, and there whole or not."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.download import http, source
from corral.download.http import Answer, Temporary
from corral.download.places import CHUNK, cant_write, check_space, make_folder
from corral.download.progress import Progress
from corral.download.source import Source
from corral.errors import DownloadError

ATTEMPTS = 5
"""In a row without a new byte."""
MOST_ATTEMPTS = 200
"""In all."""
LONGEST_WAIT = 60.0
STALL_SECONDS = 60.0
STALL_BYTES = 64 << 10
"""Less than this in that time is as good as nothing."""
MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One file to fetch."""

    url: str
    target: Path
    sha256: str = ""
    """Expected; empty: as the server says, if it does."""
    token: str | None = None
    offline: bool = False
    sleep: Callable[[float], None] = time.sleep
    timeout: float = http.TIMEOUT


def download(job: Job, progress: Progress) -> Path:
    """The file, of which nothing is fetched again that is here already. Raises DownloadError.

    A newer file at the address replaces ours once it is complete. When nobody answers, ours will do.
    """
    http.check_url(job.url)
    if job.offline:
        if not job.target.exists():
            raise DownloadError(f"{job.target} is not here, and --offline forbids to fetch it")
        return _checked(job)
    if job.target.exists() and not os.access(job.target.parent, os.W_OK):
        progress.note(f"{job.target} is here, in a folder that can't be written: it is used as it is")
        return _checked(job)
    make_folder(job.target.parent)
    with _locked(job.target, progress):
        known = source.read(job.target) if job.target.exists() else None
        if job.target.exists() and known is None:
            progress.note(f"{job.target} is here, though not from a download: it is used as it is")
            return _checked(job)
        if known and known.url != http.shown(job.url):
            known = None  # another model by now
        try:
            return _Fetch(job, known, progress).run()
        except Temporary as error:
            if known is None:
                raise
            progress.note(f"{error}; using {job.target}, which is here already")
            return _checked(job)
        except OSError as error:
            raise DownloadError(cant_write(job.target, error)) from None


def _checked(job: Job) -> Path:
    if job.sha256:
        known = source.read(job.target)
        found = known.sha256 if known and known.sha256 else _sha256(job.target).hexdigest()
        if found != job.sha256:
            raise DownloadError(
                f"{job.target}: sha256 is {found}, expected {job.sha256}; delete it to fetch it"
            )
    return job.target


@contextlib.contextmanager
def _locked(target: Path, progress: Progress) -> Iterator[None]:
    """One process at a time: containers may share a volume."""
    path = target.with_name(f".{target.name}.lock")
    try:
        file = path.open("ab")
    except OSError as error:
        raise DownloadError(cant_write(path, error)) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"another process is fetching {target.name}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield


class _Fetch:
    """Attempts until the file is complete. `part` has the bytes so far, and a note of what they are of."""

    def __init__(self, job: Job, known: Source | None, progress: Progress) -> None:
        self.job, self.known, self.progress = job, known, progress
        self.part = job.target.with_name(job.target.name + ".part")

    def run(self) -> Path:
        attempt = 0
        for count in itertools.count(1):
            before = self._have()
            try:
                return self._try()
            except Temporary as error:
                attempt = 1 if self._have() > before else attempt + 1
                ours_will_do = self.known is not None and not self._have()
                if ours_will_do or attempt == ATTEMPTS or count == MOST_ATTEMPTS:
                    raise
                wait = min(max(error.after, 2.0 ** (attempt - 1)), LONGEST_WAIT)
                self.progress.note(f"{error}; trying again in {wait:g} s")
                self.job.sleep(wait)
        raise AssertionError("it goes on for ever")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _try(self) -> Path:
        """One request."""
        begun, have = source.read(self.part), self._have()
        if not (begun and source.strong(begun) and begun.url == http.shown(self.job.url)):
            # nothing says that the rest would be of the same file
            source.forget(self.part)
            begun, have = None, 0
        headers = {}
        if begun and have:
            headers = {"Range": f"bytes={have}-", "If-Range": begun.etag}
        elif self.known and self.known.etag and not self._unwanted(self.known):
            headers = {"If-None-Match": self.known.etag}
        answer = http.get(self.job.url, headers, self.job.token, self.job.timeout)
        with contextlib.closing(answer):
            if answer.status == 304:
                return self.job.target
            if answer.status == 416:
                return self._beyond_the_end(answer, begun, have)
            if answer.status == 206:
                self._check_range(answer, have)
            else:
                have = 0
                if self.known and self._same(answer, self.known):
                    return self.job.target
            return self._take(answer, have)

    def _same(self, answer: Answer, known: Source) -> bool:
        """Without an etag on either side, the size has to do."""
        size = answer.header("Content-Length")
        bare = not known.etag and not answer.header("ETag")
        return bare and size == str(known.size) and not self._unwanted(known)

    def _unwanted(self, known: Source) -> bool:
        return bool(self.job.sha256) and known.sha256 != self.job.sha256

    def _check_range(self, answer: Answer, have: int) -> None:
        found = re.match(r"bytes (\d+)-", answer.header("Content-Range"))
        if not have or not found or int(found[1]) != have:
            source.forget(self.part)
            raise Temporary(f"{http.shown(self.job.url)}: asked for bytes from {have}, got others")

    def _beyond_the_end(self, answer: Answer, begun: Source | None, have: int) -> Path:
        """The server has no more bytes than we: we have them all, or it is another file by now."""
        if begun and answer.header("Content-Range") == f"bytes */{have}" and begun.size in (None, have):
            return self._complete(_sha256(self.part), begun, "")
        source.forget(self.part)
        raise Temporary(f"{http.shown(self.job.url)}: the file has changed")

    def _take(self, answer: Answer, have: int) -> Path:
        size = answer.header("Content-Length")
        total = have + int(size) if size.isdecimal() else None
        note = Source(url=http.shown(self.job.url), etag=answer.header("ETag"), size=total)
        if total is not None:
            check_space(self.part.parent, total - have, self.job.target.name)
        digest = _sha256(self.part) if have else hashlib.sha256()
        source.write(self.part, note)
        self.progress.start(self.job.target.name, total, have)
        try:
            with self.part.open("ab" if have else "wb") as file:
                for data in self._pieces(answer):
                    if file.tell() == 0 and not data.startswith(MAGIC[: len(data)]):
                        source.forget(self.part)
                        kind = answer.header("Content-Type") or "something else"
                        raise DownloadError(
                            f"{http.shown(self.job.url)} is not a GGUF file: it is {kind[:80]} that begins "
                            f"with {data[:16]!r}"
                        )
                    file.write(data)
                    digest.update(data)
                    self.progress.advance(len(data))
        finally:
            self.progress.finish()
        have = self._have()
        if total is not None and have != total:
            raise Temporary(f"{http.shown(self.job.url)}: the connection ended after {have} of {total} bytes")
        return self._complete(digest, note, http.sha256_of(answer))

    def _pieces(self, answer: Answer) -> Iterator[bytes]:
        since, got = time.monotonic(), 0
        while data := answer.read(CHUNK):
            yield data
            got += len(data)
            now = time.monotonic()
            if now - since > STALL_SECONDS:
                if got < STALL_BYTES:
                    raise Temporary(f"{http.shown(self.job.url)}: {got} bytes in {now - since:.0f} s")
                since, got = now, 0

    def _complete(self, digest: hashlib._Hash, note: Source, promised: str) -> Path:
        found, wanted = digest.hexdigest(), self.job.sha256 or promised
        if wanted and found != wanted:
            source.forget(self.part)
            raise DownloadError(
                f"{http.shown(self.job.url)}: sha256 is {found}, expected {wanted}; what came was deleted"
            )
        note.sha256, note.size = found, self._have()
        self.part.replace(self.job.target)
        source.write(self.job.target, note)
        source.forget(self.part)
        return self.job.target


def _sha256(path: Path) -> hashlib._Hash:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")
