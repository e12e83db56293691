"""FunctionGemma and Gemma 4: `call:NAME{key:value,...}` between control tokens, with a marker for quotes."""

from __future__ import annotations

import json
import re

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.parameters import escaped
from corral.chat.tools import Tool, Tools

MAX_DEPTH = 64

_BARE = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?\Z", re.ASCII)
_END_OF_BARE = (",", "}", "]")
_NO_KEY = (",", "{", "}", "[", "]")


class Gemma(MarkedCalls):
    """`quote` is before and after each string. Keys have none."""

    def __init__(self, name: str, opening: str, closing: str, quote: str) -> None:
        self.name, self.opening, self.closing, self.quote = name, opening, closing, quote
        self.found_by = ((opening,),)
        self.markers = (opening, closing, quote)

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        name: list[str] = []
        if not (yield from r.after_spaces("call:")):
            return False
        if (yield from r.until(["{", "\n"], name.append, keep=("{", "\n"))) is None:
            return False
        if not "".join(name).strip() or not (yield from r.next_is("{")):
            return False
        r.call("".join(name).strip())
        if not (yield from self._value(r, 0)):
            return r.ended
        yield from r.close(self.closing)
        return True

    def _value(self, r: Reader, depth: int) -> Script[bool]:
        """Reads a value and gives it as JSON. False: it is broken or cut short."""
        opened = yield from r.after_spaces(self.quote, "{", "[")
        if depth > MAX_DEPTH:
            return False
        if opened == self.quote:
            r.arguments('"')
            if not (
                yield from r.until([self.quote], lambda text: r.arguments(escaped(text)), drop_partial=True)
            ):
                return False
            r.arguments('"')
            return True
        if opened:
            return (yield from self._container(r, opened, depth))
        bare: list[str] = []
        if not (yield from r.until(_END_OF_BARE, bare.append, keep=_END_OF_BARE)):
            return False
        text = "".join(bare).strip()
        if not text:  # nothing where a value has to be
            return False
        r.arguments(text if text in ("true", "false", "null") or _BARE.match(text) else json.dumps(text))
        return True

    def _container(self, r: Reader, opened: str, depth: int) -> Script[bool]:
        closed = "}" if opened == "{" else "]"
        before = opened
        while not (yield from r.after_spaces(closed)):
            if opened == "{":
                key: list[str] = []
                if (yield from r.until((":", *_NO_KEY), key.append, keep=_NO_KEY)) != ":":
                    return False
                name = "".join(key).strip().removeprefix(self.quote).removesuffix(self.quote)
                r.arguments(f"{before}{json.dumps(name, ensure_ascii=False)}: ")
            else:
                r.arguments(before)
            if not (yield from self._value(r, depth + 1)):
                return False
            yield from r.after_spaces(",")
            before = ", "
            if r.ended:
                return False
        r.arguments(opened + closed if before == opened else closed)
        return True

    def body(self, g: Grammar) -> str:
        calls = g.one_of(self._call(g, t) for t in g.tools.callable)
        return f"{calls} {g.marker(self.closing)}"

    def _call(self, g: Grammar, tool: Tool) -> str:
        """The members by their types: the syntax has no schema language for what is inside of them."""
        quote = g.marker(self.quote)
        string = f"{quote} {g.until(self.quote)}"
        integer = "-?(0|[1-9][0-9]{0,20})"
        number = rf"{integer}(\.[0-9]{{1,20}})?([eE][+-]?[0-9]{{1,3}})?"
        bare = rf"/true|false|null|{number}/"
        any_value = g.rule("value", f"{string} | {bare}")
        g.rule(
            any_value,
            f'{string} | {bare} | "[" ({any_value} ("," {any_value})*)? "]" '
            f'| "{{" (/[^:{{}}]{{1,100}}:/ {any_value} ("," /[^:{{}}]{{1,100}}:/ {any_value})*)? "}}"',
        )
        kinds = {
            "string": string,
            "integer": f"/{integer}/",
            "number": f"/{number}/",
            "boolean": "/true|false/",
            "null": "/null/",
        }

        def value(key: str) -> str:
            types = tool.types_of(key)
            plain = types and types <= kinds.keys()
            return g.one_of(kinds[t] for t in sorted(types)) if plain else any_value

        members = [(f"{g.literal(key + ':')} {value(key)}", key in tool.required) for key in tool.properties]
        if "properties" not in tool.parameters:
            members = [(f"/[^:{{}}]{{1,100}}:/ {any_value}", False)]
        inside = g.members(members, '","')
        return f'{g.literal(f"call:{tool.name}{{")} {inside} "}}"'


FUNCTION_GEMMA = Gemma("functiongemma", "<start_function_call>", "<end_function_call>", "<escape>")
GEMMA_4 = Gemma("gemma-4", "<|tool_call>", "<tool_call|>", '<|"|>')
