"""MiniCPM 5: <function name="NAME"><param name="KEY">VALUE</param></function>, some values in CDATA."""

from __future__ import annotations

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.parameters import Parameters, value_grammar
from corral.chat.tools import Tool, Tools

PARAM, PARAM_END, CDATA, CDATA_END = '<param name="', "</param>", "<![CDATA[", "]]></param>"
LINE = r"/\n?/"


class MiniCpm(MarkedCalls):
    name = "minicpm-5"
    opening, closing = '<function name="', "</function>"
    found_by = (('<function name="', '<param name="'),)
    markers = ("<function", closing, "<param", PARAM_END)

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        name: list[str] = []
        if (yield from r.until(['">', "\n"], name.append)) != '">' or not "".join(name):
            return False
        parameters = Parameters(r, tools, "".join(name))
        while (yield from r.after_spaces(PARAM)):
            key: list[str] = []
            if not (yield from r.until(['">'], key.append)):
                break
            quoted = yield from r.accept(CDATA)
            if not (yield from parameters.value("".join(key), CDATA_END if quoted else PARAM_END)):
                break
        parameters.end(complete=(yield from r.after_spaces(self.closing)) is not None)
        return True

    def body(self, g: Grammar) -> str:
        return g.one_of(self._call(g, t) for t in g.tools.callable)

    def _call(self, g: Grammar, tool: Tool) -> str:
        parts = [g.marker(f'{tool.name}">')]
        for key in tool.properties:
            optional = "" if key in tool.required else "?"
            head = g.marker(f'{PARAM}{key}">')
            parts.append(f"({LINE} {head} {self._value(g, tool, key)}){optional}")
        return " ".join([*parts, LINE, g.marker(self.closing)])

    def _value(self, g: Grammar, tool: Tool, key: str) -> str:
        """A text with `<` in it has CDATA around it."""
        value = value_grammar(g, tool, key, PARAM_END)
        if value.strip() != g.until(PARAM_END):
            return value
        return f"(/[^<]*/ {g.marker(PARAM_END)} | {g.literal(CDATA)} {g.until(CDATA_END)})"


MINICPM_5 = MiniCpm()
