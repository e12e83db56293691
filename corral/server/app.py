"""The application: every path and who answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from corral.server.body_memory import BodyMemory
from corral.server.cors import Cors
from corral.server.errors import (
    Envelope,
    anthropic_envelope,
    as_corral_error,
    error_response,
    ollama_envelope,
)
from corral.server.generation import ClientGone
from corral.server.middleware import ALWAYS_SERVED, CLIENT_LEFT, PAGE, ApiKeys, Conventions, Readiness
from corral.server.routes import not_supported
from corral.server.routes.apply_template import apply_template, input_tokens
from corral.server.routes.chat_completions import chat_completions
from corral.server.routes.completions import completions
from corral.server.routes.document import get_document
from corral.server.routes.embeddings import native_embeddings, openai_embeddings
from corral.server.routes.health import health, livez
from corral.server.routes.infill import infill
from corral.server.routes.messages import count_message_tokens, messages
from corral.server.routes.metrics import get_metrics
from corral.server.routes.models import list_models, retrieve_model
from corral.server.routes.native_completion import native_completion
from corral.server.routes.ollama import (
    ollama_chat,
    ollama_embed,
    ollama_generate,
    ollama_manage,
    ollama_old_embed,
    ollama_ps,
    ollama_show,
    ollama_tags,
    ollama_version,
)
from corral.server.routes.props import get_props, set_props
from corral.server.routes.rerank import rerank
from corral.server.routes.responses import (
    count_input_tokens,
    delete_response,
    list_input_items,
    responses,
    retrieve_response,
)
from corral.server.routes.slots import get_slots, slot_action
from corral.server.routes.tokens import detokenize, tokenize
from corral.server.state import ServerState
from corral.server.static_files import PAGE_PATHS, NoRoute

Handler = Callable[[ServerState, Request], Awaitable[ASGIApp]]

ROUTES: Sequence[tuple[str, str, Handler]] = (
    ("GET", "/health", health),
    ("GET", "/v1/health", health),
    ("GET", "/readyz", health),
    ("GET", "/livez", livez),
    ("GET", "/v1/models", list_models),
    ("GET", "/models", list_models),
    ("GET", "/v1/models/{id:path}", retrieve_model),
    ("POST", "/models", not_supported.router),
    ("DELETE", "/models", not_supported.router),
    ("POST", "/models/load", not_supported.router),
    ("POST", "/models/unload", not_supported.router),
    ("GET", "/models/sse", not_supported.router),
    ("POST", "/v1/chat/completions", chat_completions),
    ("POST", "/chat/completions", chat_completions),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/responses", responses),
    ("POST", "/responses", responses),
    ("POST", "/v1/responses/input_tokens", count_input_tokens),
    ("POST", "/responses/input_tokens", count_input_tokens),
    ("GET", "/v1/responses/{id}", retrieve_response),
    ("DELETE", "/v1/responses/{id}", delete_response),
    ("GET", "/v1/responses/{id}/input_items", list_input_items),
    ("POST", "/v1/messages", messages),
    ("POST", "/v1/messages/count_tokens", count_message_tokens),
    ("POST", "/completions", native_completion),
    ("POST", "/completion", native_completion),
    ("POST", "/infill", infill),
    ("POST", "/v1/embeddings", openai_embeddings),
    ("POST", "/embeddings", native_embeddings),
    ("POST", "/embedding", native_embeddings),
    ("POST", "/v1/rerank", rerank),
    ("POST", "/rerank", rerank),
    ("POST", "/v1/reranking", rerank),
    ("POST", "/reranking", rerank),
    ("POST", "/api/chat", ollama_chat),
    ("POST", "/api/generate", ollama_generate),
    ("POST", "/api/embed", ollama_embed),
    ("POST", "/api/embeddings", ollama_old_embed),
    ("GET", "/api/version", ollama_version),
    ("GET", "/api/tags", ollama_tags),
    ("GET", "/api/ps", ollama_ps),
    ("POST", "/api/show", ollama_show),
    ("POST", "/api/pull", ollama_manage),
    ("POST", "/api/push", ollama_manage),
    ("POST", "/api/create", ollama_manage),
    ("POST", "/api/copy", ollama_manage),
    ("DELETE", "/api/delete", ollama_manage),
    ("POST", "/tokenize", tokenize),
    ("POST", "/detokenize", detokenize),
    ("POST", "/apply-template", apply_template),
    ("GET", "/openapi.json", get_document),
    ("POST", "/v1/chat/completions/input_tokens", input_tokens),
    ("POST", "/chat/completions/input_tokens", input_tokens),
    ("POST", "/v1/chat/completions/control", not_supported.control),
    ("GET", "/props", get_props),
    ("POST", "/props", set_props),
    ("GET", "/slots", get_slots),
    ("GET", "/metrics", get_metrics),
    ("POST", "/slots/{id}", slot_action),
    ("GET", "/lora-adapters", not_supported.no_adapters),
    ("POST", "/lora-adapters", not_supported.set_adapters),
    ("POST", "/v1/audio/transcriptions", not_supported.transcriptions),
    ("POST", "/audio/transcriptions", not_supported.transcriptions),
    ("GET", "/v1/stream", not_supported.resume),
    ("DELETE", "/v1/stream", not_supported.resume),
    ("POST", "/v1/streams/lookup", not_supported.resume),
    ("GET", "/cors-proxy", not_supported.proxy),
    ("POST", "/cors-proxy", not_supported.proxy),
    ("GET", "/tools", not_supported.tools),
    ("POST", "/tools", not_supported.tools),
)

GENERATE = frozenset(
    (
        *(chat_completions, completions, responses, messages, native_completion, infill),
        *(ollama_chat, ollama_generate),
    ),
)
"""Those who can't do anything where the engine makes embeddings."""

