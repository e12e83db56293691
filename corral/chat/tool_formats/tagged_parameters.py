"""A tag for the function and one for each parameter: Qwen3-Coder, Seed-OSS, MiniMax M2, DeepSeek V3.2."""

from __future__ import annotations

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import MarkedCalls
from corral.chat.tool_formats.parameters import Parameters, value_grammar
from corral.chat.tools import Tool, Tools

LINE = r"/\n?/"
_STRING = {' string="true"': True, ' string="false"': False}


class TaggedParameters(MarkedCalls):
    """The texts of the syntax, around names and values.

        opening
        function NAME function_close
        parameter KEY parameter_close VALUE parameter_end     for each parameter
        function_end                                          several of these if `section`
        closing

    `newlines`: a value has lines of its own. `typed`: a parameter says ` string="true"` or ` string="false"`.
    `atom`: a part of the tags that may be a control token.
    """

    def __init__(
        self,
        name: str,
        opening: str,
        closing: str,
        function: tuple[str, str, str],
        parameter: tuple[str, str, str],
        *,
        section: bool = False,
        newlines: bool = False,
        typed: bool = False,
        atom: str = "",
        found_by: tuple[tuple[str, ...], ...],
    ) -> None:
        self.name, self.opening, self.closing = name, opening, closing
        self.function, self.function_close, self.function_end = function
        self.parameter, self.parameter_close, self.parameter_end = parameter
        self.repeat, self.newlines, self.typed = not section, newlines, typed
        self.found_by = found_by
        self.markers = (opening, closing, atom) if atom else (opening, closing)

    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        calls = r.calls
        while (yield from r.after_spaces(self.function, self.closing)) == self.function:
            name: list[str] = []
            if not (yield from r.until([self.function_close], name.append)) or not "".join(name).strip():
                return False
            parameters = Parameters(r, tools, "".join(name).strip())
            while (yield from r.after_spaces(self.parameter)):
                key: list[str] = []
                if not (yield from r.until([self.parameter_close], key.append)):
                    break
                name_of, _, attribute = "".join(key).partition('"')
                yield from parameters.value(
                    name_of.strip(), self.parameter_end, string=_STRING.get(attribute), newlines=self.newlines
                )
            ended = yield from r.after_spaces(self.function_end)
            parameters.end(complete=ended is not None)
        if r.calls > calls:
            r.done()
        return r.calls > calls

    def body(self, g: Grammar) -> str:
        call = g.one_of(self.call(g, t) for t in g.tools.callable)
        return self.around(g, call if self.repeat else g.many(call, LINE))

    def around(self, g: Grammar, calls: str) -> str:
        return f"{LINE} {calls} {LINE} {g.marker(self.closing)}"

    def call(self, g: Grammar, tool: Tool) -> str:
        """What is between opening and closing."""
        parts = [g.marker(f"{self.function}{tool.name}{self.function_close}")]
        for key in tool.properties:
            value = value_grammar(g, tool, key, self.parameter_end, LINE if self.newlines else "")
            head = f"{self.parameter}{key}{self.parameter_close}"
            if self.typed:
                head = f'{self.parameter}{key}" string="{str(tool.types_of(key) == {"string"}).lower()}">'
            optional = "" if key in tool.required else "?"
            parts.append(f"({LINE} {g.marker(head)} {value}){optional}")
        return " ".join([*parts, LINE, g.marker(self.function_end)])


QWEN3_CODER = TaggedParameters(
    "qwen3-coder", "<tool_call>", "</tool_call>",
    ("<function=", ">", "</function>"), ("<parameter=", ">", "</parameter>"),
    newlines=True, found_by=(("<tool_call>", "<function=", "<parameter="),),
)  # fmt: skip
"""Also Nemotron 3, Step 3.5."""
SEED_OSS = TaggedParameters(
    "seed-oss", "<seed:tool_call>", "</seed:tool_call>",
    ("<function=", ">", "</function>"), ("<parameter=", ">", "</parameter>"),
    found_by=(("<seed:tool_call>",), ("seed:", "<function=", "<parameter=")),
)  # fmt: skip
MINIMAX_M2 = TaggedParameters(
    "minimax-m2", "<minimax:tool_call>", "</minimax:tool_call>",
    ('<invoke name="', '">', "</invoke>"), ('<parameter name="', '">', "</parameter>"),
    section=True, found_by=(("<minimax:tool_call>",),),
)  # fmt: skip


def _ml(name: str, language: str, block: str) -> TaggedParameters:
    tag = f"｜{language}｜"
    return TaggedParameters(
        name, f"<{tag}{block}>", f"</{tag}{block}>",
        (f'<{tag}invoke name="', '">', f"</{tag}invoke>"),
        (f'<{tag}parameter name="', ">", f"</{tag}parameter>"),
        section=True, typed=True, atom=tag, found_by=((tag, f"{block}>"),),
    )  # fmt: skip


DEEPSEEK_V3_2 = _ml("deepseek-v3.2", "DSML", "function_calls")
DEEPSEEK_V4 = _ml("deepseek-v4", "DSML", "tool_calls")
GIGACHAT_3_5 = _ml("gigachat-3.5", "GCML", "tool_calls")
