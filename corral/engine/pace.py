"""How long a step will take, learned from those that were."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class Work(NamedTuple):
    """What a step computes: so many new tokens, and for each the tokens that its attention reads, summed."""

    tokens: int = 0
    reads: int = 0

    @staticmethod
    def of(start: int, count: int) -> Work:
        """Tokens [start, start + count) of a sequence: each reads all up to itself."""
        return Work(count, count * start + count * (count + 1) // 2)

    def plus(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.reads + other.reads)


LEARNING = 0.5
"""How much of a step's error is corrected at once, in the logarithm."""
MOST_RATIO = 8.0
"""A step that took more times what was expected was interrupted by something else; the same downwards."""


@dataclass(slots=True)
class Pace:
    """seconds = step + token * tokens + read * reads.

    Each coefficient is multiplied by the power of the ratio of measured to expected time that its share of
    the expected time says (exponentiated gradient, Kivinen and Warmuth 1997). So they stay positive, and
    what a step did not contain is not changed by it. The first values are of a slow machine: the first
    chunk beside running streams is too short rather than too long.
    """

    step: float = 0.02
    token: float = 0.02
    read: float = 2e-6

    def seconds(self, work: Work) -> float:
        return self.step + self.token * work.tokens + self.read * work.reads

    def learn(self, work: Work, seconds: float) -> None:
        """A step with this work took so long."""
        if seconds <= 0:  # the clock is coarse or stands still
            return
        expected = self.seconds(work)
        ratio = min(max(seconds / expected, 1 / MOST_RATIO), MOST_RATIO)
        rate = LEARNING * math.log(ratio) / expected
        self.step *= math.exp(rate * self.step)
        self.token *= math.exp(rate * self.token * work.tokens)
        self.read *= math.exp(rate * self.read * work.reads)

    def tokens_within(self, seconds: float, start: int) -> int:
        """The most tokens from `start` on that take no longer, the fixed cost of the step aside."""
        if seconds <= 0:
            return 0
        # read / 2 * n^2 + (token + read * (start + 1/2)) * n = seconds
        linear = self.token + self.read * (start + 0.5)
        return int(2 * seconds / (linear + math.sqrt(linear * linear + 2 * self.read * seconds)))
