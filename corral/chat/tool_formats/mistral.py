"""Mistral: [TOOL_CALLS][{"name": ..., "arguments": ...}], and since 2025 [TOOL_CALLS]name[ARGS]{...}."""

from __future__ import annotations

from corral.chat.grammar import SPACE, Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.json_call import Keys, json_array_grammar, json_calls
from corral.chat.tools import Tools


class Mistral(MarkedCalls):
    """Both forms are read, whichever the template has."""

    opening = "[TOOL_CALLS]"
    markers = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        if (yield from r.next_is("[", "{")):
            return (yield from json_calls(r, tools))
        name: list[str] = []
        found = yield from r.until(["[ARGS]", "[CALL_ID]", "{", "\n"], name.append, keep=("{", "\n"))
        if found == "[CALL_ID]":
            found = yield from r.until(["[ARGS]"], lambda _: None)
        if found not in ("[ARGS]", "{") or not "".join(name).strip():
            return False
        yield from r.spaces()
        if not (yield from r.next_is("{")):
            return False
        r.call("".join(name).strip())
        if (yield from r.json(r.arguments)):
            r.done()
        return True


class MistralArray(Mistral):
    name = "mistral"
    found_by = (("[TOOL_CALLS]",),)
    repeat = False

    def body(self, g: Grammar) -> str:
        id = rf'({SPACE},{SPACE}"id"{SPACE}:{SPACE}"[a-zA-Z0-9]{{9}}")?'
        return json_array_grammar(g, Keys(after=id))


class MistralArgs(Mistral):
    name = "mistral-args"
    found_by = (("[TOOL_CALLS]", "[ARGS]"),)

    def body(self, g: Grammar) -> str:
        args = g.marker("[ARGS]")
        return g.one_of(f"{g.literal(t.name)} {args} {g.arguments(t)}" for t in g.tools.callable)


ARRAY, ARGS = MistralArray(), MistralArgs()
