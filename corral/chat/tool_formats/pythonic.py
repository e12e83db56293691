"""Calls as Python writes them.

    LFM2     <|tool_call_start|>[weather(city="Paris"), ...]<|tool_call_end|>
    OLMo 3   <function_calls>, a line for each, </function_calls>
    ToolACE, and templates for Llama 3.2, Llama 4 and Gemma 3: a reply that is nothing but the list

The calls are given when the list has ended: their text is Python's, not JSON.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Any

from corral.chat.grammar import SPACE, Grammar, escape
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls, ToolFormat
from corral.chat.tools import Tool, Tools

MAX_TEXT = 1 << 20
MOST_BRACKETS = 256
"""Places where a bare list may end, the brackets inside of it with them."""
WORDS = {"true": True, "false": False, "null": None}


class Pythonic(MarkedCalls):
    """Calls between two tags. `listed`: they are a list, in Python's words; else lines, in JSON's."""

    repeat = False

    def __init__(
        self, name: str, opening: str, closing: str, *, listed: bool, found_by: tuple[tuple[str, ...], ...]
    ) -> None:
        self.name, self.opening, self.closing, self.listed = name, opening, closing, listed
        self.found_by, self.markers = found_by, (opening, closing)

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        parts: list[str] = []
        yield from r.until([self.closing], parts.append)
        return give(r, python_calls("".join(parts)))

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        texts = [python_text(name, arguments) for name, arguments in calls]
        inside = f"[{', '.join(texts)}]" if self.listed else "\n".join(["", *texts, ""])
        return f"{self.opening}{inside}{self.closing}"

    def body(self, g: Grammar) -> str:
        if self.listed:
            return f"{list_grammar(g)} {g.marker(self.closing)}"
        line = r"/\n?/"
        calls = g.many(g.one_of(call_grammar(g, t, python=False) for t in g.tools.callable), r"/\n/")
        return f"{line} {calls} {line} {g.marker(self.closing)}"


class BarePythonic(ToolFormat):
    """A list of calls is a call if the first one is of a known tool."""

    name = "pythonic"
    found_by = (("[func_name1(param",),)

    def script(self, r: Reader, tools: Tools | None) -> Script[None]:
        name: list[str] = []
        known = (
            (yield from r.after_spaces("["))
            and (yield from r.until(["(", ")", "]", "\n"], name.append)) == "("
            and tools is not None
            and tools.find("".join(name).strip()) is not None
        )
        if known:
            parts: list[str] = []
            for _ in range(MOST_BRACKETS):
                if not (yield from r.until(["]"], parts.append)):
                    break
                parts.append("]")
                if give(r, python_calls(f"[{''.join(name)}({''.join(parts)}")):
                    break
        r.unread()
        yield from r.rest(r.content)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        return f"[{', '.join(python_text(name, arguments) for name, arguments in calls)}]"

    def grammar(self, g: Grammar) -> str:
        calls = list_grammar(g)
        if g.tools.required:
            return calls
        names = "|".join(escape(t.name) for t in g.tools.callable)
        like_a_call = rf"\[{SPACE}({names}){SPACE}\("
        return f"({g.text_unlike(like_a_call)} | {calls})"


def give(r: Reader, calls: Sequence[tuple[str, dict[str, Any]]]) -> bool:
    """False: there are none."""
    for name, arguments in calls:
        r.call(name)
        r.arguments(json.dumps(arguments, ensure_ascii=False))
    if calls:
        r.done()
    return bool(calls)


def python_text(name: str, arguments: str) -> str:
    """A call; `arguments` that are no JSON object are written as they are."""
    try:
        values = json.loads(arguments)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return f"{name}({arguments})"
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"


def list_grammar(g: Grammar) -> str:
    first, other = (
        g.one_of(call_grammar(g, t, before) for t in g.tools.callable) for before in (r"\[", ", ?")
    )
    return f'{first} ({other})* "]"' if g.tools.parallel else f'{first} "]"'


def call_grammar(g: Grammar, tool: Tool, before: str = "", *, python: bool = True) -> str:
    """One lexeme up to the arguments, behind what the regex `before` says.

    `python`: its words for true and false, not JSON's.
    """

    def value(key: str) -> str:
        words = python and tool.types_of(key) == {"boolean"}
        return "/True|False/" if words else g.json(tool.schema_of(key))

    arguments = [(f"{g.literal(key + '=')} {value(key)}", key in tool.required) for key in tool.properties]
    return f'/{before}{escape(tool.name)}\\(/ {g.members(arguments, "/, ?/")} ")"'


def python_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and keyword arguments of calls, in a list or lines of their own; empty if it is anything else."""
    if len(text) > MAX_TEXT:
        return []
    # models break lines inside of strings, which Python does not
    return _python_calls(text) or _python_calls(text.strip().replace("\n", "\\n"))


def _python_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        lines = [line.value if isinstance(line, ast.Expr) else line for line in ast.parse(text.strip()).body]
        listed = lines[0].elts if len(lines) == 1 and isinstance(lines[0], ast.List) else lines
        return [_call(node) for node in listed]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return []


def _call(node: ast.AST) -> tuple[str, dict[str, Any]]:
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


LFM2 = Pythonic(
    "lfm2", "<|tool_call_start|>", "<|tool_call_end|>", listed=True,
    found_by=(("<|tool_call_start|>",), ("<|tool_list_start|>",), ("List of tools: [", "<|im_start|>")),
)  # fmt: skip
OLMO_3 = Pythonic(
    "olmo-3", "<function_calls>", "</function_calls>", listed=False,
    found_by=(("<function_calls>", "<functions>"),),
)  # fmt: skip
BARE = BarePythonic()
