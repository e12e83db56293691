"""What a call syntax is: how it is recognised in a template, read from a reply, and enforced."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence

from corral.chat.grammar import Grammar
from corral.chat.reader import Reader, Script
from corral.chat.tools import Tools


class ToolFormat(ABC):
    """One call syntax. Stateless."""

    name: str
    found_by: tuple[tuple[str, ...], ...] = ()
    """A template that has all the texts of one of these tuples uses this syntax."""
    markers: tuple[str, ...] = ()
    """What may be control tokens: their text must be generated for the parser to see it."""
    answer_start: str = ""
    """What an answer begins with, where a plain text is none."""
    framed: bool = False
    """Answers have markers too: a reply is read with `script` also where there are no tools."""
    reasoning_start: str = ""
    reasoning_end: str = ""
    reasoning_end_before_calls: str = ""
    """The syntax marks reasoning in its own way, which `script` and `grammar` know: with this it ends."""

    def used_by(self, template: str) -> bool:
        return any(all(text in template for text in texts) for texts in self.found_by)

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Calls (name, arguments as JSON) as a model writes them, for templates that show text only."""
        texts = [f'{{"name": {json.dumps(name)}, "arguments": {arguments}}}' for name, arguments in calls]
        return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"

    def answer(self, g: Grammar, text: str) -> str:
        """The expression for an answer of this text, without calls."""
        return text

    @abstractmethod
    def script(self, r: Reader, tools: Tools | None) -> Script[None]:
        """Reads what follows the reasoning, to the end."""

    @abstractmethod
    def grammar(self, g: Grammar) -> str:
        """The expression for what follows the reasoning."""


class MarkedCalls(ToolFormat):
    """Text in which each call, or each group of calls, begins with an opening marker."""

    opening: str
    repeat: bool = True
    """Parallel calls have an opening each."""

    def script(self, r: Reader, tools: Tools | None) -> Script[None]:
        while (yield from r.until([self.opening], r.content)):
            if not (yield from self.block(r, tools)):
                r.give_up()

    def grammar(self, g: Grammar) -> str:
        return g.calls(self.opening, self.body(g), repeat=self.repeat)

    @abstractmethod
    def block(self, r: Reader, tools: Tools | None) -> Script[bool]:
        """Reads what follows the opening. False: no call, what was read and not told is content."""

    @abstractmethod
    def body(self, g: Grammar) -> str:
        """The expression for what follows the opening."""
