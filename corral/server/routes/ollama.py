"""Ollama's API, for clients that know no other: /api/chat, /api/generate and what they ask before."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral import __version__
from corral.chat.deltas import Content, Delta
from corral.engine.messages import Output, Ready
from corral.errors import NotSupported
from corral.server import generate
from corral.server.chat_reply import ChatReply
from corral.server.chat_turn import ChatTurn
from corral.server.convert.ollama import (
    OllamaChatRequest,
    OllamaGenerateRequest,
    chat_request,
    generate_request,
)
from corral.server.decode import Schema
from corral.server.errors import json_response
from corral.server.fill_in import Gap, fill_in_prompt
from corral.server.prompts import read_prompts
from corral.server.render.ollama import Form, OllamaReply, timestamp
from corral.server.reply import new_id
from corral.server.routes.embeddings import MOST_DIMENSIONS, EmbeddingRequest, one_vector_each
from corral.server.schema import ChatRequest, NativeRequest
from corral.server.state import LoadedModel, ServerState

LINES = "application/x-ndjson"


class OllamaEmbedRequest(msgspec.Struct, kw_only=True):
    """POST /api/embed."""

    input: str | list[str]
    model: str | None = None
    truncate: bool | None = None
    dimensions: Annotated[int, Meta(ge=1, le=MOST_DIMENSIONS)] | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class OllamaOldEmbedRequest(msgspec.Struct, kw_only=True):
    """POST /api/embeddings."""

    prompt: str
    model: str | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class OllamaShowRequest(msgspec.Struct, kw_only=True):
    """POST /api/show."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None


CHAT = Schema(OllamaChatRequest)
GENERATE = Schema(OllamaGenerateRequest)
EMBED = Schema(OllamaEmbedRequest)
OLD_EMBED = Schema(OllamaOldEmbedRequest)
SHOW = Schema(OllamaShowRequest)


async def ollama_chat(state: ServerState, http: Request) -> ASGIApp:
    """POST /api/chat."""
    request = await generate.read(state, http, CHAT)
    if not request.messages:
        return json_response(_reply(state, "chat", 0).loaded())
    return await _turn(state, http, chat_request(request), "chat", request.stream is not False)


async def ollama_generate(state: ServerState, http: Request) -> ASGIApp:
    """POST /api/generate."""
    request = await generate.read(state, http, GENERATE)
    streamed = request.stream is not False
    wanted = generate_request(request)
    if not request.prompt and not request.suffix:
        return json_response(_reply(state, "generate", 0).loaded())
    if isinstance(wanted, ChatRequest):
        return await _turn(state, http, wanted, "generate", streamed)
    return await _completion(state, http, wanted, request.suffix or "", streamed)


async def _turn(
    state: ServerState, http: Request, request: ChatRequest, form: Form, streamed: bool
) -> ASGIApp:
    turn = await ChatTurn.of(state, http, request, new_id("ollama-"))
    reply = _reply(state, form, len(turn.prompt))
    if streamed:
        return _lines(await turn.stream(http, reply, b""))
    (made,) = await turn.collect(http)
    return json_response(reply.whole(made))


async def _completion(
    state: ServerState, http: Request, request: NativeRequest, suffix: str, streamed: bool
) -> ASGIApp:
    """Text in, text out: no template."""
    model, ready = state.loaded()
    if suffix:
        gap, limit, first = Gap(request.prompt, suffix), request.limit(), state.config.spm_infill
        prompt = await asyncio.to_thread(fill_in_prompt, model, gap, ready.n_ctx, limit, suffix_first=first)
    else:
        (prompt,) = await read_prompts(model, request.prompt, ready.n_ctx)
    sampling = generate.sampling_params(request, state.config.sampling, model.tokenizer, model.info.n_vocab)
    submits = generate.submits(state, http, request, [prompt], new_id("ollama-"), sampling, ready)
    reply = _reply(state, "generate", len(prompt))
    if streamed:
        return _lines(
            await generate.stream(
                state, http, submits, request,
                lambda index, output: reply.add(index, _said(output), output), reply.last, reply.failed, b"",
            )
        )  # fmt: skip
    made = ChatReply()
    async for _, output in generate.outputs(state.engine, http, submits):
        made.add_step(_said(output), output)
    return json_response(reply.whole(made))


