"""How the replies of a model are read and enforced: what its chat template says of reasoning and tools."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, replace

from corral.chat.deltas import Delta
from corral.chat.grammar import Grammar, TokenId
from corral.chat.reader import Reader, Script, Thoughts
from corral.chat.thinking import Thinking, thinking_of
from corral.chat.tool_formats import GENERIC, tool_format
from corral.chat.tool_formats.format import ToolFormat
from corral.chat.tools import Tools

ANSWERS = (
    (("<|START_RESPONSE|>", "<|END_RESPONSE|>"), "<|START_RESPONSE|>"),  # Command R7B, Command A
    (("<|START_TEXT|>", "<|END_TEXT|>"), "<|START_TEXT|>"),  # Cohere's mixtures of experts
    (("<response>", "</response>"), "<response></response>"),  # Granite 3.3
)
"""Markers that some models put around the answer, after the reasoning, and what a template with them has."""

NO_TOOLS = Tools((), (), required=False, parallel=False)

_LETTERS = string.ascii_letters + string.digits


def new_call_id() -> str:
    """Nine letters and digits: what the strictest templates take."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


@dataclass(frozen=True)
class ReplyFormat:
    """The syntax of replies. `thinking` is None for a model that does not mark reasoning in this way."""

    tools: ToolFormat = GENERIC
    thinking: Thinking | None = None
    answer: tuple[str, str] | None = None

    @classmethod
    def of(cls, template: str, *, knows_tools: bool) -> ReplyFormat:
        """Of a chat template's text. `knows_tools`: it shows them to the model, in its own syntax."""
        found = tool_format(template)
        if not knows_tools and not found.framed:
            found = GENERIC
        answer = next((markers for markers, found_by in ANSWERS if found_by in template), None)
        return cls(found, None if found.reasoning_end else thinking_of(template), answer)

    def markers(self, *, tools: bool) -> tuple[str, ...]:
        """What the parser has to see, even where it is a control token; `tools`: there are any to call."""
        thinking = (self.thinking.start, self.thinking.end) if self.thinking else ()
        calls = self.tools.markers if tools or self.tools.framed else ()
        return (*calls, *thinking, *(self.answer or ()))

    def opened_by(self, prompt: str) -> bool:
        """Whether a prompt leaves the reasoning open."""
        return self.thinking is not None and self.thinking.opened_by(prompt)

    def closed_by(self, prompt: str) -> bool:
        """Whether a prompt says that there is no reasoning, or no more."""
        return self.thinking is not None and self.thinking.closed_by(prompt)

    def parser(
        self,
        tools: Tools | None,
        *,
        opened: bool,
        answering: bool = False,
        thoughts: Thoughts = "apart",
        new_id: Callable[[], str] = new_call_id,
    ) -> ScriptParser:
        """Reads one reply; `opened` and `answering` are as of its `Prompt`."""
        reader = Reader(new_id, thoughts)
        parser = ScriptParser(reader, self._script(reader, tools, opened))
        if answering:
            parser.feed(self.tools.answer_start)
        return parser

    def _script(self, r: Reader, tools: Tools | None, opened: bool) -> Script[None]:
        if self.thinking:
            yield from self.thinking.script(r, opened=opened)
        if self.answer and (yield from r.after_spaces(self.answer[0])):
            r.tell()
            r.border()
            if (yield from r.until([self.answer[1]], r.content)):
                r.tell()
                r.border()
        if tools or self.tools.framed:
            yield from self.tools.script(r, tools)
        yield from r.rest(r.content)

    def reasoning_end(self, tools: Tools | None) -> str:
        """What ends the reasoning, before an answer or a call; empty for a model that does not reason."""
        if self.thinking:
            return f"\n{self.thinking.end}\n\n"
        return self.tools.reasoning_end_before_calls if tools else self.tools.reasoning_end

    def grammar(
        self,
        tools: Tools | None,
        token: TokenId,
        *,
        schema: str | None = None,
        opened: bool,
        thinks: bool = True,
    ) -> str:
        """A grammar in llguidance's Lark for replies that call tools as `tools` says.

        `schema`: an answer is JSON of this schema. `thinks`: the reply may begin with reasoning.
        """
        g = Grammar(tools or NO_TOOLS, token, thinks=thinks, atoms=self.tools.markers)
        if self.thinking and thinks:
            g.thinking(self.thinking.start, self.thinking.end, opened=opened)
        if self.answer:
            g.answer = self.answer
        if schema is None:
            return g.lark(self.tools.grammar(g))
        answer = self.tools.answer(g, g.strict_json(schema))
        if not tools:
            return g.lark(answer)
        g.tools = replace(tools, required=True)
        return g.lark(f"({answer} | {self.tools.grammar(g)})")


class ScriptParser:
    """A ReplyParser that is a script."""

    @property
    def reasons(self) -> bool:
        """Whether what comes next is reasoning, as far as it is known."""
        return self._reader.reasons

    def __init__(self, reader: Reader, script: Script[None]) -> None:
        self._reader, self._script = reader, script
        self._running = True

    def feed(self, text: str) -> list[Delta]:
        self._reader.add(text)
        self._run()
        return self._take()

    def finish(self) -> list[Delta]:
        self._reader.end()
        self._run()
        self._reader.give_up()
        self._reader.flush()
        return self._take()

    def _run(self) -> None:
        if self._running and next(self._script, self) is self:
            self._running = False

    def _take(self) -> list[Delta]:
        deltas, self._reader.deltas = self._reader.deltas, []
        return deltas
