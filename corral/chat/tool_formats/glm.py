"""GLM 4.5 and later, and Hy3: NAME, then <arg_key> and <arg_value> in turn."""

from __future__ import annotations

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.parameters import Parameters, value_grammar
from corral.chat.tools import Tool, Tools


class Glm(MarkedCalls):
    """`suffix` ends all tags. `section`: calls are in <tool_calls>, with <tool_sep> behind the name."""

    def __init__(
        self, name: str, found_by: tuple[tuple[str, ...], ...], *, suffix: str = "", section: bool = False
    ) -> None:
        def tag(name: str) -> str:
            return f"<{name}{suffix}>"

        self.name, self.found_by, self.section, self.repeat = name, found_by, section, not section
        self.call, self.call_end = tag("tool_call"), tag("/tool_call")
        self.calls, self.calls_end, self.sep = tag("tool_calls"), tag("/tool_calls"), tag("tool_sep")
        self.key, self.key_end = tag("arg_key"), tag("/arg_key")
        self.value, self.value_end = tag("arg_value"), tag("/arg_value")
        self.opening = self.calls if section else self.call
        self.markers = (self.call, self.call_end, self.key, self.key_end, self.value, self.value_end)
        if section:
            self.markers += (self.calls, self.calls_end, self.sep)

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        if not self.section:
            return (yield from self._read(r, tools))
        calls = r.calls
        while (yield from r.after_spaces(self.call)):
            if not (yield from self._read(r, tools)):
                return False
        if r.calls == calls:
            return False
        yield from r.close(self.calls_end)
        return True

    def _read(self, r: Reader, tools: Tools | None) -> Script[bool]:
        name: list[str] = []
        found = yield from r.until([self.sep, self.key, self.call_end], name.append)
        function = "".join(name).strip()
        if found is None or not function or "\n" in function:
            return False
        if found == self.sep:
            found = yield from r.after_spaces(self.key, self.call_end)
            if found is None and not r.ended:
                return False
        parameters = Parameters(r, tools, function)
        while found == self.key:
            key: list[str] = []
            if not (yield from r.until([self.key_end], key.append)):
                found = None
                break
            if not (yield from r.after_spaces(self.value)):
                return False
            yield from parameters.value("".join(key).strip(), self.value_end)
            found = yield from r.after_spaces(self.key, self.call_end)
        parameters.end(complete=found is not None)
        return True

    def body(self, g: Grammar) -> str:
        line = g.regex(r"\n?")
        call = f"{g.one_of(self._call(g, t) for t in g.tools.callable)} {g.marker(self.call_end)}"
        if not self.section:
            return call
        return f"{line} {g.many(f'{g.marker(self.call)} {call}', line)} {line} {g.marker(self.calls_end)}"

    def _call(self, g: Grammar, tool: Tool) -> str:
        line = g.regex(r"\n?")
        parts = [g.literal(tool.name), *([g.marker(self.sep)] if self.section else [])]
        for key in tool.properties:
            head = f"{g.marker(self.key)} {g.literal(key)} {g.marker(self.key_end)}"
            value = f"{g.marker(self.value)} {value_grammar(g, tool, key, self.value_end)}"
            parts.append(f"({line} {head} {line} {value}){'' if key in tool.required else '?'}")
        return " ".join([*parts, line])


GLM = Glm("glm-4.5", (("<arg_key>", "<arg_value>"),))
"""Also Ling 3, Laguna, Spark 2.5."""
HY3 = Glm("hy3", (("<tool_sep{}>", "<arg_key{}>", ":opensource"),), suffix=":opensource", section=True)
