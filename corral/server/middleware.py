"""What holds for every path, as plain ASGI: headers, CORS, errors, API keys, 503 until the model is there."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.errors import AuthenticationError
from corral.server.access_log import log_request
from corral.server.cors import Cors
from corral.server.errors import Envelope, as_corral_error, envelope, error_response
from corral.server.observer import Observer
from corral.server.state import ServerState

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""What is taken over from a client. It goes into a header and the log."""
CLIENT_LEFT = 499
"""Stands for a status, in the log and the metrics, when nobody was there to get one."""
ALWAYS_SERVED = ("/health", "/v1/health", "/livez", "/readyz")
"""Paths that need no key and answer while the model loads."""
PAGE = ("", "/", "/index.html", "/sw.js", "/manifest.webmanifest", "/_app/version.json")
"""Paths of a page that need no key: a browser has none to send. The last three are of llama-server's page."""


class Conventions:
    """The headers of every response, CORS preflights, an envelope for every exception, a line in the log.

    `shapes` has the paths whose errors have another form; `scope["shape"]` tells everybody. The paths in
    `quiet`, which somebody polls, are only logged when much is. `routes` names the handlers for the
    `observer`, and the fixed paths, for requests that did not get as far as a handler: any other path of a
    client must not become a label.
    """

    def __init__(
        self,
        app: ASGIApp,
        cors: Cors,
        quiet: Iterable[str],
        shapes: Mapping[str, Envelope],
        routes: Mapping[Any, str],
        observer: Observer,
    ) -> None:
        self.app, self.cors, self.quiet, self.shapes = app, cors, frozenset(quiet), shapes
        self.routes, self.observer = routes, observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Headers(scope=scope)
        given_id = request.get("x-request-id", "")
        request_id = given_id if REQUEST_ID.fullmatch(given_id) else uuid.uuid4().hex
        shape = scope["shape"] = self.shapes.get(scope["path"], envelope)
        began, status, reason = time.perf_counter(), 0, ""

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["Server"] = "llama.cpp"
                headers["X-Request-Id"] = request_id
                if "origin" in request:
                    headers.add_vary_header("Origin")
                    if self.cors.allows(request["origin"]):
                        headers["Access-Control-Allow-Origin"] = request["origin"]
            await send(message)

        if scope["method"] == "OPTIONS":
            await Response(headers=self.cors.preflight)(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            if status:  # too late for an answer: the server closes the connection
                raise
            known = as_corral_error(error)
            reason = str(known)
            await error_response(known, shape=shape)(scope, receive, send_with_headers)
        finally:
            route = self.routes.get(scope.get("endpoint")) or self.routes.get(scope["path"], "other")
            self.observer.responses[route, status or CLIENT_LEFT] += 1
            log_request(
                scope,
                level=logging.DEBUG if scope["path"] in self.quiet else logging.INFO,
                status=status or CLIENT_LEFT,
                milliseconds=1000 * (time.perf_counter() - began),
                request_id=request_id,
                reason=reason or scope.get("outcome", ""),
            )


class ApiKeys:
    """Asks for one of the keys, in `Authorization: Bearer KEY` or `X-Api-Key: KEY`. No keys: open to all.

    `scope["key"]` says which it was, without giving it away.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str], public: Iterable[str]) -> None:
        self.app = app
        self.keys = [_digest(key) for key in keys]
        self.public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.keys and scope["path"] not in self.public:
            headers = Headers(scope=scope)
            scheme, _, bearer = headers.get("authorization", "").partition(" ")
            given = [headers.get("x-api-key", ""), bearer.strip() if scheme.lower() == "bearer" else ""]
            digests = [_digest(key) for key in given if key]
            # every pair is compared, so that the time says nothing about the keys
            known = [b for a in digests for b in self.keys if hmac.compare_digest(a, b)]
            if not known:
                raise AuthenticationError("Invalid API Key")
            scope["key"] = known[0].hex()
        await self.app(scope, receive, send)


class Readiness:
    """Turns requests away until the model is loaded, and again while the server shuts down."""

    def __init__(self, app: ASGIApp, state: ServerState, always: Iterable[str]) -> None:
        self.app, self.state, self.always = app, state, frozenset(always)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.always:
            refusal = self.state.refusal()
            if refusal is not None:
                raise refusal
        await self.app(scope, receive, send)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
