"""The text of a request: token pieces to whole characters, up to a stop string."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from corral.engine.indent import LeastIndent
from corral.tokenizer.stream import Utf8Stream


@dataclass(frozen=True)
class TextTables:
    """What the engine knows of the vocabulary."""

    text: list[bytes]
    """[V] bytes of each token; of control tokens none."""
    special: list[bytes]
    """[V] the same, with the text of control tokens."""
    eog: frozenset[int]
    """Tokens that end the generation."""

    @cached_property
    def control(self) -> list[int]:
        """Tokens that are no text."""
        return [id for id, text in enumerate(self.text) if not text and self.special[id]]


class StopString:
    """Finds one string in a stream of characters (Knuth, Morris, Pratt 1977), one pass without looking back.

    `matched` is the length of the longest start of the string that the stream ends with.
    """

    def __init__(self, word: str) -> None:
        self.word = word
        self.matched = 0
        # [i]: length of the longest proper start of word[: i + 1] that is also its end
        self._border = [0] * len(word)
        length = 0
        for i in range(1, len(word)):
            while length and word[i] != word[length]:
                length = self._border[length - 1]
            length += word[i] == word[length]
            self._border[i] = length

    def feed(self, character: str) -> bool:
        """Whether the string is complete with this character."""
        while self.matched and character != self.word[self.matched]:
            self.matched = self._border[self.matched - 1]
        self.matched += character == self.word[self.matched]
        return self.matched == len(self.word)


class TextStream:
    """Turns tokens to text that may be shown: whole characters, nothing that may yet become a stop string.

    The first stop string to be complete ends the text; of two complete at once, the longer. So does a line
    that is indented by less than `least_indent`.
    """

    def __init__(
        self, tables: TextTables, stop: Iterable[str] = (), special: bool = False, least_indent: int = 0
    ) -> None:
        self._pieces = tables.special if special else tables.text
        self._utf8 = Utf8Stream()
        self._stops = sorted(
            (StopString(word) for word in set(stop) if word), key=lambda s: (-len(s.word), s.word)
        )
        self._held = ""
        self._indent = LeastIndent(least_indent)
        self.stopping_word = ""
        """The stop string that was found; what is fed afterwards gives no text."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token as this request sees them."""
        return self._pieces[token]

    @property
    def has_short_line(self) -> bool:
        """Whether the text ended before a line that is not indented enough."""
        return self._indent.is_short

    def feed(self, token: int) -> str:
        """Add a token; returns the text that is safe to show now."""
        return self._indent.feed(self._advance(self._utf8.feed(self.piece(token))))

    def finish(self) -> str:
        """The text held back, when the sequence ended without a stop string.

        A character that was cut off is left out: half of one is no text, and U+FFFD is none that was meant.
        """
        text, self._held = "" if self.stopping_word else self._held, ""
        return self._indent.feed(text) + self._indent.finish()

    def _advance(self, text: str) -> str:
        if self.stopping_word or not self._stops:
            return "" if self.stopping_word else text
        for i, character in enumerate(text):
            complete = [stop for stop in self._stops if stop.feed(character)]
            if complete:
                self.stopping_word = complete[0].word
                shown = (self._held + text[: i + 1])[: -len(self.stopping_word)]
                self._held = ""
                return shown
        self._held += text
        shown_length = len(self._held) - max(stop.matched for stop in self._stops)
        shown, self._held = self._held[:shown_length], self._held[shown_length:]
        return shown
