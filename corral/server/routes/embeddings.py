"""POST /v1/embeddings, in OpenAI's form, and /embeddings, in llama-server's own."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.types import ASGIApp

from corral.errors import ContextSizeError, InputTooLarge, NotSupported, RequestError
from corral.server import generate
from corral.server.decode import Schema, shown
from corral.server.embedding import Vectors, embed, normalized
from corral.server.errors import json_response
from corral.server.prompts import read_prompts
from corral.server.state import LoadedModel, ServerState

MOST_DIMENSIONS = 1 << 20


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """POST /v1/embeddings and /embeddings."""

    input: Any = None
    """A text, token ids, a mixture, an object with `prompt_string` or `content`, or an array of such."""
    content: Any = None
    """The same, and asks for the answer in llama-server's own form."""
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    embd_normalize: Annotated[int, Meta(ge=-1, le=1000)] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=MOST_DIMENSIONS)] | None = None
    """Only so many numbers of each embedding, normalized anew."""


EMBEDDING = Schema(EmbeddingRequest)


async def openai_embeddings(state: ServerState, http: Request) -> ASGIApp:
    expect_one_vector(state)
    request = await generate.read(state, http, EMBEDDING)
    prompts, vectors = await _vectors(state, http, request)
    if request.input is None:
        return _native(vectors)
    model, _ = state.loaded()
    count = sum(map(len, prompts))
    return json_response(
        {
            "object": "list",
            "model": request.model or model.info.id,
            "data": [_item(i, v, request.encoding_format) for i, v in enumerate(vectors)],
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }
    )


async def native_embeddings(state: ServerState, http: Request) -> ASGIApp:
    expect_embeddings(state)
    request = await generate.read(state, http, EMBEDDING)
    _, vectors = await _vectors(state, http, request)
    return _native(vectors)


def expect_embeddings(state: ServerState) -> None:
    """Raises NotSupported."""
    _, ready = state.loaded()
    if ready.pooling is None:
        raise NotSupported("This server does not support embeddings. Start it with `--embeddings`")


def expect_one_vector(state: ServerState) -> None:
    """Of each text. Raises NotSupported, RequestError."""
    expect_embeddings(state)
    if state.loaded()[1].pooling == "none":
        raise RequestError(
            "Pooling type 'none' is not OAI compatible. Start the server with --pooling mean, cls or last"
        )


async def one_vector_each(
    state: ServerState, http: Request, request: EmbeddingRequest
) -> tuple[list[list[int]], list[Vectors]]:
    """The tokens of each input and its vector, normalized. Raises NotSupported, RequestError."""
    expect_one_vector(state)
    return await _vectors(state, http, request)


async def _vectors(
    state: ServerState, http: Request, request: EmbeddingRequest
) -> tuple[list[list[int]], list[Vectors]]:
    """The tokens of each input and its vectors, as they are to be sent."""
    model, ready = state.loaded()
    name = "content" if request.input is None else "input"
    value = getattr(request, name)
    if value is None:
        raise RequestError('"input" or "content" must be provided')
    prompts = await _prompts(model, value, name, ready.n_ctx)
    vectors = await embed(state, http, prompts)
    width = vectors[0].shape[1]
    if request.dimensions is not None and request.dimensions > width:
        raise RequestError(f"Field 'dimensions': expected 1 to {width}, got {request.dimensions}")
    vectors = [v[:, : request.dimensions] for v in vectors]
    if ready.pooling == "none":
        return prompts, vectors
    norm = state.config.embd_normalize if request.embd_normalize is None else request.embd_normalize
    return prompts, [normalized(v, norm) if ready.pooling != "rank" else v for v in vectors]


async def _prompts(model: LoadedModel, value: Any, name: str, n_ctx: int) -> list[list[int]]:
    """Token ids of each input. An array of texts or arrays is several; one with a bare id is one."""
    several = isinstance(value, list) and not _has_ids(value)
    if several and not value:
        raise RequestError(f'"{name}" must not be empty')
    inputs = [(f"{name}[{i}]", v) for i, v in enumerate(value)] if several else [(name, value)]
    return [await _prompt(model, v, where, n_ctx) for where, v in inputs]


def _has_ids(value: list[Any]) -> bool:
    return any(isinstance(v, int | float) for v in value)


async def _prompt(model: LoadedModel, value: Any, where: str, n_ctx: int) -> list[int]:
    if isinstance(value, list) and not _has_ids(value):
        raise RequestError(f"Field '{where}': expected a text or token ids, got {shown(value)}")
    if isinstance(value, dict) and "content" in value:
        value = _text_of_parts(value["content"], f"{where}.content")
    try:
        # a text to embed may fill the context: nothing is generated behind it
        (prompt,) = await read_prompts(model, value, n_ctx + 1, where)
    except ContextSizeError as error:
        raise InputTooLarge(error.n_prompt_tokens, n_ctx, at_least=True) from None
    if len(prompt) > n_ctx:
        raise InputTooLarge(len(prompt), n_ctx)
    return prompt


def _text_of_parts(value: Any, where: str) -> str:
    """OpenAI's content parts, of which there are only texts here."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise RequestError(f"Field '{where}': expected an array of parts, got {shown(value)}")
    texts = []
    for i, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("image_url", "input_audio", "input_video"):
            raise NotSupported(f"Field '{where}[{i}].type': {shown(kind)}: this model takes texts only")
        if kind != "text" or not isinstance(part.get("text"), str):
            raise RequestError(f"Field '{where}[{i}]': expected a part of type \"text\", got {shown(part)}")
        texts.append(part["text"])
    return "".join(texts)


def _item(index: int, vector: Vectors, encoding: str | None) -> dict[str, Any]:
    if encoding == "base64":
        data = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return {"object": "embedding", "index": index, "embedding": data, "encoding_format": "base64"}
    return {"object": "embedding", "index": index, "embedding": vector[0].tolist()}


def _native(vectors: Sequence[Vectors]) -> ASGIApp:
    return json_response([{"index": i, "embedding": v.tolist()} for i, v in enumerate(vectors)])
