"""MiniMax M3: tags for the function, its parameters and all that is inside of them, a token before each tag.

Objects have a tag for each member, arrays an <item> for each element; all else is the text of a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.parameters import as_json, escaped
from corral.chat.tools import Tool, Tools, types_of

TAG = "]<]minimax[>["
MAX_DEPTH = 32
LINE = r"/\n?/"
EMPTY = {"object": "{}", "array": "[]"}


class MiniMaxM3(MarkedCalls):
    name = "minimax-m3"
    opening, closing, repeat = f"{TAG}<tool_call>", f"{TAG}</tool_call>", False
    found_by = ((TAG, "<invoke name="),)
    markers = (TAG, "<tool_call>", "</tool_call>")

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        calls = r.calls
        while (yield from r.after_spaces(f'{TAG}<invoke name="')):
            name: list[str] = []
            if (yield from r.until(['">', "\n"], name.append)) != '">' or not "".join(name):
                return False
            tool = tools.find("".join(name)) if tools else None
            r.call("".join(name))
            if not (yield from self._members(r, tool.parameters if tool else None, "invoke", 0)):
                return r.ended
            r.done()
        if r.calls == calls:
            return False
        yield from r.close(self.closing)
        return True

    def _members(
        self, r: Reader, schema: Any, tag: str, depth: int, first: str | None = None
    ) -> Script[bool]:
        """Reads the members of an object up to its end. `first`: this one's tag has been read."""
        before, key = "{", first
        while True:
            if key is None:
                found = yield from r.after_spaces(f"{TAG}</{tag}>", f"{TAG}<")
                if found != f"{TAG}<":
                    r.arguments("" if found is None else "{}" if before == "{" else "}")
                    return found is not None
                key = yield from self._tag(r)
                if key is None:
                    return False
            r.arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            if not (yield from self._value(r, _property(schema, key), key, depth + 1)):
                return False
            before, key = ", ", None

    def _tag(self, r: Reader) -> Script[str | None]:
        """The rest of a tag that opens; None: it is none."""
        name: list[str] = []
        if (yield from r.until([">", "<", "\n"], name.append)) != ">":
            return None
        text = "".join(name)
        return text if text and not text.startswith("/") else None

    def _value(self, r: Reader, schema: Any, tag: str, depth: int) -> Script[bool]:
        """Reads a value up to its end and gives it as JSON. False: it is broken or cut short."""
        end, types = f"{TAG}</{tag}>", types_of(schema)
        found = yield from r.after_spaces(end, f"{TAG}<")
        if found == end:
            r.arguments(next((EMPTY[t] for t in EMPTY if t in types), '""'))
            return True
        if found:
            inner = yield from self._tag(r)
            if inner is None or depth > MAX_DEPTH:
                return False
            if inner == "item" and types != {"object"}:
                return (yield from self._items(r, schema, end, depth))
            return (yield from self._members(r, schema, tag, depth, first=inner))
        if types == {"string"}:
            r.arguments('"')
            yield from r.until([TAG], lambda text: r.arguments(escaped(text)), keep=[TAG], drop_partial=True)
            if not (yield from r.accept(end)):
                return False
            r.arguments('"')
            return True
        parts: list[str] = []
        yield from r.until([TAG], parts.append, keep=[TAG], drop_partial=True)
        ended = yield from r.accept(end)
        if ended or r.ended:
            r.arguments(as_json("".join(parts), types) if ended else "".join(parts).strip())
        return ended is not None

    def _items(self, r: Reader, schema: Any, end: str, depth: int) -> Script[bool]:
        before = "["
        items = schema.get("items") if isinstance(schema, Mapping) else None
        while True:
            r.arguments(before)
            if not (yield from self._value(r, items, "item", depth + 1)):
                return False
            found = yield from r.after_spaces(f"{TAG}<item>", end)
            if found is None:
                return False
            before = ", "
            if found == end:
                r.arguments("]")
                return True

    def body(self, g: Grammar) -> str:
        calls = g.many(g.one_of(self._call(g, t) for t in g.tools.callable), LINE)
        return f"{LINE} {calls} {LINE} {g.marker(self.closing)}"

    def _call(self, g: Grammar, tool: Tool) -> str:
        name = g.marker(f'{TAG}<invoke name="{tool.name}">')
        return f"{name} {self._object(g, tool.parameters, 'invoke', 0)}"

    def _object(self, g: Grammar, schema: Mapping[str, Any], tag: str, depth: int) -> str:
        required = schema.get("required")
        members = []
        for key, inner in schema.get("properties", {}).items():
            optional = "" if isinstance(required, list) and key in required else "?"
            members.append(
                f"({g.marker(f'{TAG}<{key}>')} {self._inside(g, inner, key, depth + 1)}){optional}"
            )
        return " ".join([*members, g.marker(f"{TAG}</{tag}>")])

    def _inside(self, g: Grammar, schema: Any, tag: str, depth: int) -> str:
        """A value and its end. What a schema does not say plainly is text."""
        types, end = types_of(schema), g.marker(f"{TAG}</{tag}>")
        if not types or "string" in types or depth > MAX_DEPTH:
            values = schema.get("enum") if isinstance(schema, Mapping) and types == {"string"} else None
            texts = [v for v in values if isinstance(v, str) and v] if isinstance(values, list) else []
            return f"{g.one_of(map(g.literal, texts))} {end}" if texts else g.until(f"{TAG}</{tag}>")
        if types == {"object"} and isinstance(schema.get("properties"), Mapping):
            return self._object(g, schema, tag, depth)
        if types == {"array"} and types_of(schema.get("items")):
            item = self._inside(g, schema["items"], "item", depth + 1)
            return f"({g.marker(f'{TAG}<item>')} {item})* {end}"
        return f"{g.json(schema)} {end}"


def _property(schema: Any, key: str) -> Any:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties.get(key) if isinstance(properties, Mapping) else None


MINIMAX_M3 = MiniMaxM3()
