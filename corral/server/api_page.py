"""docs/api.md: the endpoints and the fields of their requests, from the structs that read them.

`python -m corral.server.api_page > docs/api.md` writes the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from corral.server.app import ROUTES
from corral.server.fields import DIFFERS, OF_STRUCT, meaning
from corral.server.openapi import OPERATIONS, Handler, Operation
from corral.server.schema import GenerateRequest

HEAD = """\
# HTTP API

<!-- Written by `python -m corral.server.api_page > docs/api.md` from corral/server: do not edit. -->

The endpoints are llama-server's, and with them OpenAI's and Anthropic's; `/api/...` is Ollama's. Where the last column of a table is empty, an endpoint or field
does what it does there. `/openapi.json` has the same for programs.

## Everywhere

| What | Here | Differs from llama-server |
|---|---|---|
| Errors | `{"error": {"code", "message", "type"}}`, the status is the code; the message names field, value and what would be right | `/v1/messages` has Anthropic's form, `/api/...` has Ollama's |
| A body that is no JSON, a template that raises | 400 | 500 there: it is the client's mistake |
| Fields | null means the default; unknown fields are ignored; every number has bounds | bounds where there are none: a number of any size must not reach the engine |
| Bodies | up to 64 MiB, else 413; 408 when one does not arrive in time | |
| What is not supported | 501, `not_supported_error`, names the field; with `X-Should-Retry: false`, or OpenAI's and Anthropic's clients would try again | some of it is ignored there |
| Too many requests | 429 with `Retry-After`: the queue is bounded (`--max-queue`, `--max-queue-tokens`, `--queue-timeout`) | no bound there |
| While the model loads, or the engine starts again | 503 with `Retry-After`, but for `/livez` and the page at `/` | |
| Keys | `Authorization: Bearer KEY` or `X-Api-Key: KEY`, from `--api-key`, `--api-key-file`, `LLAMA_API_KEY`; not asked for by health and page | `/livez` and `/readyz` are public too |
| Streams | `data: JSON`; `data: [DONE]` at the end of OpenAI's chats and completions; a comment after 30 s of silence; an error before the first event is an ordinary response | a character whose bytes the limit cut apart is left out, streamed or not; there it is U+FFFD |
| `X-Request-Id` | given back, or made; in the log too | new |
| `/predict` of Vertex AI | 404 | not built yet |

## Endpoints
"""  # noqa: E501


def markdown() -> str:
    lines = [HEAD, "| Endpoint | What | Body | Differs from llama-server |", "|---|---|---|---|"]
    names: dict[Handler, list[str]] = {}
    for method, path, handler in ROUTES:
        names.setdefault(handler, []).append(f"{method} `{path.replace(':path', '')}`")
    for handler, paths in names.items():
        does = OPERATIONS[handler]
        lines.append(_row(", ".join(paths), does.what, _link(does), does.differs))
    schemas = _schemas()
    shared = GenerateRequest.__struct_encode_fields__
    lines += ["", "## Fields", "", "### Of every request that generates", ""]
    lines += _fields("GenerateRequest", schemas, shared)
    for name, struct in _bodies().items():
        own = [f for f in struct.__struct_encode_fields__ if f not in shared or _own(name, f)]
        if own:
            also = ", beside those above" if issubclass(struct, GenerateRequest) else ""
            lines += ["", f"### {name}", "", f"{_users(struct)}{also}.", ""]
            lines += _fields(name, schemas, own)
    return "\n".join(lines) + "\n"


def _bodies() -> dict[str, type[msgspec.Struct]]:
    return {o.body.__name__: o.body for o in OPERATIONS.values() if o.body is not None}


def _schemas() -> Mapping[str, Any]:
    return msgspec.json.schema_components([GenerateRequest, *_bodies().values()], ref_template="{name}")[1]


def _own(struct: str, field: str) -> bool:
    """Whether a field that all have means something of its own here."""
    return meaning(struct, field) != meaning("GenerateRequest", field)


def _users(struct: type[msgspec.Struct]) -> str:
    paths = [f"`{path}`" for _, path, handler in ROUTES if OPERATIONS[handler].body is struct]
    return "For " + ", ".join(paths)


def _link(does: Operation) -> str:
    return f"[{does.body.__name__}](#{does.body.__name__.lower()})" if does.body is not None else ""


def _fields(name: str, schemas: Mapping[str, Any], fields: Iterable[str]) -> Iterator[str]:
    yield "| Field | Type | What | Differs from llama-server |"
    yield "|---|---|---|---|"
    schema = schemas[name]
    for field in fields:
        required = "**required** " if field in schema["required"] else ""
        kind = required + type_text(schema["properties"][field])
        differs = "" if (name, field) in OF_STRUCT else DIFFERS.get(field, "")
        yield _row(f"`{field}`", kind, meaning(name, field), differs)


def type_text(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(type_text(s) for s in schema["anyOf"] if s != {"type": "null"})
    if "enum" in schema:
        return " or ".join(f'"{v}"' for v in schema["enum"] if v is not None)
    most = schema.get("maxLength") or schema.get("maxItems") or schema.get("maxProperties")
    up_to = f" of up to {most}" if most else ""
    match schema.get("type"):
        case "integer" | "number" as kind:
            return f"{kind} {_number(schema['minimum'])} to {_number(schema['maximum'])}"
        case "string":
            return "text" + (f"{up_to} characters" if up_to else "")
        case "array":
            items = type_text(schema.get("items", {}))
            return f"array{up_to}" + ("" if items == "any" else f": {items}")
        case "object":
            return "object" + (f"{up_to} members" if up_to else "")
        case "boolean":
            return "boolean"
        case _:
            return "object" if "$ref" in schema else "any"


ROUND = {2**31 - 1: "2³¹-1", -(2**31 - 1): "-2³¹+1", 2**63 - 1: "2⁶³-1", -(2**63): "-2⁶³", 2**20: "2²⁰"}


def _number(value: float) -> str:
    whole = int(value)
    return ROUND.get(whole, str(whole)) if whole == value else str(value)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(markdown(), end="")
