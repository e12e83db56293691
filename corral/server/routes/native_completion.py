"""POST /completion: llama-server's own form of text in and text out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from corral.server import generate
from corral.server.errors import json_response
from corral.server.native_reply import NativeReplies
from corral.server.prompts import read_prompts
from corral.server.reply import new_id
from corral.server.schema import NATIVE, NativeRequest
from corral.server.state import ServerState


async def native_completion(state: ServerState, http: Request) -> ASGIApp:
    request = await generate.read(state, http, NATIVE)
    model, ready = state.loaded()
    return await respond(state, http, request, await read_prompts(model, request.prompt, ready.n_ctx))


async def respond(
    state: ServerState, http: Request, request: NativeRequest, prompts: Sequence[list[int]]
) -> ASGIApp:
    """The response to a request with these prompts. Raises CorralError, ClientGone."""
    model, ready = state.loaded()
    sampling = generate.sampling_params(request, state.config.sampling, model.tokenizer, model.info.n_vocab)
    if request.n_probs is None and request.logprobs:
        sampling = msgspec.structs.replace(sampling, n_probs=int(request.logprobs))
    submits = generate.submits(state, http, request, prompts, new_id("cmpl-"), sampling, ready)
    native = NativeReplies(model, ready, request, submits)
    if request.stream:
        return await generate.stream(state, http, submits, request, native.event, lambda: b"")
    replies = await generate.collect(state, http, submits)
    values = [native.selected(i, reply) for i, reply in enumerate(replies)]
    # one result is not in an array, as llama-server's clients know it
    return json_response(values[0] if len(values) == 1 else values)
