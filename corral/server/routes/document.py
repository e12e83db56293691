"""GET /openapi.json."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from corral.server.state import ServerState


async def get_document(_state: ServerState, http: Request) -> Response:
    return Response(http.app.state.document(), media_type="application/json; charset=utf-8")
