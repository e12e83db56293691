"""Solar Open: parts of a reply, each with its kind.

    <|think|>reasoning<|end|><|begin|>assistant
    <|tool_calls|><|tool_call:begin|>ID<|tool_call:name|>NAME<|tool_call:args|>{...}<|tool_call:end|><|calls|>
    <|content|>answer<|end|>

The prompt ends with `<|begin|>assistant`.
"""

from __future__ import annotations

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tool_formats.format import ToolFormat
from corral.chat.tools import Tools

BEGIN, END, CALLS_END = "<|begin|>", "<|end|>", "<|calls|>"
THINK, CONTENT, CALLS = "<|think|>", "<|content|>", "<|tool_calls|>"
CALL_BEGIN, CALL_NAME = "<|tool_call:begin|>", "<|tool_call:name|>"
CALL_ARGS, CALL_END = "<|tool_call:args|>", "<|tool_call:end|>"


class Solar(ToolFormat):
    name = "solar-open"
    found_by = ((CALL_BEGIN, CALL_ARGS),)
    markers = (BEGIN, END, THINK, CONTENT, CALLS, CALLS_END, CALL_BEGIN, CALL_NAME, CALL_ARGS, CALL_END)
    framed = True
    answer_start = CONTENT
    reasoning_start = THINK
    reasoning_end_before_calls = f"{END}{BEGIN}assistant"
    reasoning_end = reasoning_end_before_calls + CONTENT

    def script(self, r: Reader, tools: Tools | None) -> Script[None]:
        while True:
            yield from r.after_spaces(f"{BEGIN}assistant")
            kind = yield from r.until([THINK, CONTENT, CALLS], r.content)
            if kind is None:
                return
            if kind == CALLS:
                if not (yield from self._calls(r)):
                    r.give_up()
                continue
            r.tell()
            r.border()
            r.reasons = kind == THINK
            yield from r.until([END], r.reasoning if r.reasons else r.content)
            r.reasons = False
            r.tell()
            r.border()

    def _calls(self, r: Reader) -> Script[bool]:
        calls = r.calls
        while (yield from r.after_spaces(CALL_BEGIN)):
            id: list[str] = []
            name: list[str] = []
            if not (yield from r.until([CALL_NAME], id.append)):
                return False
            if not (yield from r.until([CALL_ARGS], name.append)) or not "".join(name).strip():
                return False
            yield from r.spaces()
            if not (yield from r.next_is("{")):
                return False
            r.call("".join(name).strip(), "".join(id).strip() or None)
            if not (yield from r.json(r.arguments)):
                return r.ended
            yield from r.close(CALL_END)
        if r.calls == calls:
            return False
        yield from r.close(CALLS_END)
        return True

    def grammar(self, g: Grammar) -> str:
        call = g.one_of(
            f"{g.marker(CALL_BEGIN)} /[a-z0-9]{{10}}/ {g.marker(CALL_NAME)} {g.literal(t.name)} "
            f"{g.marker(CALL_ARGS)} {g.arguments(t)} {g.marker(CALL_END)}"
            for t in g.tools.callable
        )
        calls = f"{self._thoughts(g)} {g.marker(CALLS)} {g.many(call)} ({g.marker(CALLS_END)})?"
        return calls if g.tools.required else f"({self.answer(g, g.text())} | {calls})"

    def answer(self, g: Grammar, text: str) -> str:
        return f"{self._thoughts(g)} {g.marker(CONTENT)} {text}"

    def _thoughts(self, g: Grammar) -> str:
        if not g.thinks:
            return ""
        return f'({g.marker(THINK)} {g.until(END)} {g.marker(BEGIN)} "assistant")?'


SOLAR = Solar()
