"""Functionary: v3.1 writes <function=NAME>{...}</function>; in v3.2 every part of a reply has a recipient."""

from __future__ import annotations

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls, ToolFormat
from corral.chat.tools import Tools


class FunctionTag(MarkedCalls):
    """v3.1, also of Llama 3.1's own examples."""

    name = "functionary-v3.1"
    opening = "<function="
    found_by = (("<function=", "</function>"),)

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        name: list[str] = []
        if not (yield from r.until([">"], name.append)) or not "".join(name):
            return False
        if not (yield from r.next_is("{")):
            return False
        yield from r.spaces()
        r.call("".join(name))
        if not (yield from r.json(r.arguments)):
            return r.ended
        yield from r.close("</function>")
        return True

    def body(self, g: Grammar) -> str:
        return g.one_of(f'{g.literal(t.name + ">")} {g.arguments(t)} "</function>"' for t in g.tools.callable)


class Recipients(ToolFormat):
    """v3.2: `>>>`, a recipient, a line break and its part. An answer goes to `all`."""

    name = "functionary-v3.2"
    answer_start = "all\n"
    found_by = ((">>>all",), (">>>${recipient}",))

    def script(self, r: Reader, tools: Tools | None) -> Script[None]:
        yield from r.accept(">>>")
        more = True
        while more:
            name: list[str] = []
            if not (yield from r.until(["\n"], name.append)):
                r.unread()
                return
            recipient = "".join(name).strip()
            if recipient == "all":
                r.tell()
                more = bool((yield from r.until([">>>"], r.content)))
            elif tools and tools.find(recipient) and (yield from r.next_is("{")):
                yield from r.spaces()
                r.call(recipient)
                yield from r.json(r.arguments)
                more = bool((yield from r.until([">>>"], r.content)))
            else:
                r.unread()
                more = bool((yield from r.until([">>>"], r.content)))

    def answer(self, g: Grammar, text: str) -> str:
        return f'"all\\n" {text}'

    def grammar(self, g: Grammar) -> str:
        call = g.one_of(f'{g.literal(t.name)} "\\n" {g.arguments(t)}' for t in g.tools.callable)
        calls = g.many(call, '">>>"')
        if g.tools.required:
            return calls
        answer = g.rule("ANSWER", r"/all\n(?s:.*)/ & ~/(?s:.*)>>>(?s:.*)/")
        return f"({answer} | {calls} | {g.until_text('all', '>>>')} {calls})"


V3_1, V3_2 = FunctionTag(), Recipients()
