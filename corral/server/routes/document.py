"""GET /openapi.json."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from corral.server.state import ServerState


async def get_document(_state: ServerState, http: Request) -> Response:
    # the first time, it is made: that takes longer than streams should wait
    made = await asyncio.to_thread(http.app.state.document)
    return Response(made, media_type="application/json; charset=utf-8")
