"""Kimi K3: tags made of control tokens around the reasoning, the answer, and each argument of each call.

    <|open|>think<|sep|>...<|close|>think<|sep|><|open|>response<|sep|>...<|close|>response<|sep|>
    <|open|>tools<|sep|><|open|>call tool="NAME" index="1"<|sep|>
        <|open|>argument key="KEY" type="string"<|sep|>VALUE<|close|>argument<|sep|>
    <|close|>call<|sep|><|close|>tools<|sep|><|close|>message<|sep|>

The prompt ends with the tag that opens the reasoning or the answer. In attributes `&` and `"` are escaped.
"""

from __future__ import annotations

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.json_call import json_arguments
from corral.chat.tool_formats.parameters import Parameters
from corral.chat.tools import Tool, Tools

OPEN, CLOSE, SEP, END = "<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"
RESPONSE, RESPONSE_END = f"{OPEN}response{SEP}", f"{CLOSE}response{SEP}"
TOOLS, TOOLS_END = f"{OPEN}tools{SEP}", f"{CLOSE}tools{SEP}"
CALL, CALL_END = f'{OPEN}call tool="', f"{CLOSE}call{SEP}"
ARGUMENT, ARGUMENT_END = f'{OPEN}argument key="', f"{CLOSE}argument{SEP}"
JSON, JSON_END, MESSAGE_END = f"{OPEN}json", f"{CLOSE}json{SEP}", f"{CLOSE}message{SEP}"
TYPES = {"integer": "number"}
"""What it calls a type, where that has another name in schemas."""


class KimiK3(MarkedCalls):
    name = "kimi-k3"
    opening, repeat, framed = TOOLS, False, True
    found_by = ((OPEN, CLOSE, END),)
    markers = (OPEN, CLOSE, SEP)
    answer_start = RESPONSE

    def script(self, r: Reader, tools: Tools | None) -> Script[None]:
        borders = [RESPONSE, RESPONSE_END, MESSAGE_END, END]
        while found := (yield from r.until([TOOLS, *borders], r.content)):
            if found in borders:
                r.tell()
                r.border()
            elif not (yield from self.block(r, tools)):
                r.give_up()

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        calls = r.calls
        while (yield from r.after_spaces(CALL)):
            name: list[str] = []
            if not (yield from r.until([SEP], name.append)):
                return False
            function = unescaped("".join(name).partition('"')[0])
            if not function or not (yield from self._arguments(r, tools, function)):
                return r.ended
        if r.calls == calls:
            return False
        yield from r.close(TOOLS_END)
        return True

    def _arguments(self, r: Reader, tools: Tools | None, function: str) -> Script[bool]:
        if (yield from r.after_spaces(JSON)):
            if not (yield from r.until([SEP], lambda _: None)) or not (
                yield from json_arguments(r, function)
            ):
                return False
            yield from r.close(JSON_END)
            yield from r.close(CALL_END)
            return True
        parameters = Parameters(r, tools, function)
        while (yield from r.after_spaces(ARGUMENT)):
            head: list[str] = []
            if not (yield from r.until([SEP], head.append)):
                break
            key, _, attributes = "".join(head).partition('"')
            string = 'type="string"' in attributes if "type=" in attributes else None
            if not (yield from parameters.value(unescaped(key), ARGUMENT_END, string=string)):
                break
        ended = yield from r.after_spaces(CALL_END)
        parameters.end(complete=ended is not None)
        return ended is not None

    def grammar(self, g: Grammar) -> str:
        if not g.is_token(OPEN):
            return super().grammar(g)
        opened, closed, end = map(g.marker, (RESPONSE, RESPONSE_END, MESSAGE_END))
        calls = f"{g.marker(TOOLS)} {self.body(g)} ({end})?"
        if g.tools.required:
            return f"(({opened})? {closed})? {calls}"
        text = f"({opened})? {g.text(first=True)} ({closed})?"
        return f"({text} ({end})? | {text} {calls})"

    def answer(self, g: Grammar, text: str) -> str:
        if not g.is_token(OPEN):
            return text
        return f"({g.marker(RESPONSE)})? {text} ({g.marker(RESPONSE_END)} ({g.marker(MESSAGE_END)})?)?"

    def body(self, g: Grammar) -> str:
        return f"{g.many(g.one_of(self._call(g, t) for t in g.tools.callable))} {g.marker(TOOLS_END)}"

    def _call(self, g: Grammar, tool: Tool) -> str:
        head = g.marker(f'{CALL}{escaped(tool.name)}" index="')
        parts = [f"{head} /[1-9][0-9]{{0,2}}/ {g.marker(chr(34) + SEP)}"]
        for key in tool.properties:
            optional = "" if key in tool.required else "?"
            types = sorted(tool.types_of(key)) or ["string"]
            parts.append(f"{g.one_of(self._argument(g, tool, key, kind) for kind in types)}{optional}")
        return " ".join([*parts, g.marker(CALL_END)])

    def _argument(self, g: Grammar, tool: Tool, key: str, kind: str) -> str:
        head = g.marker(f'{ARGUMENT}{escaped(key)}" type="{TYPES.get(kind, kind)}"{SEP}')
        if kind == "string":
            return f"{head} {g.until(ARGUMENT_END)}"
        return f"{head} {g.json({**tool.schema_of(key), 'type': kind})} {g.marker(ARGUMENT_END)}"


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;")


def unescaped(text: str) -> str:
    return text.replace("&quot;", '"').replace("&amp;", "&")


KIMI_K3 = KimiK3()
