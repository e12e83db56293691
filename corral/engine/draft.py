"""Guessing tokens without a second model: what followed the last time that these tokens came (prompt lookup).

The guesses are computed in one step together with the token before them. A guess is accepted when the
sampler, which sees the same logits as without it, chooses it too: the text is the same, it only comes sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 2
"""However often the guesses were wrong, this many are tried."""


@dataclass(frozen=True)
class DraftParams:
    """Of llama.cpp's ngram-simple."""

    ngram: int = 12
    """Tokens that have to be the same before anything is guessed."""
    most: int = 48
    """Tokens guessed at once."""
    min_hits: int = 1
    """Times that they must have come before."""


class NgramDraft:
    """Guesses for one sequence.

    The length follows the luck: a guess that was right to its end lets the next be twice as long, one that
    was not, twice as long as what was right of it.
    """

    def __init__(self, params: DraftParams) -> None:
        self._params = params
        self._length = params.most
        self._seen: dict[tuple[int, ...], tuple[int, int]] = {}  # n-gram: where it ended last, how often
        self._end = params.ngram  # n-grams that end before this place are in `_seen`
        self.guessed = 0
        self.accepted = 0

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that may follow `tokens`, which only grow between two calls."""
        size = self._params.ngram
        for end in range(self._end, len(tokens)):
            gram = tuple(tokens[end - size : end])
            self._seen[gram] = (end, self._seen.get(gram, (0, 0))[1] + 1)
        self._end = max(self._end, len(tokens))
        if len(tokens) < size:
            return []
        end, hits = self._seen.get(tuple(tokens[len(tokens) - size :]), (0, 0))
        if hits < self._params.min_hits:
            return []
        return list(tokens[end : end + min(self._length, most)])

    def learn(self, guessed: int, accepted: int) -> None:
        """So many of the last guess were right."""
        self.guessed += guessed
        self.accepted += accepted
        least = min(LEAST, self._params.most)
        if accepted == guessed:
            self._length = min(max(self._length, 2 * guessed), self._params.most)
        else:
            self._length = min(max(2 * accepted, least), self._params.most)

    def forget(self) -> None:
        """Tokens were taken out of the sequence: begin anew."""
        self._seen.clear()
        self._end = self._params.ngram
