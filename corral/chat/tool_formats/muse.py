"""Muse: messages with a recipient, a tool or `self` for reasoning, with a block of XML in those to a tool.

     to=self<|message|>reasoning<|eom|><|start|>assistant
     to=NAME<|message|><atem:function_calls>...</atem:function_calls><|eot|>
     to=user<|message|>answer<|eot|>

The prompt ends with `<|start|>assistant`.
"""

from __future__ import annotations

import re

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import ToolFormat
from corral.chat.tool_formats.tagged_parameters import TaggedParameters
from corral.chat.tools import Tool, Tools

START, MESSAGE, EOM, EOT = "<|start|>", "<|message|>", "<|eom|>", "<|eot|>"
ENDS = (EOM, EOT)
NEXT = f"{EOM}{START}assistant"

_RECIPIENT = re.compile(r"to=(\S+)")

BLOCK = TaggedParameters(
    "atem", "<atem:function_calls>", "</atem:function_calls>",
    ('<atem:invoke name="', '">', "</atem:invoke>"), ('<atem:parameter name="', '">', "</atem:parameter>"),
    section=True, found_by=(),
)  # fmt: skip


class Muse(ToolFormat):
    name = "muse"
    found_by = (("<atem:function_calls>", START),)
    markers = (START, MESSAGE, *ENDS)
    framed = True
    answer_start = f" to=user{MESSAGE}"
    reasoning_start = f" to=self{MESSAGE}"
    reasoning_end_before_calls = NEXT
    reasoning_end = f"{NEXT} to=user{MESSAGE}"

    def script(self, r: Reader, tools: Tools | None) -> Script[None]:
        more = True
        while more:
            header: list[str] = []
            if not (yield from r.until([MESSAGE], header.append)):
                r.unread()
                return
            found = _RECIPIENT.search("".join(header))
            recipient = found[1] if found else "user"
            if recipient not in ("self", "user"):
                opened = yield from r.after_spaces(BLOCK.opening)
                if opened and (yield from BLOCK.block(r, tools)):
                    yield from r.close(*ENDS)
                else:
                    r.give_up()
                    yield from r.until(ENDS, r.content)
            else:
                r.border()
                r.tell()
                r.reasons = recipient == "self"
                yield from r.until(ENDS, r.reasoning if r.reasons else r.content)
                r.reasons = False
                r.tell()
                r.border()
            more = bool((yield from r.until([f"{START}assistant"], r.content)))

    def grammar(self, g: Grammar) -> str:
        calls = g.many(g.one_of(self._call(g, t) for t in g.tools.callable), g.marker(NEXT))
        calls = f"{self._thoughts(g)} {calls}"
        return calls if g.tools.required else f"({self.answer(g, g.text())} | {calls})"

    def answer(self, g: Grammar, text: str) -> str:
        return f"{self._thoughts(g)} {g.marker(self.answer_start)} {text}"

    def _call(self, g: Grammar, tool: Tool) -> str:
        block = f"{g.marker(BLOCK.opening)} {BLOCK.around(g, BLOCK.call(g, tool))}"
        return f"{g.marker(f' to={tool.name}{MESSAGE}')} {block}"

    def _thoughts(self, g: Grammar) -> str:
        if not g.thinks:
            return ""
        return f"({g.marker(self.reasoning_start)} {g.until(EOM)} {g.marker(f'{START}assistant')})?"


MUSE = Muse()
