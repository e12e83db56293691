"""JSON schemas as the templates that go through them expect them: each has a type, and what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DROPPED = frozenset(("$defs", "$ref", "additionalProperties", "allOf", "anyOf", "definitions", "oneOf"))


def plain_schema(schema: Any) -> dict[str, Any]:
    """The nearest schema of one type, without references and alternatives."""
    given = schema if isinstance(schema, Mapping) else {}
    options = [o for key in ("anyOf", "oneOf", "allOf") for o in _list(given.get(key))]
    kind = _type(given) or next(filter(None, map(_type, options)), "object" if "$ref" in given else "string")
    made = {k: v for k, v in given.items() if k not in DROPPED}
    made |= {"type": kind, "description": str(given.get("description") or "")}
    if kind == "object":
        properties = given.get("properties")
        named = properties if isinstance(properties, Mapping) else {}
        made["properties"] = {k: plain_schema(v) for k, v in named.items()}
    if kind == "array":
        made["items"] = plain_schema(given.get("items"))
    return made


def _type(schema: Any) -> str:
    """The first of its types that is not null; empty if it says none."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    kinds = [kind] if isinstance(kind, str) else _list(kind)
    return next((k for k in kinds if isinstance(k, str) and k != "null"), "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
