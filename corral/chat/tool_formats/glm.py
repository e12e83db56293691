"""GLM 4.5 and later: <tool_call>NAME, then <arg_key> and <arg_value> in turn."""

from __future__ import annotations

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.parameters import Parameters, value_grammar
from corral.chat.tools import Tool, Tools


class Glm(MarkedCalls):
    name = "glm-4.5"
    opening = "<tool_call>"
    found_by = (("<arg_key>", "<arg_value>"),)
    markers = ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        name: list[str] = []
        found = yield from r.until(["<arg_key>", "</tool_call>"], name.append)
        function = "".join(name).strip()
        if found is None or not function or "\n" in function:
            return False
        parameters = Parameters(r, tools, function)
        while found == "<arg_key>":
            key: list[str] = []
            if not (yield from r.until(["</arg_key>"], key.append)):
                found = None
                break
            if not (yield from r.after_spaces("<arg_value>")):
                return False
            yield from parameters.value("".join(key).strip(), "</arg_value>")
            found = yield from r.after_spaces("<arg_key>", "</tool_call>")
        parameters.end(complete=found is not None)
        return True

    def body(self, g: Grammar) -> str:
        return f"{g.one_of(self._call(g, t) for t in g.tools.callable)} {g.marker('</tool_call>')}"

    def _call(self, g: Grammar, tool: Tool) -> str:
        line = g.regex(r"\n?")
        parts = [g.literal(tool.name)]
        for key in tool.properties:
            head = f"{g.marker('<arg_key>')} {g.literal(key)} {g.marker('</arg_key>')}"
            value = f"{g.marker('<arg_value>')} {value_grammar(g, tool, key, '</arg_value>')}"
            parts.append(f"({line} {head} {line} {value}){'' if key in tool.required else '?'}")
        return " ".join([*parts, line])


GLM = Glm()
