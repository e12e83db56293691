"""What llama-server has and this server does not (yet): an answer that says so, instead of a 404."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from corral.errors import NotSupported
from corral.server.errors import json_response
from corral.server.state import ServerState


def not_supported(message: str) -> Callable[[ServerState, Request], Awaitable[Response]]:
    """A handler that refuses with this message, whatever the body."""

    async def refuse(_state: ServerState, _request: Request) -> Response:
        raise NotSupported(message)

    return refuse


async def no_adapters(_state: ServerState, _request: Request) -> Response:
    """GET /lora-adapters of a server that was started without any."""
    return json_response([])


transcriptions = not_supported("This model takes no audio: speech to text is not supported yet")
set_adapters = not_supported("LoRA adapters are not supported yet")
control = not_supported("Steering a running generation is not supported yet")
router = not_supported("Loading and unloading models is not supported: this server has the one of its -m")
resume = not_supported("Streams that can be taken up again are not supported yet")
proxy = not_supported("A proxy for the browser is not supported: it would reach what the server reaches")
tools = not_supported("Built-in tools and MCP servers are not supported: run them beside the client")
"""Tools of the server, not those of a chat request."""