def _said(output: Output) -> list[Delta]:
    return [Content(output.text)] if output.text else []


async def ollama_embed(state: ServerState, http: Request) -> ASGIApp:
    """POST /api/embed."""
    request = await generate.read(state, http, EMBED)
    wanted = EmbeddingRequest(input=request.input, dimensions=request.dimensions)
    began = asyncio.get_running_loop().time()
    prompts, vectors = await one_vector_each(state, http, wanted)
    return json_response(
        {
            "model": state.loaded()[0].info.id,
            "embeddings": [v[0].tolist() for v in vectors],
            "total_duration": int(1e9 * (asyncio.get_running_loop().time() - began)),
            "load_duration": 0,
            "prompt_eval_count": sum(map(len, prompts)),
        }
    )


async def ollama_old_embed(state: ServerState, http: Request) -> ASGIApp:
    """POST /api/embeddings, which gave one vector before there was /api/embed."""
    request = await generate.read(state, http, OLD_EMBED)
    _, vectors = await one_vector_each(state, http, EmbeddingRequest(input=request.prompt))
    return json_response({"embedding": vectors[0][0].tolist()})


async def ollama_version(_state: ServerState, _http: Request) -> Response:
    return json_response({"version": __version__})


async def ollama_tags(state: ServerState, _http: Request) -> Response:
    """GET /api/tags: what could be loaded. There is one model, which is."""
    return json_response({"models": [_model(state.loaded()[0])]})


async def ollama_ps(state: ServerState, _http: Request) -> Response:
    """GET /api/ps: what is loaded. It never expires."""
    model, ready = state.loaded()
    resident = {
        "expires_at": "9999-12-31T23:59:59Z",
        "size_vram": 0,
        "context_length": ready.n_ctx,
    }
    return json_response({"models": [_model(model) | resident]})


async def ollama_show(state: ServerState, http: Request) -> ASGIApp:
    """POST /api/show."""
    await generate.read(state, http, SHOW)
    model, ready = state.loaded()
    info, meta = model.info, model.info.meta
    return json_response(
        {
            "modelfile": "",
            "parameters": "",
            "template": model.prompter.template.source.text,
            "details": _details(model),
            "model_info": {
                "general.architecture": info.arch,
                "general.parameter_count": meta.get("n_params", 0),
                f"{info.arch}.context_length": ready.n_ctx,
                f"{info.arch}.embedding_length": meta.get("n_embd", 0),
            },
            "capabilities": _capabilities(model, ready),
            "modified_at": timestamp(info.created),
        }
    )


async def ollama_manage(_state: ServerState, _http: Request) -> Response:
    raise NotSupported("Models can't be fetched, made or removed: this server has the one of its -m")


def _reply(state: ServerState, form: Form, n_prompt: int) -> OllamaReply:
    return OllamaReply(form, state.loaded()[0].info.id, n_prompt, state.now())


def _model(model: LoadedModel) -> dict[str, Any]:
    info = model.info
    return {
        "name": info.id,
        "model": info.id,
        "modified_at": timestamp(info.created),
        "size": info.meta.get("size", 0),
        "digest": "",
        "details": _details(model),
    }


def _details(model: LoadedModel) -> dict[str, Any]:
    info = model.info
    return {
        "parent_model": "",
        "format": "gguf",
        "family": info.arch,
        "families": [info.arch],
        "parameter_size": f"{info.meta.get('n_params', 0) / 1e6:.0f}M",
        "quantization_level": info.meta.get("ftype", "unknown"),
    }


def _capabilities(model: LoadedModel, ready: Ready) -> list[str]:
    if ready.pooling:
        return ["embedding"]
    special = model.tokenizer.special
    fills_in = None not in (special.fim_pre, special.fim_suf, special.fim_mid)
    return ["completion", "tools", *(["insert"] if fills_in else [])]


def _lines(stream: ASGIApp) -> ASGIApp:
    """An event stream whose events are lines of JSON."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_type(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Type"] = LINES
            await send(message)

        await stream(scope, receive, send_with_type)

    return respond
