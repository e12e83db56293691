"""GET /v1/models: the one model there is, in OpenAI's form and in Ollama's."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from corral.engine.messages import Ready
from corral.errors import NotFound
from corral.server.errors import json_response
from corral.server.state import ModelInfo, ServerState


async def list_models(state: ServerState, _request: Request) -> Response:
    model, ready = state.loaded()
    return json_response(
        {"models": [_ollama(model.info, ready)], "object": "list", "data": [_openai(model.info, ready)]}
    )


async def retrieve_model(state: ServerState, request: Request) -> Response:
    model, ready = state.loaded()
    name = request.path_params["id"]
    if name not in (model.info.id, *model.info.aliases):
        raise NotFound(f"Model {name[:200]!r} not found, this server has {model.info.id!r}")
    return json_response(_openai(model.info, ready))


def _openai(info: ModelInfo, ready: Ready) -> dict[str, Any]:
    return {
        "id": info.id,
        "aliases": list(info.aliases),
        "tags": [],
        "object": "model",
        "created": info.created,
        "owned_by": "llamacpp",
        "meta": {**info.meta, "n_ctx": ready.n_ctx},
    }


def _ollama(info: ModelInfo, ready: Ready) -> dict[str, Any]:
    return {
        "name": info.id,
        "model": info.id,
        "modified_at": "",
        "size": "",
        "digest": "",
        "type": "model",
        "description": "",
        "tags": [""],
        "capabilities": ["embedding" if ready.pooling else "completion"],
        "parameters": "",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "",
            "families": [""],
            "parameter_size": "",
            "quantization_level": "",
        },
    }
