"""The OpenAPI document: made of the routes, of the structs that read the bodies and of the answers' types."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from corral import __version__
from corral.server import ollama_shapes, shapes
from corral.server.convert.messages import MessagesRequest
from corral.server.convert.ollama import OllamaChatRequest, OllamaGenerateRequest
from corral.server.convert.responses import ResponsesRequest
from corral.server.fields import meaning
from corral.server.routes import not_supported, ollama, responses, slots
from corral.server.routes.apply_template import apply_template, input_tokens
from corral.server.routes.chat_completions import chat_completions
from corral.server.routes.completions import completions
from corral.server.routes.document import get_document
from corral.server.routes.embeddings import EmbeddingRequest, native_embeddings, openai_embeddings
from corral.server.routes.health import health, livez
from corral.server.routes.infill import infill
from corral.server.routes.messages import count_message_tokens, messages
from corral.server.routes.metrics import get_metrics
from corral.server.routes.models import list_models, retrieve_model
from corral.server.routes.native_completion import native_completion
from corral.server.routes.props import get_props, set_props
from corral.server.routes.rerank import RerankRequest, rerank
from corral.server.routes.tokens import DetokenizeRequest, TokenizeRequest, detokenize, tokenize
from corral.server.schema import ChatRequest, CompletionRequest, InfillRequest, NativeRequest
from corral.server.state import ServerState

Handler = Callable[[ServerState, Request], Awaitable[ASGIApp]]
Routes = Sequence[tuple[str, str, Handler]]
PREFIX = "#/components/schemas/"
JSON, EVENTS, LINES, TEXT = "application/json", "text/event-stream", ollama.LINES, "text/plain"


OLLAMA = "New: clients speak it that know no other API"


@dataclass(frozen=True)
class Operation:
    """What a handler does. `body` is what it reads, `answer` the type of its JSON; None: it only refuses."""

    what: str
    answer: Any
    body: type[msgspec.Struct] | None = None
    events: Any = None
    """The type of a stream's events, for `stream: true`; Event: named ones of many types."""
    query: Mapping[str, Sequence[str]] | None = None
    """Names of parameters in the query, and their values if there are only some."""
    lines: Any = None
    """The type of a stream's lines, where it has no events: Ollama's, which stream unless told not to."""
    error: Any = shapes.Error
    """The form of errors."""
    plain: bool = False
    """The answer is text."""
    differs: str = ""
    """What is not as in llama-server, and why."""


