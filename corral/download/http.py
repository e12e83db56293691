"""One GET with the standard library: bounded redirects, http and https only, errors in plain words."""

from __future__ import annotations

import base64
import binascii
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from corral import __version__
from corral.errors import DownloadError

MOST_REDIRECTS = 5
TIMEOUT = 30.0
"""Seconds of silence."""
ADVICE = {
    401: "it asks for a login; give --hf-token for a gated model, or https://USER:PASSWORD@... for a server",
    403: "it forbids this; accept the model's terms on its page, or check the token",
    404: "there is no such file; check the address",
    407: "the proxy asks for a login; see HTTPS_PROXY",
    410: "the file is gone; check the address",
    429: "too many requests; try again later, or give --hf-token",
}
TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be others soon."""


class Temporary(DownloadError):
    """Trying again may help. `after`: seconds to wait, if the server says."""

    def __init__(self, message: str, after: float = 0) -> None:
        self.after = after
        super().__init__(message)


class Answer:
    """A response with status 200, 206, 304 or 416, and the headers of the redirects before it."""

    def __init__(self, response: Any, status: int, url: str, passed: list[Message]) -> None:
        self._response, self.status, self.url, self._passed = response, status, url, passed

    def header(self, name: str) -> str:
        """Empty if it is not there."""
        value = self._response.headers.get(name)
        return str(value).strip() if value is not None else ""

    def header_of_any(self, name: str) -> str:
        """The same, also of the redirects that led here; theirs comes first."""
        return next((str(m[name]).strip() for m in self._passed if m[name] is not None), self.header(name))

    def read(self, most: int) -> bytes:
        """What has come, up to `most` bytes; empty at the end. Raises Temporary."""
        try:
            data: bytes = self._response.read1(most)
        except (OSError, http.client.HTTPException) as error:
            raise Temporary(f"{shown(self.url)}: the connection broke: {_reason(error)}") from None
        return data

    def close(self) -> None:
        self._response.close()


def check_url(url: str) -> None:
    """Raises DownloadError unless it is an http or https address with a host."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or not url.isascii() or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise DownloadError(
            f"{url[:300]!r} is not an address, expected http://HOST/FILE or https://HOST/FILE"
        )


def shown(url: str) -> str:
    """An address for messages: no password, no query, which may be a signature."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def get(url: str, headers: Mapping[str, str], token: str | None = None, timeout: float = TIMEOUT) -> Answer:
    """Asks for `url`. The caller closes the answer. Raises DownloadError, Temporary."""
    check_url(url)
    parts = urlsplit(url)
    sent = {"User-Agent": f"corral/{__version__}", "Accept-Encoding": "identity", **headers}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        sent["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    elif token:
        sent["Authorization"] = f"Bearer {token}"
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        response = opener.open(urllib.request.Request(bare, headers=sent), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code in (304, 416):
            return Answer(error, error.code, url, redirects.passed)
        with error:
            raise _refused(url, error) from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"can't download {shown(url)}: its certificate: {reason.verify_message}"
            ) from None
        raise Temporary(f"can't download {shown(url)}: {_reason(reason)}") from None
    answer = Answer(response, response.status, url, redirects.passed)
    if answer.status not in (200, 206) or answer.header("Content-Encoding") not in ("", "identity"):
        answer.close()
        what = answer.header("Content-Encoding") or f"status {answer.status}"
        raise DownloadError(f"can't download {shown(url)}: it answers with {what}, expected the plain file")
    return answer


def sha256_of(answer: Answer) -> str:
    """The sum of the whole file in hexadecimal, if a header gives it; else empty.

    `Repr-Digest` is RFC 9530, `Digest` RFC 3230; object stores and the hub have headers of their own.
    """
    for name, pattern in (
        ("Repr-Digest", r"sha-256=:([^:]+):"),
        ("Digest", r"sha-256=([^,;\s]+)"),
        ("x-amz-checksum-sha256", r"^([^-]+)$"),
    ):
        if found := re.search(pattern, answer.header(name), re.IGNORECASE):
            try:
                digest = base64.b64decode(found[1], validate=True)
            except (binascii.Error, ValueError):
                continue
            if len(digest) == 32:
                return digest.hex()
    linked = answer.header_of_any("X-Linked-ETag").strip('"').lower()
    return linked if re.fullmatch("[0-9a-f]{64}", linked) else ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A few, never from https to http, and without the login when they lead to another host."""

    def __init__(self) -> None:
        self.passed: list[Message] = []

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        self.passed.append(headers)
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if len(self.passed) > MOST_REDIRECTS:
            raise DownloadError(f"can't download {shown(req.full_url)}: over {MOST_REDIRECTS} redirects")
        check_url(newurl)
        if old.scheme == "https" and new.scheme == "http":
            raise DownloadError(
                f"can't download {shown(req.full_url)}: it redirects from https to http, {shown(newurl)}"
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            request.remove_header("Authorization")
        return request


def _refused(url: str, error: urllib.error.HTTPError) -> DownloadError:
    advice = ADVICE.get(error.code)
    reason = re.sub("[^ -~]", "?", str(error.reason))[:80]
    text = f"can't download {shown(url)}: {error.code} {reason}" + (f": {advice}" if advice else "")
    if error.code not in TEMPORARY:
        return DownloadError(text)
    after = str(error.headers.get("Retry-After", ""))
    return Temporary(text, float(after) if after.isdecimal() else 0)


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__
