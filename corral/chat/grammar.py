"""Builds the grammar of a reply that may call tools, in llguidance's dialect of Lark.

Free text goes on until the marker of a call; from there on the call syntax is enforced. A marker that is a
control token of the vocabulary is named by its id: it is never generated as text.

    text   a terminal for any text      opening   the marker a call begins with      body   what follows it
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher

from corral.chat.tools import Tool, Tools

TokenId = Callable[[str], int | None]
"""The id of the control token with exactly this text, or None."""

SPACE = r"[ \n\t]{0,16}"
"""White space where JSON allows it. Bounded: a model must not get lost in it."""

JSON_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

COMPOSED = frozenset(
    ("$ref", "allOf", "anyOf", "dependentSchemas", "else", "if", "oneOf", "patternProperties", "then")
)
"""With one of these a schema's members are not all in its `properties`."""

_LENIENT = {"lenient": True, "whitespace_pattern": SPACE}


class Grammar:
    """The rules collected so far. The methods return expressions, to be combined with spaces and `|`.

    `atoms`: what may be a control token inside of a longer marker.
    """

    def __init__(
        self, tools: Tools, token: TokenId, *, thinks: bool = True, atoms: Iterable[str] = ()
    ) -> None:
        self.tools = tools
        self.thinks = thinks
        self._token = token
        self._atoms = [atom for atom in atoms if token(atom) is not None]
        self._rules: dict[str, str] = {}
        self._lead = ""
        self._not_at_start = ""
        self.answer: tuple[str, str] | None = None
        """Markers that may be around the answer."""

    # Expressions.

    def literal(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=False) if text else ""

    def marker(self, text: str) -> str:
        """The text of a marker, or its token, or the tokens in it and the text between them."""
        return " ".join(self._part(part) for part in self._parts(text))

    def _part(self, text: str) -> str:
        id = self._token(text)
        return self.literal(text) if id is None else f"<[{id}]>"

    def _parts(self, marker: str) -> list[str]:
        if self._token(marker) is not None or not self._atoms:
            return [marker]
        return list(filter(None, re.split(f"({'|'.join(map(re.escape, self._atoms))})", marker)))

    def is_token(self, text: str) -> bool:
        return self._token(text) is not None

    def escaped(self, text: str) -> str:
        return escape(text)

    def rule(self, name: str, body: str) -> str:
        """A rule of this name, or in its place; it may refer to itself."""
        self._rules[name] = body
        return name

    def regex(self, pattern: str) -> str:
        return f"/{pattern}/"

    def until(self, marker: str, *, first: bool = False) -> str:
        """Any text, and the marker after it. `first`: at the start of the reply, after any reasoning."""
        begin, *rest = self._parts(marker)
        if self._token(begin) is not None:
            found = f"{self._text(first)} {self._part(begin)}"
        elif rest:  # a token comes next, so this is not the end of a text that only has `begin` in it
            found = self._text(first, escape(begin))
        else:
            found = self._rule("until", f"{self._text(first)} {self.literal(begin)}", "[lazy]")
        return " ".join([found, *map(self._part, rest)])

    def text(self, *, first: bool = False) -> str:
        """Any text, to the end of the reply or to a control token."""
        return self._text(first)

    def until_text(self, begin: str, marker: str) -> str:
        """A text that begins as this regex says, and the marker after it."""
        return self._rule("until", f"/{begin}(?s:.*)/ {self.literal(marker)}", "[lazy]")

    def text_unlike(self, begin: str) -> str:
        """Any text at the start of the reply that does not begin as this regex says."""
        first = self._text(True)
        return self._rule("UNLIKE", rf"{first} & ~/{SPACE}{begin}(?s:.*)/")

    def json(self, schema: Mapping[str, Any] | bool) -> str:
        """A JSON value. What llguidance can't enforce of a schema is not."""
        schema = closed(schema) if isinstance(schema, Mapping) else {}
        text = json.dumps({**schema, "x-guidance": _LENIENT}, ensure_ascii=False)
        if not _enforceable(text):
            kind = {"type": schema["type"]} if schema.get("type") in JSON_TYPES else {}
            text = json.dumps({**kind, "x-guidance": _LENIENT})
        return self._rule("json", f"%json {text}")

    def strict_json(self, schema: str) -> str:
        """A JSON value of a schema, given as JSON text, that has to be enforced as it is."""
        value = json.loads(schema)
        if isinstance(value, Mapping):
            value = {"x-guidance": {"whitespace_pattern": SPACE}, **value}
        return self._rule("json", f"%json {json.dumps(value, ensure_ascii=False)}")

    def arguments(self, tool: Tool) -> str:
        return self.json({"type": "object", **tool.parameters})

    def one_of(self, expressions: Iterable[str]) -> str:
        return self._rule("choice", " | ".join(expressions))

    def many(self, expression: str, separator: str = "") -> str:
        """One, or several where calls may be parallel."""
        return f"{expression} ({separator} {expression})*" if self.tools.parallel else expression

    def members(self, parts: Sequence[tuple[str, bool]], separator: str) -> str:
        """Members in their order, those that are required (the second of a pair) always."""
        first = next((i for i, (_, required) in enumerate(parts) if required), None)
        if first is None:
            one = self.one_of(part for part, _ in parts) if parts else ""
            return f"({one} ({separator} {one})*)?" if one else ""
        before = [f"({part} {separator})?" for part, _ in parts[:first]]
        after = [
            f"{separator} {part}" if required else f"({separator} {part})?"
            for part, required in parts[first + 1 :]
        ]
        return " ".join([*before, parts[first][0], *after])

    # The whole.

    def thinking(self, start: str, end: str, *, opened: bool) -> None:
        """The reply begins with reasoning: certainly if the prompt has opened it, else perhaps."""
        if opened:
            self._lead = self.until(end)
        elif self._token(self._parts(start)[0]) is None:
            begin = self._rule("think", f"/{SPACE}{escape(start)}/")
            self._lead = f"({begin} {self.until(end)})?"
            self._not_at_start = escape(start)
        else:
            self._lead = f"({self.marker(start)} {self.until(end)})?"

    def calls(self, opening: str, body: str, *, repeat: bool = True) -> str:
        """Text with calls in it, or calls alone where one is required.

        `repeat`: parallel calls each have their own opening; else `body` has all of them.
        """
        again = repeat and self.tools.parallel
        if self.tools.required:
            call = f"{self.marker(opening)} {body}"
            more = f"(/{SPACE}/ {call})*" if again else ""
            return f"/{SPACE}/ {call} {more}"
        more = f"({self.until(opening)} {body})* {self.text()}" if again else ""
        answer = ""
        if self.answer and self._token(self._parts(self.answer[0])[0]) is not None:
            begin, end = map(self.marker, self.answer)
            answer = f"| {begin} {self.text()} ({end} {self.text()})?"
        return f"({self.text(first=True)} {answer} | {self.until(opening, first=True)} {body} {more})"

    def lark(self, reply: str) -> str:
        rules = "\n".join(f"{name}: {rule}" for name, rule in self._rules.items())
        return f"%llguidance {{}}\nstart: {self._lead} {reply}\n{rules}\n"

    def _text(self, first: bool, end: str = "") -> str:
        """`end`: a regex of what it ends with."""
        anything = f"/(?s:.*){end}/"
        if first and self._not_at_start:
            return self._rule(
                "FIRST_UP" if end else "FIRST", rf"{anything} & ~/{SPACE}{self._not_at_start}(?s:.*)/"
            )
        return self._rule("UP_TO" if end else "TEXT", anything)

    def _rule(self, name: str, body: str, options: str = "") -> str:
        """The name of a rule with this body."""
        for known, rule in self._rules.items():
            if rule == body and known.endswith(options):
                return known.removesuffix(options)
        new = f"{name}{len(self._rules)}" if name.islower() or name in self._rules else name
        self._rules[new + options] = body
        return new


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same without members that it has no words for, as far as it is plain what members it has.

    A schema is open unless it says otherwise, and small models go on inventing members.
    """
    made = dict(schema)
    if COMPOSED & made.keys():
        return made
    properties, items = made.get("properties"), made.get("items")
    if isinstance(properties, Mapping):
        made["properties"] = {k: closed(v) if isinstance(v, Mapping) else v for k, v in properties.items()}
        required = made.get("required")
        if not isinstance(required, list) or all(isinstance(r, str) and r in properties for r in required):
            made.setdefault("additionalProperties", False)
    if isinstance(items, Mapping):
        made["items"] = closed(items)
    return made


@lru_cache(maxsize=1024)
def _enforceable(schema: str) -> bool:
    """Whether llguidance takes a schema. About a millisecond."""
    grammar = LLMatcher.grammar_from_json_schema(schema)
    failed, _messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return not failed


def escape(text: str) -> str:
    """`text` as a part of a regex between slashes."""
    return re.sub(r"[^\w\s<>]|_", lambda m: "\\" + m[0] if m[0].isascii() else m[0], text).replace(
        "\n", "\\n"
    )


def json_regex(value: str) -> str:
    """A JSON string literal as a part of a regex."""
    return escape(json.dumps(value, ensure_ascii=False))
