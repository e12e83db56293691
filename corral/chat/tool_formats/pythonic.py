"""A list of Python calls, as LFM2 writes it: <|tool_call_start|>[weather(city="Paris")]<|tool_call_end|>."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Any

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tools import Tool, Tools

MAX_TEXT = 1 << 20
WORDS = {"true": True, "false": False, "null": None}


class Pythonic(MarkedCalls):
    """The calls are given when the list has ended: their text is Python's, not JSON."""

    name = "lfm2"
    opening, closing, repeat = "<|tool_call_start|>", "<|tool_call_end|>", False
    found_by = (
        ("<|tool_call_start|>",),
        ("<|tool_list_start|>",),
        ("List of tools: [", "<|im_start|>"),
    )
    markers = (opening, closing)

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        parts: list[str] = []
        yield from r.until([self.closing], parts.append)
        calls = python_calls("".join(parts))
        for name, arguments in calls:
            r.call(name)
            r.arguments(json.dumps(arguments, ensure_ascii=False))
        return bool(calls)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        texts = []
        for name, arguments in calls:
            try:
                values = json.loads(arguments)
            except (ValueError, RecursionError):  # as it was written then
                values = None
            members = (
                ", ".join(f"{key}={value!r}" for key, value in values.items())
                if isinstance(values, dict)
                else arguments
            )
            texts.append(f"{name}({members})")
        return f"{self.opening}[{', '.join(texts)}]{self.closing}"

    def body(self, g: Grammar) -> str:
        call = g.one_of(self._call(g, t) for t in g.tools.callable)
        return f'"[" {g.many(call, "/, ?/")} "]" {g.marker(self.closing)}'

    def _call(self, g: Grammar, tool: Tool) -> str:
        arguments = [
            (f"{g.literal(key + '=')} {self._value(g, tool, key)}", key in tool.required)
            for key in tool.properties
        ]
        return f'{g.literal(tool.name + "(")} {g.members(arguments, "/, ?/")} ")"'

    def _value(self, g: Grammar, tool: Tool, key: str) -> str:
        return "/True|False/" if tool.types_of(key) == {"boolean"} else g.json(tool.schema_of(key))


def python_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and keyword arguments of a list of calls; empty if it is anything else."""
    if len(text) > MAX_TEXT:
        return []
    # models break lines inside of strings, which Python does not
    return _python_calls(text) or _python_calls(text.strip().replace("\n", "\\n"))


def _python_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List) else [tree]
        return [_call(node) for node in nodes]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return []


def _call(node: ast.expr) -> tuple[str, dict[str, Any]]:
    """ValueError: it is none."""
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("not a call with keywords")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("a call with **")
        value = keyword.value
        known = isinstance(value, ast.Name) and value.id in WORDS
        arguments[keyword.arg] = WORDS[value.id] if known else ast.literal_eval(value)  # type: ignore[attr-defined]
    json.dumps(arguments, allow_nan=False).encode()  # sets, bytes and complex numbers are no JSON
    return ast.unparse(node.func), arguments


LFM2 = Pythonic()