OPERATIONS: Mapping[Handler, Operation] = {
    health: Operation(
        "200 when requests are served, 503 while the model loads or the engine is down",
        shapes.Status,
        differs="`/readyz` is new, for orchestrators.",
    ),
    livez: Operation(
        "200 as long as the server answers at all",
        shapes.Status,
        differs="New: it is 200 while the model loads, so that a slow load is not a reason to restart.",
    ),
    list_models: Operation("The model, in OpenAI's form and in Ollama's", shapes.Models),
    retrieve_model: Operation(
        "One model, by its id or an alias", shapes.Model, differs="New: OpenAI's clients ask for it."
    ),
    chat_completions: Operation(
        "OpenAI's chat",
        shapes.ChatCompletion,
        ChatRequest,
        shapes.ChatChunk,
        differs="A template that raises is a 400 with the order of roles, not a 500.",
    ),
    completions: Operation(
        "OpenAI's older form: text in, text out",
        shapes.Completion,
        CompletionRequest,
        shapes.Completion,
        differs="`echo`, `suffix`, `best_of` and OpenAI's older form of `logprobs` are new: "
        "clients of that time use them.",
    ),
    responses.responses: Operation(
        "OpenAI's responses",
        shapes.Response,
        ResponsesRequest,
        shapes.Event,
        differs="`store` and `previous_response_id` work: up to 1024 responses are kept, in "
        "memory. Events have `sequence_number` and `output_index`, which strict clients "
        "want.",
    ),
    responses.count_input_tokens: Operation(
        "Tokens of a request to /v1/responses", shapes.InputTokens, ResponsesRequest
    ),
    responses.retrieve_response: Operation(
        "A stored response", shapes.Response, differs="New, as `store` works."
    ),
    responses.delete_response: Operation(
        "Forgets a stored response", shapes.DeletedResponse, differs="New, as `store` works."
    ),
    responses.list_input_items: Operation(
        "The input of a stored response", shapes.InputItems, differs="New, as `store` works."
    ),
    messages: Operation(
        "Anthropic's messages",
        shapes.AnthropicMessage,
        MessagesRequest,
        shapes.Event,
        error=shapes.AnthropicError,
        differs="Errors have Anthropic's form: its clients read them.",
    ),
    count_message_tokens: Operation(
        "Tokens of a request to /v1/messages",
        shapes.MessageTokens,
        MessagesRequest,
        error=shapes.AnthropicError,
        differs="Errors have Anthropic's form.",
    ),
    native_completion: Operation(
        "llama-server's own form: text in, text out; an array for several prompts",
        shapes.NativeCompletion | list[shapes.NativeCompletion],
        NativeRequest,
        shapes.NativeCompletion,
    ),
    infill: Operation(
        "The text between a prefix and a suffix, in the form of /completion",
        shapes.NativeCompletion | list[shapes.NativeCompletion],
        InfillRequest,
        shapes.NativeCompletion,
    ),
    openai_embeddings: Operation(
        "Embeddings in OpenAI's form; with `content` in llama-server's own",
        shapes.Embeddings | list[shapes.NativeEmbedding],
        EmbeddingRequest,
        differs="A text may be as long as the context: it need not fit one batch. Longer is a "
        "400, not a 500.",
    ),
    native_embeddings: Operation(
        "Embeddings in llama-server's own form",
        list[shapes.NativeEmbedding],
        EmbeddingRequest,
        differs="As `/v1/embeddings`.",
    ),
    rerank: Operation(
        "Documents by how well they answer a query, in Jina's form; with `texts` in TEI's",
        shapes.Ranking | list[shapes.TeiRanked],
        RerankRequest,
    ),
    ollama.ollama_chat: Operation(
        "Ollama's chat; streams unless `stream` is false",
        ollama_shapes.OllamaAnswer,
        OllamaChatRequest,
        lines=ollama_shapes.OllamaAnswer,
        error=ollama_shapes.OllamaError,
        differs=OLLAMA + ", as Open WebUI and Home Assistant.",
    ),
    ollama.ollama_generate: Operation(
        "Ollama's form of a chat with one turn; with `raw` text in, text out",
        ollama_shapes.OllamaAnswer,
        OllamaGenerateRequest,
        lines=ollama_shapes.OllamaAnswer,
        error=ollama_shapes.OllamaError,
        differs=OLLAMA + ".",
    ),
    ollama.ollama_embed: Operation(
        "Embeddings in Ollama's form",
        ollama_shapes.OllamaEmbeddings,
        ollama.OllamaEmbedRequest,
        error=ollama_shapes.OllamaError,
        differs=OLLAMA + ".",
    ),
    ollama.ollama_old_embed: Operation(
        "One embedding, in Ollama's older form",
        ollama_shapes.OllamaEmbedding,
        ollama.OllamaOldEmbedRequest,
        error=ollama_shapes.OllamaError,
        differs=OLLAMA + ".",
    ),
    ollama.ollama_version: Operation(
        "The version of this server",
        ollama_shapes.OllamaVersion,
        error=ollama_shapes.OllamaError,
        differs=OLLAMA + ".",
    ),
    ollama.ollama_tags: Operation(
        "The model, in Ollama's form",
        ollama_shapes.OllamaModels,
        error=ollama_shapes.OllamaError,
        differs=OLLAMA + ".",
    ),
    ollama.ollama_ps: Operation(
        "The same, as it is loaded",
        ollama_shapes.OllamaModels,
        error=ollama_shapes.OllamaError,
        differs=OLLAMA + ".",
    ),
    ollama.ollama_show: Operation(
        "What the model is and can do",
        ollama_shapes.OllamaShown,
        ollama.OllamaShowRequest,
        error=ollama_shapes.OllamaError,
        differs=OLLAMA + ".",
    ),
    ollama.ollama_manage: Operation(
        "Not supported",
        None,
        error=ollama_shapes.OllamaError,
        differs="There is one model, chosen at the start: 501.",
    ),
    tokenize: Operation("Token ids of a text", shapes.Tokens, TokenizeRequest),
    detokenize: Operation("The text of token ids", shapes.Text, DetokenizeRequest),
    apply_template: Operation("A chat as the model gets it", shapes.Prompt, ChatRequest),
    input_tokens: Operation("Tokens of a chat", shapes.InputTokens, ChatRequest),
    get_props: Operation("What is served, and with which defaults", shapes.Props),
    set_props: Operation("Nothing can be set; needs --props", shapes.Success),
    slots.get_slots: Operation(
        "What runs in each place for a sequence", list[shapes.Slot], query={"fail_on_no_slot": ()}
    ),
    slots.slot_action: Operation(
        "Saves, restores or forgets what the cache has of a slot",
        shapes.SlotDone,
        slots.SlotRequest,
        query={"action": ("save", "restore", "erase")},
        differs="A file is of the cache's blocks, and of this program only.",
    ),
    get_metrics: Operation(
        "Counters and times for Prometheus; needs --metrics",
        str,
        plain=True,
        differs="More: histograms of the times to the first token, between tokens, in the queue "
        "and in all; requests by route and status; the cache's use. `n_tokens_max` is a gauge, as "
        "a maximum is.",
    ),
    get_document: Operation("This document", dict[str, Any], differs="New."),
    not_supported.control: Operation("Not supported", None, differs="Not built yet: 501."),
    not_supported.no_adapters: Operation("The LoRA adapters: none", list[dict[str, Any]]),
    not_supported.set_adapters: Operation("Not supported", None, differs="Adapters are not built yet: 501."),
    not_supported.transcriptions: Operation("Not supported", None, differs="No model here takes audio: 501."),
    not_supported.router: Operation(
        "Not supported",
        None,
        differs="There is one model, chosen at the start: a router is not built yet, 501.",
    ),
    not_supported.resume: Operation("Not supported", None, differs="Not built yet: 501."),
    not_supported.proxy: Operation(
        "Not supported",
        None,
        differs="Not planned, 501: a page of anyone's could speak with whatever the server can reach.",
    ),
    not_supported.tools: Operation(
        "Not supported",
        None,
        differs="Not planned, 501: a tool that reads files or runs commands does not belong into "
        "the process that serves strangers.",
    ),
}


