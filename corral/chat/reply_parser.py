"""From the text of a reply, as it is generated, to the deltas that the APIs render."""

from __future__ import annotations

from typing import Protocol

from corral.chat.deltas import Content, Delta


class ReplyParser(Protocol):
    """Reads one reply. Nothing is lost: what it can't make sense of comes out as content.

    It may hold text back that could become part of a marker; `finish` gives out what is left. A delta of text
    is never empty.
    """

    def feed(self, text: str) -> list[Delta]:
        """The deltas that are certain with this text, which may be empty."""
        ...

    def finish(self) -> list[Delta]:
        """The rest, once the generation has ended, however it ended. The last call."""
        ...


class PlainParser:
    """All of the text is content."""

    def feed(self, text: str) -> list[Delta]:
        return [Content(text)] if text else []

    def finish(self) -> list[Delta]:
        return []
