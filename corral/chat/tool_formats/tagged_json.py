"""JSON between two tags: Hermes, Qwen and most others. A row for each pair of tags."""

from __future__ import annotations

from collections.abc import Sequence

from corral.chat.grammar import SPACE, Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.json_call import PLAIN, Keys, json_array_grammar, json_calls, json_grammar
from corral.chat.tools import Tools


class TaggedJson(MarkedCalls):
    """`closing` may be empty: the JSON's end is the end. `array`: the tags are around an array of calls.

    `atoms`: the control tokens in tags that have several.
    """

    def __init__(
        self,
        name: str,
        opening: str,
        closing: str,
        *,
        array: bool = False,
        keys: Keys = PLAIN,
        atoms: tuple[str, ...] = (),
        found_by: tuple[tuple[str, ...], ...] | None = None,
    ) -> None:
        self.name, self.opening, self.closing = name, opening, closing
        self.array, self.keys, self.repeat = array, keys, not array
        self.found_by = ((opening,),) if found_by is None else found_by
        self.markers = atoms or ((opening, closing) if closing else (opening,))

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        if not (yield from json_calls(r, tools, self.keys)):
            return False
        if self.closing:
            yield from r.close(self.closing)
        return True

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        if self.array:
            text = super().write(calls)
            return f"{self.opening}{text if text.startswith('[') else f'[{text}]'}{self.closing}"
        return "\n".join(
            f"{self.opening}\n{super(TaggedJson, self).write([c])}\n{self.closing}" for c in calls
        )

    def body(self, g: Grammar) -> str:
        call = json_array_grammar(g, self.keys) if self.array else json_grammar(g, self.keys, SPACE)
        return f"{call} /{SPACE}/ {g.marker(self.closing)}" if self.closing else call


HERMES = TaggedJson("hermes", "<tool_call>", "</tool_call>")
"""Hermes 2 and 3, Qwen 2.5 and 3, QwQ, Granite 4, SmolLM3, MiMo, Bielik."""

GRANITE = TaggedJson("granite", "<|tool_call|>", "", array=True)
"""Granite 3."""
PHI_4_MINI = TaggedJson(
    "phi-4-mini", "<|tool_call|>", "<|/tool_call|>", array=True, found_by=(("<|/tool_call|>",),)
)
NEMOTRON_V2 = TaggedJson("nemotron-v2", "<TOOLCALL>", "</TOOLCALL>", array=True)
APRIEL = TaggedJson("apriel", "<tool_calls>", "</tool_calls>", array=True, found_by=(("<tool_calls>[",),))
MINIMAX_M1 = TaggedJson("minimax-m1", "<tool_calls>", "</tool_calls>")
APERTUS = TaggedJson(
    "apertus", "<|tools_prefix|>", "<|tools_suffix|>", array=True, keys=Keys(name_is_key=True)
)
FIREFUNCTION = TaggedJson(
    "firefunction-v2", "functools", "", array=True, found_by=((" functools[",), ("functools[",))
)
NEMOTRON_MINI = TaggedJson(
    "nemotron-mini", "<toolcall>", "</toolcall>", found_by=(("<extra_id_1>", "<tool> "),)
)
"""Its template says nothing of calls, its model card does."""
GIGACHAT_3 = TaggedJson(
    "gigachat-3",
    "<|message_sep|>\n\nfunction call<|role_sep|>\n",
    "",
    atoms=("<|message_sep|>", "<|role_sep|>"),
    found_by=(("<|message_sep|>", "<|role_sep|>"),),
)
"""A call is a message of its own, by the role `function call`."""
GIGACHAT_3_1 = TaggedJson("gigachat-3.1", "<|function_call|>", "")
COMMAND_R7B = TaggedJson(
    "command-r7b",
    "<|START_ACTION|>",
    "<|END_ACTION|>",
    array=True,
    keys=Keys(
        "tool_name", "parameters", before=rf'"tool_call_id"{SPACE}:{SPACE}"[0-9]{{1,4}}"{SPACE},{SPACE}'
    ),
)
