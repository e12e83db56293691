"""llama-server's error envelope."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from corral.errors import (
    ContextSizeError,
    CorralError,
    InternalError,
    NotFound,
    RequestError,
)

log = logging.getLogger("corral.server")


def envelope(error: CorralError) -> dict[str, Any]:
    """`{"error": {code, message, type, ...}}`."""
    return {"error": {"code": error.status, "message": str(error), "type": error.type, **error.extra()}}


ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""By status. Others are `invalid_request_error` below 500 and `api_error` from there on."""


def anthropic_envelope(error: CorralError) -> dict[str, Any]:
    """`{"type": "error", "error": {type, message}}`."""
    kind = ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    message = str(error)
    if isinstance(error, ContextSizeError):  # by these words clients see that they should make it shorter
        message = f"prompt is too long: {error.n_prompt_tokens} tokens > {error.n_ctx} maximum: {message}"
    return {"type": "error", "error": {"type": kind, "message": message}}


def ollama_envelope(error: CorralError) -> dict[str, Any]:
    """`{"error": message}`."""
    return {"error": str(error)}


Envelope = Callable[[CorralError], dict[str, Any]]


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


def error_response(
    error: CorralError, headers: dict[str, str] | None = None, shape: Envelope = envelope
) -> Response:
    """The error as a response, with Retry-After where trying again makes sense."""
    headers = dict(headers or {})
    if error.retry_after:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 501:  # OpenAI's and Anthropic's clients try everything from 500 on again otherwise
        headers["X-Should-Retry"] = "false"
    return json_response(shape(error), error.status, headers)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json; charset=utf-8")
