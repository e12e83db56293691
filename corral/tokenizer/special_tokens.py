"""SpecialTokens: finds the tokens that are recognised as a whole, before anything else happens to a text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

_ASCII_SPACES = " \t\n\v\f\r"


class SpecialTokens:
    """Cuts text at special tokens, the longest first: what one token takes is not there for a shorter one.

    ids: text of a token -> its id
    lstrip, rstrip: ids of tokens that swallow the white space before or after them
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        lstrip: frozenset[int] = frozenset(),
        rstrip: frozenset[int] = frozenset(),
    ) -> None:
        self._ids, self._lstrip, self._rstrip = ids, lstrip, rstrip
        if not _can_overlap(ids):
            # Then taking the longest at each place comes to the same, and one pass finds thousands of tokens.
            self._patterns = [_compile(ids)] if ids else []
        else:
            self._patterns = [_compile([text]) for text in sorted(ids, key=len, reverse=True)]

    def split(self, text: str) -> list[str | int]:
        """The ids of the special tokens in `text` and the text between them (never empty), in order."""
        parts: list[str | int] = [text] if text else []
        for pattern in self._patterns:
            parts = [
                new
                for part in parts
                for new in (self._cut(part, pattern) if isinstance(part, str) else (part,))
            ]
        return parts

    def _cut(self, text: str, pattern: re.Pattern[str]) -> Iterator[str | int]:
        # raw, token, raw, token, ..., raw
        pieces = pattern.split(text)
        ids = [None, *(self._ids[token] for token in pieces[1::2]), None]
        for raw, before, after in zip(pieces[::2], ids, ids[1:], strict=False):
            if before in self._rstrip:
                raw = raw.lstrip(_ASCII_SPACES)
            if after in self._lstrip:
                raw = raw.rstrip(_ASCII_SPACES)
            if raw:
                yield raw
            if after is not None:
                yield after


def _can_overlap(texts: Collection[str]) -> bool:
    """Whether the end of one text can be the beginning of another.

    Runs of one character among themselves don't count: however a longer run is cut, the lengths are the same.
    """
    firsts = {text[0] for text in texts}
    runs = {text for text in texts if text == text[0] * len(text)}
    others = [text for text in texts if text not in runs]
    if not {text[0] for text in runs}.isdisjoint(
        {text[0] for text in others} | {text[-1] for text in others}
    ):
        return True
    inside = [text for text in others if not firsts.isdisjoint(text[1:])]
    ends = {text[start:] for text in inside for start in range(1, len(text)) if text[start] in firsts}
    return bool(ends) and any(text[:end] in ends for text in others for end in range(1, len(text)))


def _compile(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern for the longest of `texts`, its one group. Made of a trie: thousands cost what one costs."""
    trie: dict[str, Any] = {}
    for text in texts:
        node = trie
        for char in text:
            node = node.setdefault(char, {})
        node[""] = None
    try:
        return re.compile(f"({_expression(trie)})")
    except RecursionError:  # no real vocabulary nests hundreds of prefixes
        return re.compile(f"({'|'.join(map(re.escape, sorted(texts, key=len, reverse=True)))})")


def _expression(node: dict[str, Any]) -> str:
    """What can follow in a trie, longest first."""
    branches = []
    for char, child in node.items():
        if char:
            literal = char
            while len(child) == 1 and "" not in child:
                ((char, child),) = child.items()
                literal += char
            branches.append(re.escape(literal) + _expression(child))
    if not branches:
        return ""
    expression = f"(?:{'|'.join(branches)})"
    return expression + "?" if "" in node else expression
