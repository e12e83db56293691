"""A prompt that comes before its answer, and how likely its tokens are."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from corral.engine.messages import TokenInfo
from corral.server.reply import logprob

COLUMNS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
"""OpenAI's older form of `logprobs`: lists with an item for each token."""


class Echo:
    """Of one choice. The text, and each token, is taken once: a stream sends them as they become known."""

    def __init__(self, text: str, first: bytes | None = None) -> None:
        """`first`: the first token's text, where probabilities are wanted; nothing says how likely it is."""
        self.length = len(text)
        self._text, self._first = text, first
        self._decoder, self._offset = codecs.getincrementaldecoder("utf-8")("ignore"), 0

    def take_text(self) -> str:
        text, self._text = self._text, ""
        return text

    def take_columns(self, infos: Sequence[TokenInfo]) -> dict[str, list[Any]]:
        """The columns of the tokens that `infos` are about, before them the first one."""
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        if self._first is not None:
            self._add(columns, self._first, None, None)
            self._first = None
        for info in infos:
            self._add(columns, info.piece, logprob(info), likeliest(info))
        return columns

    def _add(self, columns: dict[str, list[Any]], piece: bytes, *probs: Any) -> None:
        row = (piece.decode("utf-8", "replace"), *probs, self._offset)
        for name, value in zip(COLUMNS, row, strict=True):
            columns[name].append(value)
        self._offset += len(self._decoder.decode(piece))


def columns_of(infos: Iterable[TokenInfo], offset: int) -> dict[str, list[Any]]:
    """The same of generated tokens; `offset` is the length of the text before."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for info in infos:
        token = info.piece.decode("utf-8", "replace")
        for name, value in zip(COLUMNS, (token, logprob(info), likeliest(info), offset), strict=True):
            columns[name].append(value)
        offset += len(token)
    return columns


def likeliest(info: TokenInfo) -> dict[str, float]:
    """The alternatives by text. Of several with the same, as halves of characters have, the likeliest."""
    found: dict[str, float] = {}
    for top in info.top:
        found.setdefault(top.piece.decode("utf-8", "replace"), logprob(top))
    return found
