"""POST /tokenize and /detokenize."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.types import ASGIApp

from corral.errors import RequestError
from corral.server import generate
from corral.server.decode import Schema, shown
from corral.server.errors import json_response
from corral.server.prompts import encode, mixed_ids
from corral.server.schema import Count
from corral.server.state import LoadedModel, ServerState

MAX_CHARACTERS = 8 << 20
MAX_TOKENS = 1 << 20


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """POST /tokenize."""

    content: Any = None
    """A text, or an array of texts and token ids."""
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """POST /detokenize."""

    tokens: Annotated[list[Count], Meta(max_length=MAX_TOKENS)] | None = None


TOKENIZE = Schema(TokenizeRequest)
DETOKENIZE = Schema(DetokenizeRequest)


async def tokenize(state: ServerState, http: Request) -> ASGIApp:
    request = await generate.read(state, http, TOKENIZE)
    model, _ = state.loaded()
    ids = await _ids(model, request)
    if not request.with_pieces:
        return json_response({"tokens": ids})
    return json_response({"tokens": await asyncio.to_thread(_with_pieces, model, ids)})


async def detokenize(state: ServerState, http: Request) -> ASGIApp:
    request = await generate.read(state, http, DETOKENIZE)
    model, _ = state.loaded()
    ids = request.tokens or []
    if ids and max(ids) >= model.info.n_vocab:
        raise RequestError(
            f"Field 'tokens': expected token ids from 0 to {model.info.n_vocab - 1}, got {max(ids)}"
        )
    text = await asyncio.to_thread(model.tokenizer.decode, ids, special=True)
    return json_response({"content": text.decode("utf-8", "replace")})


async def _ids(model: LoadedModel, request: TokenizeRequest) -> list[int]:
    content, parse_special = request.content, request.parse_special is not False
    add_special = bool(request.add_special)
    if content is None:
        return []
    if isinstance(content, str):
        _check_length(len(content))
        return await encode(model, content, add_special=add_special, parse_special=parse_special)
    if isinstance(content, list):
        _check_length(sum(len(part) if isinstance(part, str) else 1 for part in content))
        return await asyncio.to_thread(
            mixed_ids, model, content, "content", MAX_CHARACTERS,
            add_special=add_special, parse_special=parse_special,
        )  # fmt: skip
    raise RequestError(
        f"Field 'content': expected a string or an array of strings and token ids, got {shown(content)}"
    )


def _check_length(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise RequestError(f"Field 'content': expected at most {MAX_CHARACTERS} characters, got {length}")


def _with_pieces(model: LoadedModel, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Each token with its text, or with its bytes if those alone are no UTF-8."""
    pieces = {id: model.tokenizer.decode([id], special=True) for id in set(ids)}
    return [{"id": id, "piece": _readable(pieces[id])} for id in ids]


def _readable(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
