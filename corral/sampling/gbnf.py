"""llama.cpp's grammars: from the text to rules.

    root ::= item+              a rule: letters, digits, `-`, `_`; the text is a `root`
    item ::= "- " [^\\n]* "\\n"   texts and sets of characters, one behind the other; `.` is any character
    x    ::= a | (b c)? | d{2,3} | e*       choices, groups, repeats
    # a comment                  a choice may go on in the next line behind `|` or inside of ( )

Escapes: \\n \\r \\t \\\\ \\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

LAST = 0x10FFFF
MOST_TIMES = 1_000_000
"""In a repeat."""

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_BLANKS = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_TIMES = re.compile(r"\{\s*(\d{0,9})\s*(?:(,)\s*(\d{0,9})\s*)?\}")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_HEX = {"x": 2, "u": 4, "U": 8}


class GrammarError(ValueError):
    """Says the line and the column."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class OneOf:
    """A character of these ranges, first and last; `negated`, any other."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True)
class Rule:
    name: str


@dataclass(frozen=True)
class Sequence:
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    node: Node
    least: int
    most: int | None


Node = Text | OneOf | Rule | Sequence | Choice | Repeat


def parse(text: str) -> dict[str, Node]:
    """The rules by name; each that is used is there, and `root`. Raises GrammarError, RecursionError."""
    return _Parser(text).rules()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self._used: dict[str, int] = {}  # and where for the first time

    def rules(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        self._skip(_SPACE)
        while self.at < len(self.text):
            name = self._name("the name of a rule")
            self._skip(_BLANKS)
            self._expect("::=", f"'::=' behind the name {name!r}")
            self._skip(_SPACE)
            found[name] = self._choice(nested=False)
            if self._next not in ("", "\r", "\n"):
                self._fail("a text, a set of characters, a rule's name, '(' or the end of the line")
            self._skip(_SPACE)
        for name, at in self._used.items():
            if name not in found:
                self._fail(at=at, problem=f"there is no rule {name!r}")
        if "root" not in found:
            raise GrammarError("there is no rule 'root', expected one for the whole text")
        return found

    def _choice(self, nested: bool) -> Node:
        nodes = [self._sequence(nested)]
        while self._next == "|":
            self.at += 1
            self._skip(_SPACE)
            nodes.append(self._sequence(nested))
        return nodes[0] if len(nodes) == 1 else Choice(tuple(nodes))

    def _sequence(self, nested: bool) -> Node:
        nodes: list[Node] = []
        while (node := self._item()) is not None:
            self._skip(_SPACE if nested else _BLANKS)
            while times := self._times():
                node = Repeat(node, *times)
                self._skip(_SPACE if nested else _BLANKS)
            nodes.append(node)
        return nodes[0] if len(nodes) == 1 else Sequence(tuple(nodes))

    def _item(self) -> Node | None:
        start, first = self.at, self._next
        if first == '"':
            return self._literal()
        if first == "[":
            return self._one_of()
        if first == ".":
            self.at += 1
            return OneOf((), negated=True)
        if first == "(":
            self.at += 1
            self._skip(_SPACE)
            node = self._choice(nested=True)
            self._expect(")", f"')' for the '(' of {self._place(start)}")
            return node
        if first in ("<", "!"):
            self._fail(problem="tokens in a grammar are not supported, expected their text")
        if first in ("*", "+", "?", "{"):
            self._fail(f"something to repeat before {first!r}")
        if _NAME.match(self.text, self.at):
            name = self._name("a rule's name")
            self._used.setdefault(name, start)
            return Rule(name)
        return None

    def _literal(self) -> Text:
        start = self.at
        self.at += 1
        found = ""
        while self._next != '"':
            found += self._character(f"'\"' for the one of {self._place(start)}")
        self.at += 1
        return Text(found)

    def _one_of(self) -> OneOf:
        start = self.at
        closing = f"']' for the '[' of {self._place(start)}"
        self.at += 1
        negated = self._next == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        while self._next != "]":
            at = self.at
            first = last = ord(self._character(closing))
            if self._next == "-" and self.text[self.at + 1 : self.at + 2] != "]":
                self.at += 1
                last = ord(self._character(closing))
            if last < first:
                wrong = f"the range {self.text[at : self.at]!r} ends before it begins"
                self._fail(at=at, problem=wrong)
            ranges.append((first, last))
        if not ranges and not negated:
            self._fail("a character of the set")
        self.at += 1
        return OneOf(tuple(ranges), negated)

    def _character(self, closing: str) -> str:
        """The next of a text or set, which something closes."""
        character = self._next
        if not character:
            self._fail(closing)
        if character != "\\":
            self.at += 1
            return character
        kind = self.text[self.at + 1 : self.at + 2]
        if kind in _ESCAPED:
            self.at += 2
            return _ESCAPED[kind]
        digits = _HEX.get(kind, 0)
        number = self.text[self.at + 2 : self.at + 2 + digits]
        if not digits or not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", number):
            shown = self.text[self.at : self.at + 2 + digits]
            expected = r"\n, \r, \t, \\, \", \[, \], \xHH, \uHHHH or \UHHHHHHHH"
            self._fail(problem=f"{shown!r} is no escape, expected {expected}")
        code = int(number, 16)
        if code > LAST or 0xD800 <= code < 0xE000:
            self._fail(problem=f"{code:#x} is no character")
        self.at += 2 + digits
        return chr(code)

    def _times(self) -> tuple[int, int | None] | None:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if times := simple.get(self._next):
            self.at += 1
            return times
        if self._next != "{":
            return None
        found = _TIMES.match(self.text, self.at)
        if not found or not (found[1] or found[3]):
            self._fail("{m}, {m,}, {m,n} or {,n}")
        least = int(found[1] or 0)
        most = least if not found[2] else int(found[3]) if found[3] else None
        if max(least, most or 0) > MOST_TIMES or (most is not None and most < least):
            expected = f"numbers up to {MOST_TIMES}, the second not below the first"
            self._fail(problem=f"{found[0]} can't be, expected {expected}")
        self.at = found.end()
        return least, most

    def _name(self, expected: str) -> str:
        found = _NAME.match(self.text, self.at)
        if not found:
            self._fail(expected)
        self.at = found.end()
        return found[0]

    @property
    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip(self, what: re.Pattern[str]) -> None:
        found = what.match(self.text, self.at)
        assert found
        self.at = found.end()

    def _expect(self, word: str, expected: str) -> None:
        if not self.text.startswith(word, self.at):
            self._fail(expected)
        self.at += len(word)

    def _place(self, at: int) -> str:
        line = self.text.count("\n", 0, at) + 1
        return f"line {line}, column {at - self.text.rfind(chr(10), 0, at)}"

    def _fail(self, expected: str = "", *, problem: str = "", at: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        rest = self.text[at : at + 20].partition("\n")[0]
        got = repr(rest) if rest else "the end of the line" if at < len(self.text) else "the end"
        raise GrammarError(f"{self._place(at)}: {problem or f'expected {expected}, got {got}'}")