SHAPES: Mapping[str, Envelope] = {
    "/v1/messages": anthropic_envelope,
    "/v1/messages/count_tokens": anthropic_envelope,
    **{path: ollama_envelope for _, path, _ in ROUTES if path.startswith("/api/")},
}
"""Paths whose errors don't have llama-server's form."""


def build_app(state: ServerState) -> Starlette:
    """The ASGI application. All paths begin with the configuration's `api_prefix`."""
    prefix = state.config.api_prefix
    always = [prefix + path for path in ALWAYS_SERVED]
    own_page = state.config.ui and state.config.static_path is None
    page = [prefix + path for path in (PAGE_PATHS if own_page else PAGE)]
    shapes = {prefix + path: shape for path, shape in SHAPES.items()}
    routes = [
        Route(prefix + path, _answer(handler, state), methods=[method], name=path)
        for method, path, handler in ROUTES
    ]
    names: dict[Any, str] = {route.endpoint: route.name for route in routes}
    names |= {prefix + path: path for _, path, _ in ROUTES if "{" not in path}
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(
                Conventions,
                cors=Cors(state.config),
                quiet=[*always, prefix + "/metrics"],
                shapes=shapes,
                routes=names,
                observer=state.observer,
            ),
            Middleware(ApiKeys, keys=state.config.api_keys, public=[*always, *page]),
            Middleware(Readiness, state=state, always=[*always, *(page if own_page else ())]),
            Middleware(BodyMemory, left=state.memory_left, most=state.max_body),
        ],
        exception_handlers={HTTPException: _http_error},
    )
    if state.config.metrics:
        from corral.server.metrics import Metrics  # its library takes time to import

        app.state.metrics = Metrics(state)
    app.state.document = cache(lambda: _document(prefix))
    app.router.redirect_slashes = False
    app.router.default = NoRoute(state.config)
    return app


def _document(prefix: str) -> bytes:
    from corral.server.openapi import document  # made when somebody asks

    return msgspec.json.encode(document(ROUTES, prefix))


def _answer(handler: Handler, state: ServerState) -> Callable[[Request], Awaitable[ASGIApp]]:
    async def answer(request: Request) -> ASGIApp:
        try:
            if handler in GENERATE:
                state.expect_to_generate()
            return await handler(state, request)
        except ClientGone:
            return Response(status_code=CLIENT_LEFT)  # never sent

    return answer


async def _http_error(request: Request, error: Any) -> Response:
    """Starlette's own 404 and 405."""
    return error_response(as_corral_error(error), getattr(error, "headers", None), request.scope["shape"])
