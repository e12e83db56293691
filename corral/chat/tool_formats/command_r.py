"""Command R and R+: `Action:` and a fenced JSON array of {"tool_name": ..., "parameters": {...}}."""

from __future__ import annotations

from corral.chat.grammar import SPACE, Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.json_call import Keys, json_array_grammar, json_calls
from corral.chat.tools import Tools


class CommandR(MarkedCalls):
    name = "command-r"
    opening = "Action:\n```json"
    repeat = False
    found_by = (("Action:", "```json", '"tool_name"'), ("Action:", "directly-answer"))

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        if not (yield from json_calls(r, tools, Keys("tool_name", "parameters"))):
            return False
        yield from r.close("```")
        return True

    def body(self, g: Grammar) -> str:
        return f"{json_array_grammar(g, Keys('tool_name', 'parameters'))} /{SPACE}```/"


COMMAND_R = CommandR()
