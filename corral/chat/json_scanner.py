"""Follows one JSON value that arrives in pieces, to know where it ends and that it is one so far."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?\Z", re.ASCII)
_SPACES = " \t\n\r"
_BARE = frozenset("+-.0123456789abcdefghijklmnopqrstuvwxyzE")
"""Characters of numbers and of true, false and null."""


class JsonScanner:
    """Strict: what `take` has accepted is the beginning of a JSON value (RFC 8259).

    `complete`: the value is whole. A number may still go on, so it is complete only once something else
    follows, or with `end`.
    """

    def __init__(self) -> None:
        self.complete = False
        self.broken = False
        self._stack: list[str] = []  # the closing brackets that are due
        self._next = "value"  # value, value or ], key, key or }, colon, comma
        self._string = ""  # inside a string: "key" or "value"
        self._escape = 0  # characters of an escape sequence still to come
        self._unicode = False
        self._bare = ""  # a number or a word, so far

    def take(self, text: str, start: int = 0) -> int:
        """The end of what belongs to the value in `text[start:]`. Stops when complete or broken."""
        i = start
        while i < len(text) and not self.complete and not self.broken and self._step(text[i]):
            i += 1
        return i

    def end(self) -> bool:
        """No more text comes: whether the value is whole."""
        if self._bare and not self._stack:
            self._finish_bare()
        return self.complete

    def _step(self, c: str) -> bool:
        """Whether `c` belongs to the value."""
        if self._string:
            return self._in_string(c)
        if self._bare:
            if c in _BARE:
                self._bare += c
                return True
            self._finish_bare()
            if self.complete or self.broken:
                return False
        if c in _SPACES:
            return bool(self._stack) or self._fail()
        match self._next:
            case "value" | "value or ]" if c in '"{[' or c in _BARE:
                return self._begin(c)
            case "key" | "key or }" if c == '"':
                self._string = "key"
                return True
            case "colon" if c == ":":
                self._next = "value"
                return True
            case "comma" if c == ",":
                self._next = "key" if self._stack[-1] == "}" else "value"
                return True
            case "comma" | "key or }" | "value or ]" if c == self._stack[-1]:
                self._stack.pop()
                self._finish()
                return True
        return self._fail()

    def _begin(self, c: str) -> bool:
        if c == '"':
            self._string = "value"
        elif c == "{":
            self._stack.append("}")
            self._next = "key or }"
        elif c == "[":
            self._stack.append("]")
            self._next = "value or ]"
        else:
            self._bare = c
        return True

    def _in_string(self, c: str) -> bool:
        if self._unicode:
            if c not in "0123456789abcdefABCDEF":
                return self._fail()
            self._escape -= 1
            self._unicode = self._escape > 0
        elif self._escape:
            if c not in '"\\/bfnrtu':
                return self._fail()
            self._unicode, self._escape = c == "u", 4 if c == "u" else 0
        elif c == "\\":
            self._escape = 1
        elif c == '"':
            kind, self._string = self._string, ""
            if kind == "key":
                self._next = "colon"
            else:
                self._finish()
        elif c < " ":
            return self._fail()
        return True

    def _finish_bare(self) -> None:
        if self._bare in ("true", "false", "null") or _NUMBER.match(self._bare):
            self._bare = ""
            self._finish()
        else:
            self._fail()

    def _finish(self) -> None:
        """A value has ended."""
        self._next = "comma"
        self.complete = not self._stack

    def _fail(self) -> bool:
        self.broken = True
        return False
