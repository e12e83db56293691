"""Text by the indentation of its lines, for completions of code."""

from __future__ import annotations


class LeastIndent:
    """Ends a text before the first line that begins with fewer than `least` spaces and tabs.

    The line that the text begins on is not looked at, as the prompt may have its start; nor are empty ones.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._at_start = False  # of a line: nothing but spaces has come, which are held back
        self._held = ""
        self.is_short = False
        """There was such a line; what is fed afterwards gives no text."""

    def feed(self, text: str) -> str:
        """The text that belongs to lines that are known to be indented enough."""
        if self.is_short or not self._least:
            return "" if self.is_short else text
        shown = ""
        for character in text:
            if self._at_start and character in " \t":
                self._held += character
                continue
            if self._at_start and character != "\n" and len(self._held) < self._least:
                self.is_short, self._held = True, ""
                break
            shown, self._held = shown + self._held + character, ""
            self._at_start = character == "\n"
        return shown

    def finish(self) -> str:
        """The spaces held back, when the text ended within them."""
        held, self._held = self._held, ""
        return held
