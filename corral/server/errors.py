"""llama-server's error envelope."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from corral.errors import CorralError, InternalError, NotFound, Overloaded, RequestError, Unavailable

log = logging.getLogger("corral.server")


def envelope(error: CorralError) -> dict[str, Any]:
    """`{"error": {code, message, type, ...}}`."""
    return {"error": {"code": error.status, "message": str(error), "type": error.type, **error.extra()}}


class MethodNotAllowed(RequestError):
    status = 405


class RequestTimeout(RequestError):
    status = 408


def as_corral_error(error: Exception) -> CorralError:
    """Any exception as one that has an envelope. What nobody raised on purpose is our bug: logged, a 500."""
    if isinstance(error, CorralError):
        return error
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return NotFound("File Not Found")
        if error.status_code == 405:
            allowed = sorted((error.headers or {}).get("Allow", "").split(", "))
            return MethodNotAllowed(f"Method Not Allowed, expected {' or '.join(allowed)}")
        return RequestError(str(error.detail))
    log.error("a request failed because of a bug", exc_info=error)
    return InternalError("Internal error: a bug of this server, its log has the details")


def error_response(error: CorralError, headers: dict[str, str] | None = None) -> Response:
    """The error as a response, with Retry-After where trying again makes sense."""
    headers = dict(headers or {})
    if isinstance(error, (Unavailable, Overloaded)):
        headers["Retry-After"] = str(error.retry_after)
    return json_response(envelope(error), error.status, headers)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json; charset=utf-8")
