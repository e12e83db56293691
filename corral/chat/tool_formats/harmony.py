"""Harmony, the syntax of gpt-oss: messages with a channel and maybe a recipient.

    <|channel|>analysis<|message|>reasoning<|end|><|start|>assistant
    <|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>
    <|channel|>final<|message|>answer<|return|>

The prompt ends with `<|start|>assistant`. The recipient may also come before the channel.
"""

from __future__ import annotations

import re

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import ToolFormat
from corral.chat.tool_formats.json_call import json_arguments
from corral.chat.tools import Tools

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")

_RECIPIENT = re.compile(r"to=functions\.([^\s<]+)")


class Harmony(ToolFormat):
    name = "harmony"
    found_by = ((START, CHANNEL, MESSAGE),)
    markers = (START, CHANNEL, MESSAGE, CONSTRAIN, *ENDS)
    framed = True
    answer_start = "<|channel|>final<|message|>"
    reasoning_start = "<|channel|>analysis<|message|>"
    reasoning_end = "<|end|><|start|>assistant<|channel|>final<|message|>"
    reasoning_end_before_calls = "<|end|><|start|>assistant"

    def script(self, r: Reader, tools: Tools | None) -> Script[None]:
        header: list[str] = []
        if (yield from r.after_spaces("to=")):
            header.append("to=")
        elif not (yield from r.until([CHANNEL, START], r.content)):
            return
        while True:
            if not (yield from r.until([MESSAGE], header.append)):
                r.unread()
                return
            text = "".join(header)
            recipient = _RECIPIENT.search(text)
            if recipient and (yield from json_arguments(r, recipient[1])):
                yield from r.close(*ENDS)
            elif recipient and r.calls == 0:
                r.unread()
            else:
                r.border()
                r.tell()
                thought = text.rpartition(CHANNEL)[2].lstrip().startswith("analysis")
                r.reasons = thought
                yield from r.until(ENDS, r.reasoning if thought else r.content)
                r.reasons = False
                r.tell()
                r.border()
            header = []
            if not (yield from r.until([CHANNEL, START], r.content)):
                return

    def grammar(self, g: Grammar) -> str:
        channel, message = g.marker(CHANNEL), g.marker(MESSAGE)
        json_type = f'(/ ?/ {g.marker(CONSTRAIN)} "json" | " json")?'
        calls = []
        for t in g.tools.callable:
            inside = f"{channel} /(commentary|analysis) to=functions\\.{g.escaped(t.name)}/"
            before = f"{g.literal(' to=functions.' + t.name)} {channel} /commentary|analysis/"
            calls.append(f"({inside} | {before}) {json_type} {message} {g.arguments(t)}")
        call = f"{self._thoughts(g)} ({g.one_of(calls)}) ({g.marker('<|call|>')})?"
        return call if g.tools.required else f"({self.answer(g, g.text())} | {call})"

    def answer(self, g: Grammar, text: str) -> str:
        return f'{self._thoughts(g)} {g.marker(CHANNEL)} "final" {g.marker(MESSAGE)} {text}'

    def _thoughts(self, g: Grammar) -> str:
        """Messages before the one that counts: reasoning, and what is said of a call to come."""
        if not g.thinks:
            return ""
        channels = "/analysis|commentary/" if g.tools.callable else '"analysis"'
        message = f"{g.marker(CHANNEL)} {channels} {g.marker(MESSAGE)} {g.until('<|end|>')}"
        return f'({message} {g.marker(START)} "assistant")*'


HARMONY = Harmony()
