"""JSON schemas before they are compiled: where an error is, which the compiler does not say, and formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_MAPS = ("$defs", "definitions", "properties", "patternProperties", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_SCHEMAS = (
    *("items", "additionalProperties", "additionalItems", "not", "if", "then", "else"),
    *("contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems"),
)
_DEFINITIONS = ("$defs", "definitions")
MOST_TRIES = 200
"""Each is a compilation."""


def locate(schema: Any, error_of: Callable[[Any], str | None]) -> tuple[str, str]:
    """The innermost part that can't be compiled by itself: a JSON pointer, `#` for the whole, and its error.

    `error_of`: what is wrong with a schema, None if nothing is.
    """
    place, message = "#", error_of(schema) or ""
    tries = 0
    definitions = {k: schema[k] for k in _DEFINITIONS if k in schema} if isinstance(schema, dict) else {}
    while True:
        wrong: list[tuple[str, Any, str]] = []
        for step, part in _parts(schema):
            tries += 1
            if tries > MOST_TRIES:
                return place, message
            error = error_of({**definitions, **part})
            if error == message:
                wrong = [(step, part, error)]
                break
            # alone, a part may lack what it refers to
            if error is not None and "Pointer" not in error:
                wrong.append((step, part, error))
        if not wrong:
            return place, message
        step, schema, message = wrong[0]
        place += step


def without_format(schema: Any, name: str) -> Any:
    """The schema without one `format`: in the standard, one that is not known leaves every text valid."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "format" or value != name}
    for key in (*_MAPS, *_LISTS, *_SCHEMAS):
        value = kept.get(key)
        if isinstance(value, list) and key in _LISTS:
            kept[key] = [without_format(part, name) for part in value]
        elif isinstance(value, dict) and key in _MAPS:
            kept[key] = {k: without_format(part, name) for k, part in value.items()}
        elif isinstance(value, dict) and key in _SCHEMAS:
            kept[key] = without_format(value, name)
    return kept


def _parts(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas directly inside of one."""
    if not isinstance(schema, dict):
        return
    for name in _MAPS:
        if isinstance(schema.get(name), dict):
            for key, part in schema[name].items():
                if isinstance(part, dict):
                    yield f"/{name}/{key.replace('~', '~0').replace('/', '~1')}", part
    for name in _LISTS:
        if isinstance(schema.get(name), list):
            for i, part in enumerate(schema[name]):
                if isinstance(part, dict):
                    yield f"/{name}/{i}", part
    for name in _SCHEMAS:
        if isinstance(schema.get(name), dict):
            yield f"/{name}", schema[name]
