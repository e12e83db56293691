"""Arguments written one by one, as the text of their values: JSON is made of them here."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tools import Tool, Tools

PYTHON = {"True": "true", "False": "false", "None": "null"}
"""Some templates show a model Python's words in its earlier calls."""


class Parameters:
    """A call whose arguments are read and given one after the other."""

    def __init__(self, r: Reader, tools: Tools | None, function: str) -> None:
        self._r, self._tool = r, tools.find(function) if tools else None
        self._open = "{"
        r.call(function)

    def value(
        self, key: str, end: str, *, string: bool | None = None, newlines: bool = False
    ) -> Script[bool]:
        """Reads a value up to its end marker. False: the marker is not there.

        `string`: whether it is one, where the syntax says so; else the tool's schema does.
        `newlines`: there is a line break around it that is not part of it.
        """
        r = self._r
        r.arguments(f"{self._open}{json.dumps(key, ensure_ascii=False)}: ")
        self._open = ", "
        types = self._tool.types_of(key) if self._tool else set()
        if newlines:
            yield from r.accept("\n")
        ends = ["\n" + end, end] if newlines else [end]
        if string is True or (string is None and types == {"string"}):
            r.arguments('"')
            found = yield from r.until(ends, lambda text: r.arguments(escaped(text)), drop_partial=True)
            if found:
                r.arguments('"')
            return found is not None
        parts: list[str] = []
        found = yield from r.until(ends, parts.append, drop_partial=True)
        text = "".join(parts)
        r.arguments(as_json(text, types) if found else text.strip())
        return found is not None

    def end(self, *, complete: bool) -> None:
        """`complete`: the syntax has been closed. What was cut short by the end of the reply stays open."""
        if complete or not self._r.ended:
            self._r.arguments("{}" if self._open == "{" else "}")
            self._r.done()


def escaped(text: str) -> str:
    """`text` inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def as_json(text: str, types: set[str]) -> str:
    """A value's text as JSON: what it says if that is JSON and no mere string is meant, else a string."""
    bare = text.strip()
    bare = PYTHON.get(bare, bare)
    if types != {"string"}:
        try:
            value = json.loads(bare, parse_constant=_refuse)
        except (ValueError, RecursionError):
            pass
        else:
            if "string" not in types or kind_of(value) in types - {"string"}:
                return bare
    return json.dumps(text, ensure_ascii=False)


def kind_of(value: Any) -> str:
    """The JSON schema type of a value; an integer counts as such."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _refuse(_constant: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


def value_grammar(g: Grammar, tool: Tool, key: str, end: str, line: str = "") -> str:
    """A value and its end marker; `line` is an expression for what may be around it."""
    schema = tool.properties[key]
    types = tool.types_of(key)
    closing = f"{line} {g.marker(end)}"
    if types == {"string"} and isinstance(schema, dict) and isinstance(schema.get("enum"), list):
        values = [v for v in schema["enum"] if isinstance(v, str) and v]
        if values:
            return f"{line} {g.one_of(map(g.literal, values))} {closing}"
    if not types or "string" in types:
        return f"{line} {g.until(end)}"
    return f"{line} {g.json(tool.schema_of(key))} {closing}"
