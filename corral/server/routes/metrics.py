"""GET /metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from corral.errors import NotSupported
from corral.server.metrics import CONTENT_TYPE, Metrics
from corral.server.state import ServerState


async def get_metrics(state: ServerState, http: Request) -> Response:
    if not state.config.metrics:
        raise NotSupported("This server does not support metrics endpoint. Start it with `--metrics`")
    metrics: Metrics = http.app.state.metrics
    headers = {"Process-Start-Time-Unix": str(metrics.start_time), "Content-Type": CONTENT_TYPE}
    return Response(metrics.render(), headers=headers)
