"""POST /v1/rerank: documents by how well they answer a query, in the forms of Jina and of TEI."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.types import ASGIApp

from corral.engine.messages import INPUTS_AT_ONCE
from corral.errors import InputTooLarge, NotSupported, RequestError
from corral.server import generate
from corral.server.decode import Schema, shown
from corral.server.embedding import embed
from corral.server.errors import json_response
from corral.server.schema import INT32
from corral.server.state import LoadedModel, ServerState


class RerankRequest(msgspec.Struct, kw_only=True):
    """POST /v1/rerank."""

    query: Any = None
    documents: Any = None
    """Texts; objects with a `text` are taken too, as Cohere's clients send them."""
    texts: Any = None
    """TEI's name of the same, which makes the answer TEI's too."""
    top_n: Annotated[int, Meta(ge=0, le=INT32)] | None = None
    model: str | None = None
    return_text: bool | None = None
    """TEI: give the texts back."""


RERANK = Schema(RerankRequest)


async def rerank(state: ServerState, http: Request) -> ASGIApp:
    model, ready = state.loaded()
    if ready.pooling != "rank":
        raise NotSupported("This server does not support reranking. Start it with `--reranking`")
    request = await generate.read(state, http, RERANK)
    if not isinstance(request.query, str):
        missing = "must be provided" if request.query is None else "must be a string"
        raise RequestError(f'"query" {missing}')
    tei = request.texts is not None
    texts = _documents(request.texts if tei else request.documents, "texts" if tei else "documents")
    scores: list[float] = []
    count = 0
    for first in range(0, len(texts), INPUTS_AT_ONCE):  # each prompt has the whole query in it
        some = texts[first : first + INPUTS_AT_ONCE]
        prompts = await asyncio.to_thread(_prompts, model, request.query, some, ready.n_ctx)
        scores += [float(v[0, 0]) for v in await embed(state, http, prompts)]
        count += sum(map(len, prompts))
    order = sorted(range(len(texts)), key=lambda i: -scores[i])[: request.top_n]
    if tei:
        text = {i: {"text": texts[i]} if request.return_text else {} for i in order}
        return json_response([{"index": i, "score": scores[i], **text[i]} for i in order])
    return json_response(
        {
            "model": request.model or model.info.id,
            "object": "list",
            "usage": {"prompt_tokens": count, "total_tokens": count},
            "results": [{"index": i, "relevance_score": scores[i]} for i in order],
        }
    )


def _documents(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise RequestError(f'"{name}" must be a non-empty string array')
    texts: list[str] = []
    for i, document in enumerate(value):
        text = document.get("text") if isinstance(document, dict) else document
        if not isinstance(text, str):
            raise RequestError(f"Field '{name}[{i}]': expected a string, got {shown(document)}")
        texts.append(text)
    return texts


def _prompts(model: LoadedModel, query: str, documents: Sequence[str], n_ctx: int) -> list[list[int]]:
    """Token ids of each pair, as the model was made for. Blocking: there may be many. Raises RequestError."""
    for text in (query, *documents):
        if len(text) // model.tokenizer.longest > n_ctx:
            raise InputTooLarge(len(text) // model.tokenizer.longest, n_ctx, at_least=True)
    if model.rerank_template is not None:
        prompts = [_from_template(model, model.rerank_template, query, d) for d in documents]
    else:
        prompts = _from_special_tokens(model, query, documents)
    for prompt in prompts:
        if len(prompt) > n_ctx:
            raise InputTooLarge(len(prompt), n_ctx)
    return prompts


def _from_template(model: LoadedModel, template: str, query: str, document: str) -> list[int]:
    # in one go: what looks like a placeholder in a text is none
    values = {"{query}": query, "{document}": document}
    text = re.sub(r"\{query\}|\{document\}", lambda found: values[found[0]], template)
    return model.tokenizer.encode(text, add_special=False, parse_special=True)


def _from_special_tokens(model: LoadedModel, query: str, documents: Sequence[str]) -> list[list[int]]:
    """[BOS] query [EOS] [SEP] document [EOS], those that the file says to add; without an EOS it is SEP."""
    tokenizer = model.tokenizer
    special = tokenizer.special
    end = special.sep if special.eos is None else special.eos
    bos = [special.bos] if tokenizer.add_bos and special.bos is not None else []
    eos = [end] if tokenizer.add_eos and end is not None else []
    sep = [special.sep] if tokenizer.add_sep and special.sep is not None else []
    front = [*bos, *tokenizer.encode(query, add_special=False, parse_special=False), *eos, *sep]
    return [
        [*front, *tokenizer.encode(document, add_special=False, parse_special=False), *eos]
        for document in documents
    ]
