"""Reads a reply that arrives in pieces with code that looks as if all of it were there.

A *script* is a generator. Where it needs text that has not been generated yet it yields, deep inside one of
the methods of its Reader, and goes on there when the text has come. So a format is a few lines, read from top
to bottom, and how the text was cut makes no difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from typing import Literal, TypeVar

from corral.chat.deltas import Content, Delta, Reasoning, ToolArguments, ToolCall
from corral.chat.json_scanner import JsonScanner

MAX_SYNTAX = 100
"""Characters between two parts of a call that mean something, the name of a parameter with them."""

T = TypeVar("T")
Script = Generator[None, None, T]
Thoughts = Literal["apart", "inside", "both"]
"""Where reasoning goes: into deltas of its own, into the content with its markers, or into both."""
Give = Callable[[str], None]


class Reader:
    """The text of a reply and the deltas made of it.

        [0, told) is accounted for      [told, position) has been read, and a script tries to understand it

    `unread` gives the latter back as content. White space next to a marker belongs to the marker: it is not
    content. `new_id` makes the ids of calls.
    """

    def __init__(self, new_id: Callable[[], str], thoughts: Thoughts = "apart") -> None:
        self.deltas: list[Delta] = []
        self.thoughts = thoughts
        self.calls = 0
        self._in_call = False
        self.reasons = False
        """Whether what comes next is reasoning, as far as it is known."""
        self._new_id = new_id
        self._ids: set[str] = set()
        self._text, self._at, self._told = "", 0, 0
        self._ended = False
        self._kind: type[Content] | type[Reasoning] = Content  # of what was said last
        self._space = ""  # white space at its end, held back
        self._strip = False  # white space that comes next belongs to a marker

    # For the one who feeds it.

    def add(self, text: str) -> None:
        # what is accounted for is not needed any more
        self._text, self._at, self._told = self._text[self._told :] + text, self._at - self._told, 0

    def end(self) -> None:
        self._ended = True

    # What a script says.

    def content(self, text: str) -> None:
        self._say(Content, text)

    def reasoning(self, text: str) -> None:
        if self.thoughts != "inside":
            self._say(Reasoning, text)
        if self.thoughts != "apart":
            self._verbatim(text)

    def marker(self, text: str) -> None:
        """The beginning or the end of reasoning has been read."""
        if self.thoughts != "apart":
            self._verbatim(text)
            self._space, self._kind = "", Content
        else:
            self.tell()
            self.border()

    def call(self, name: str, id: str | None = None) -> None:
        """A call begins; its arguments follow with `arguments`. `id`: the text's, which models repeat."""
        if not id or id in self._ids:
            id = self._new_id()
        self._ids.add(id)
        self.border()
        self.deltas.append(ToolCall(self.calls, id, name))
        self.calls += 1
        self.tell()
        self._in_call = True

    def arguments(self, text: str) -> None:
        """More of the last call's arguments."""
        if text:
            self.deltas.append(ToolArguments(self.calls - 1, text))
        self.tell()

    def tell(self) -> None:
        """All that has been read is accounted for."""
        self._told = self._at

    def done(self) -> None:
        """The last call is complete."""
        self.tell()
        self._in_call = False

    def give_up(self) -> None:
        """The script can't go on. Of a call cut short by the end of the reply, only syntax is untold."""
        if self._in_call and self.ended and self._at - self._told <= MAX_SYNTAX:
            self.tell()
        else:
            self.unread()

    def unread(self) -> None:
        """What has been read and not told is content after all."""
        self._in_call = False
        text, self._told = self._text[self._told : self._at], self._at
        self.content(text)

    def border(self) -> None:
        """Something else than text follows, or text of another kind: white space before and after it goes."""
        self._space, self._strip = "", True

    def flush(self) -> None:
        """The reply is over: its last white space is part of it."""
        if self._space:
            self.deltas.append(self._kind(self._space))
        self._space = ""

    def _verbatim(self, text: str) -> None:
        """Content with all its white space."""
        self.tell()
        if self._kind is Content:
            text, self._space = self._space + text, ""
        self.deltas.append(Content(text))

    def _say(self, kind: type[Content] | type[Reasoning], text: str) -> None:
        self.tell()
        if kind is not self._kind:
            self.border()
            self._kind = kind
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        text = self._space + text
        shown = text.rstrip()
        self._space = text[len(shown) :]
        if shown:
            self.deltas.append(kind(shown))

    # What a script asks.

    @property
    def ended(self) -> bool:
        """All there is has been read, and nothing will follow."""
        return self._ended and self._at == len(self._text)

    def more(self) -> Script[bool]:
        """Waits for more text. False: there won't be any."""
        if self._ended:
            return False
        yield
        return True

    def until(
        self, markers: Sequence[str], give: Give, *, keep: Sequence[str] = (), drop_partial: bool = False
    ) -> Script[str | None]:
        """Gives the text before the first of the markers, and goes behind it, but for those in `keep`.

        None: none of them came, and all the text is given; with `drop_partial` the beginning of a marker at
        its end is not.
        """
        while True:
            found = [
                (place, marker) for marker in markers if (place := self._text.find(marker, self._at)) >= 0
            ]
            if found:
                place, marker = min(found)
                self._give_to(place, give)
                self._at += 0 if marker in keep else len(marker)
                return marker
            self._give_to(len(self._text) - self._held_back(markers), give)
            if not (yield from self.more()):
                if not drop_partial:
                    self._give_to(len(self._text), give)
                self._at = len(self._text)
                return None

    def _give_to(self, end: int, give: Give) -> None:
        text, self._at = self._text[self._at : end], end
        if text:
            give(text)

    def _held_back(self, markers: Sequence[str]) -> int:
        """Length of the longest end of the text that a marker begins with."""
        longest = min(len(self._text) - self._at, max(map(len, markers)) - 1)
        end = self._text[len(self._text) - longest :]
        starts = [i for marker in markers if (i := end.find(marker[0])) >= 0]
        for i in range(min(starts, default=longest), longest):
            if any(marker.startswith(end[i:]) for marker in markers):
                return longest - i
        return 0

    def rest(self, give: Give) -> Script[None]:
        """Gives all that follows, to the end of the reply."""
        while True:
            self._give_to(len(self._text), give)
            if not (yield from self.more()):
                return

    def accept(self, *options: str) -> Script[str | None]:
        """The longest of the options that is next, and goes behind it; None: none is.

        Then nothing is read, unless the reply ends in the middle of one.
        """
        while True:
            rest = self._text[self._at : self._at + max(map(len, options))]
            matching = [o for o in options if rest.startswith(o)]
            undecided = any(len(o) > len(rest) and o.startswith(rest) for o in options)
            if not undecided or not (yield from self.more()):
                if not matching:
                    self._at = len(self._text) if undecided else self._at
                    return None
                best = max(matching, key=len)
                self._at += len(best)
                return best

    def spaces(self) -> Script[None]:
        """Goes to the next character that is not white space."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text) or not (yield from self.more()):
                return

    def after_spaces(self, *options: str) -> Script[str | None]:
        """`accept` behind any white space; when none is next the white space is not read either."""
        untold = self._at - self._told
        yield from self.spaces()
        found = yield from self.accept(*options)
        if found is None and not self.ended:
            self._at = self._told + untold
        return found

    def next_is(self, *starts: str) -> Script[bool]:
        """Whether one of these characters is next, behind any white space. Reads nothing."""
        untold = self._at - self._told
        yield from self.spaces()
        found = self._text.startswith(starts, self._at)
        self._at = self._told + untold
        return found

    def close(self, *options: str) -> Script[bool]:
        """Goes behind white space and one of the options, or what there is of one at the end of the reply.

        They mean nothing more: all is accounted for, the last call is complete.
        """
        found = yield from self.after_spaces(*options)
        self.done()
        return found is not None

    def json(self, give: Give) -> Script[bool]:
        """Gives a JSON value as it comes. False: it is broken or cut short, its beginning is given."""
        scanner = JsonScanner()
        while True:
            self._give_to(scanner.take(self._text, self._at), give)
            if scanner.complete or scanner.broken:
                return scanner.complete
            if not (yield from self.more()):
                return scanner.end()

    def json_value(self) -> Script[str | None]:
        """A whole JSON value as text, or None."""
        parts: list[str] = []
        return "".join(parts) if (yield from self.json(parts.append)) else None

    def string(self) -> Script[str | None]:
        """A JSON string, decoded, or None."""
        return decode_string((yield from self.json_value()))


def decode_string(text: str | None) -> str | None:
    """The string that a JSON text stands for; None if it is something else, or not Unicode."""
    if text is None or not text.startswith('"'):
        return None
    value: str = json.loads(text)
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return value
