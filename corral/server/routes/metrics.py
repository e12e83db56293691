"""GET /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from corral.errors import NotSupported
from corral.server.state import ServerState

if TYPE_CHECKING:
    from corral.server.metrics import Metrics


async def get_metrics(state: ServerState, http: Request) -> Response:
    if not state.config.metrics:
        raise NotSupported("This server does not support metrics endpoint. Start it with `--metrics`")
    metrics: Metrics = http.app.state.metrics
    headers = {"Process-Start-Time-Unix": str(metrics.start_time), "Content-Type": metrics.content_type}
    return Response(metrics.render(), headers=headers)
