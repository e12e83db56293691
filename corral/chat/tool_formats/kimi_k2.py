"""Kimi K2: a section of calls `functions.NAME:NUMBER`, whose ids are part of the text."""

from __future__ import annotations

from collections.abc import Sequence

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tools import Tools

SECTION_BEGIN, SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL_BEGIN, ARGUMENT, CALL_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"


class KimiK2(MarkedCalls):
    name = "kimi-k2"
    opening, repeat = SECTION_BEGIN, False
    found_by = ((SECTION_BEGIN,),)
    markers = (SECTION_BEGIN, SECTION_END, CALL_BEGIN, ARGUMENT, CALL_END)

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        calls = r.calls
        while (yield from r.after_spaces(CALL_BEGIN)):
            id: list[str] = []
            if not (yield from r.until([ARGUMENT], id.append)):
                return False
            full = "".join(id).strip()
            name = full.removeprefix("functions.").rpartition(":")[0] or full
            yield from r.spaces()
            if not name or not (yield from r.next_is("{")):
                return False
            r.call(name, full)
            if not (yield from r.json(r.arguments)):
                return r.ended
            yield from r.close(CALL_END)
        if r.calls == calls:
            return False
        yield from r.close(SECTION_END)
        return True

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        texts = [
            f"{CALL_BEGIN}functions.{name}:{i}{ARGUMENT}{arguments}{CALL_END}"
            for i, (name, arguments) in enumerate(calls)
        ]
        return f"{SECTION_BEGIN}{''.join(texts)}{SECTION_END}"

    def body(self, g: Grammar) -> str:
        call = g.one_of(
            f"{g.marker(CALL_BEGIN)} {g.literal(f'functions.{t.name}:')} /[0-9]{{1,3}}/ {g.marker(ARGUMENT)} "
            f"{g.arguments(t)} {g.marker(CALL_END)}"
            for t in g.tools.callable
        )
        return f"{g.many(call)} {g.marker(SECTION_END)}"


KIMI_K2 = KimiK2()
