"""DeepSeek: calls in a section, each between control tokens. V3 and R1 fence the arguments, V3.1 does not."""

from __future__ import annotations

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tools import Tools

CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END, SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
LINE = r"/\n?/"


class DeepSeek(MarkedCalls):
    """`fenced`: `function<sep>NAME` and the arguments in ```json; else `NAME<sep>` and the arguments."""

    opening, repeat = CALLS_BEGIN, False
    markers = (CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEP)

    def __init__(self, name: str, fenced: bool, found_by: tuple[tuple[str, ...], ...]) -> None:
        self.name, self.fenced, self.found_by = name, fenced, found_by

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        calls = r.calls
        while (yield from r.after_spaces(CALL_BEGIN)) or r.calls == calls:
            name: list[str] = []
            if not (yield from r.until([SEP], name.append)):
                return r.calls > calls
            if "".join(name).strip() == "function" and not (yield from r.next_is("{")):
                name = []
                if not (yield from r.until(["\n"], name.append)):
                    return r.calls > calls
                yield from r.after_spaces("```json")
            yield from r.spaces()
            if not (yield from r.next_is("{")):
                return False
            r.call("".join(name).strip())
            if not (yield from r.json(r.arguments)):
                return r.ended
            yield from r.close("```")
            yield from r.close(CALL_END)
        yield from r.close(CALLS_END)
        return True

    def body(self, g: Grammar) -> str:
        begin, sep, end = g.marker(CALL_BEGIN), g.marker(SEP), g.marker(CALL_END)
        form = (
            '"function" {sep} {name} "\\n```json\\n" {arguments} "\\n```"'
            if self.fenced
            else "{name} {sep} {arguments}"
        )
        calls = [
            form.format(sep=sep, name=g.literal(t.name), arguments=g.arguments(t)) for t in g.tools.callable
        ]
        call = f"{begin} ({g.one_of(calls)}) {end}"
        return f"{g.many(call, LINE)} {g.marker(CALLS_END)}"


V3 = DeepSeek("deepseek-v3", True, ((CALLS_BEGIN, "```json"),))
V3_1 = DeepSeek("deepseek-v3.1", False, ((CALLS_BEGIN,),))
