"""A reply that is nothing but JSON calls: Llama 3, and every template that knows no tools.

A reply is a call if it begins like one, maybe in a fence as ```json or ```tool_code; JSON that calls no known
tool is content.
"""

from __future__ import annotations

import json

from corral.chat.grammar import SPACE, Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import ToolFormat
from corral.chat.tool_formats.json_call import Keys, json_array_grammar, json_calls, json_grammar
from corral.chat.tools import Tools

FENCES = ("```json", "```tool_code", "```tool_call", "```")


class BareJson(ToolFormat):
    """`tag`: a control token that may come before the JSON. `array`: one call is in an array too."""

    def __init__(
        self,
        name: str,
        keys: Keys,
        tag: str = "",
        array: bool = False,
        found_by: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        self.name, self.keys, self.tag, self.array, self.found_by = name, keys, tag, array, found_by
        self.markers = (tag,) if tag else ()

    def script(self, r: Reader, tools: Tools | None) -> Script[None]:
        tagged = bool(self.tag) and (yield from r.after_spaces(self.tag)) is not None
        fenced = not tagged and (yield from r.after_spaces(*FENCES)) is not None
        if tools and (yield from json_calls(r, tools, self.keys, known=True)):
            if fenced:
                yield from r.close("```")
        elif not tagged:
            r.unread()
        elif tools and tools.find("python"):  # Llama's code interpreter: the rest is its program
            yield from self._python(r)
        else:
            r.tell()
        yield from r.rest(r.content)

    def _python(self, r: Reader) -> Script[None]:
        program: list[str] = []
        yield from r.rest(program.append)
        r.call("python")
        r.arguments(json.dumps({"code": "".join(program)}))

    def grammar(self, g: Grammar) -> str:
        calls = json_array_grammar(g, self.keys) if self.array else json_grammar(g, self.keys, SPACE)
        if g.tools.parallel and not self.array:
            calls = f"({calls} | {json_array_grammar(g, self.keys)})"
        if self.tag:
            calls = f"({calls} | {g.marker(self.tag)} {calls})"
        if g.tools.required:
            return calls
        like_a_call = rf'[\[{{]{SPACE}\{{?{SPACE}"{self.keys.name}"{SPACE}:'
        return f"({g.text_unlike(like_a_call)} | {calls})"


LLAMA_3 = BareJson(
    "llama-3",
    Keys("name", "parameters"),
    tag="<|python_tag|>",
    found_by=(("<|start_header_id|>", '"parameters"'), ("<|start_header_id|>", "ipython")),
)
LLAMA_4 = BareJson("llama-4", Keys("name", "parameters"), found_by=(("<|header_start|>", '"parameters"'),))
XLAM = BareJson("xlam", Keys(), array=True, found_by=(("make calls in a single JSON array",),))
GENERIC = BareJson("generic", Keys())
"""For templates that don't know tools, or whose syntax is none of ours: the system message describes them
(`messages.py`)."""