def document(routes: Routes, prefix: str = "") -> dict[str, Any]:
    """OpenAPI 3.1. Every path begins with `prefix`."""
    types = list(dict.fromkeys(_types()))
    given, schemas = msgspec.json.schema_components(types, ref_template=PREFIX + "{name}")
    named = dict(zip(types, given, strict=True))
    for operation in OPERATIONS.values():
        if operation.body is not None:
            name = operation.body.__name__
            for field, schema in schemas[name]["properties"].items():
                schema["description"] = meaning(name, field)
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler in routes:
        path = path.replace(":path}", "}")
        paths.setdefault(prefix + path, {})[method.lower()] = _operation(
            method, path, OPERATIONS[handler], named
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "corral",
            "version": __version__,
            "description": "A server for GGUF language models with llama-server's API. Null means the "
            "default; unknown fields are ignored.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _types() -> list[Any]:
    found: list[Any] = []
    for o in OPERATIONS.values():
        found += [t for t in (o.error, o.answer, o.body, o.events, o.lines) if t is not None]
    return found


def _operation(method: str, path: str, does: Operation, named: Mapping[Any, Any]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]
    for name, values in (does.query or {}).items():
        schema = {"type": "string", **({"enum": list(values)} if values else {})}
        parameters.append({"name": name, "in": "query", "required": bool(values), "schema": schema})
    value: dict[str, Any] = {
        "operationId": method.lower() + re.sub(r"\W+", "_", path).rstrip("_"),
        "summary": does.what,
        "responses": _responses(does, named),
    }
    if parameters:
        value["parameters"] = parameters
    if does.body is not None:
        # the body of some actions may be left out
        required = any(f.required for f in msgspec.structs.fields(does.body))
        value["requestBody"] = {"required": required, "content": {JSON: {"schema": named[does.body]}}}
    return value


def _responses(does: Operation, named: Mapping[Any, Any]) -> dict[str, Any]:
    wrong = {"content": {JSON: {"schema": named[does.error]}}}
    made = {
        "4XX": {"description": "The request is wrong, or there are too many", **wrong},
        "5XX": {"description": "503: try again; 501: not supported; 500: a bug", **wrong},
    }
    if does.answer is None:
        return made
    content = {TEXT if does.plain else JSON: {"schema": named[does.answer]}}
    if does.events is not None:
        content[EVENTS] = {"schema": _event(does.events, named)}
    if does.lines is not None:
        content[LINES] = {"schema": named[does.lines]}
    return {"200": {"description": "Success", "content": content}, **made}


def _event(type: Any, named: Mapping[Any, Any]) -> dict[str, Any]:
    """A server-sent event: before OpenAPI 3.2, the schema of a stream is by custom that of each event."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": named[type]}
    return {"type": "object", "properties": {"event": {"type": "string"}, "data": data}, "required": ["data"]}
