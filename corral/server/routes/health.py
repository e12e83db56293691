"""GET /health and its kin."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from corral.server.errors import error_response, json_response
from corral.server.state import ServerState


async def health(state: ServerState, _request: Request) -> Response:
    """200 when requests are served, 503 while loading, draining, or when the engine failed."""
    refusal = state.refusal()
    return error_response(refusal) if refusal else json_response({"status": "ok"})


async def livez(_state: ServerState, _request: Request) -> Response:
    """200 as long as the server answers at all."""
    return json_response({"status": "ok"})
