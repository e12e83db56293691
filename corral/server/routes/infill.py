"""POST /infill: the text between a prefix and a suffix, in the form of /completion."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp

from corral.server import generate
from corral.server.fill_in import Gap, fill_in_prompt, fill_in_tokens
from corral.server.routes.native_completion import respond
from corral.server.schema import INFILL
from corral.server.state import ServerState


async def infill(state: ServerState, http: Request) -> ASGIApp:
    model, ready = state.loaded()
    fill_in_tokens(model)  # the model's inability comes before mistakes in the body
    request = await generate.read(state, http, INFILL)
    gap = Gap(request.input_prefix, request.input_suffix, request.input_extra or (), request.prompt or "")
    prompt = await asyncio.to_thread(
        fill_in_prompt, model, gap, ready.n_ctx, request.limit(), suffix_first=state.config.spm_infill
    )
    return await respond(state, http, request, [prompt])
