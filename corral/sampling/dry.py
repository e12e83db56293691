"""Repeats in a sequence of tokens: what the DRY sampler looks for."""

from __future__ import annotations

from collections.abc import Sequence

_FIRST_LOOK = 32
_NEXT_LOOK = 8


def longest_repeats(window: Sequence[int], limit: int) -> dict[int, int]:
    """Of each token that followed an earlier occurrence of the end of `window`, the longest such end.

    No end counts as longer than `limit`. In `a b c c b c y a b c`, `c` followed `a b c` (3), `y` followed
    `b c` (2) and `b` followed `c` (1).
    """
    reverse = list(window)[::-1]
    lengths = z_function(reverse)
    longest: dict[int, int] = {}
    for place in range(1, len(reverse)):
        token, length = reverse[place - 1], min(lengths[place], limit)
        longest[token] = max(longest.get(token, 0), length)
    return longest


def z_function(items: Sequence[int]) -> list[int]:
    """[i]: how many items from i on are as those from 0 on; [0] is their number. Linear time (Main, Lorentz
    1984)."""
    n = len(items)
    lengths = [n] * n
    start = end = 0  # items[start:end] is as items[: end - start], with the largest end so far
    for i in range(1, n):
        length = min(end - i, lengths[i - start]) if i < end else 0
        while i + length < n and items[length] == items[i + length]:
            length += 1
        if i + length > end:
            start, end = i, i + length
        lengths[i] = length
    return lengths


def tokens_since_break(window: Sequence[int], pieces: Sequence[bytes], breakers: Sequence[str]) -> int:
    """How many tokens at the end of `window` come after the one in which the last breaker ends; all, if there
    is none."""
    wanted = [breaker.encode() for breaker in breakers if breaker]
    looked_at = _FIRST_LOOK
    while wanted:
        tail = window[-looked_at:]
        texts = [pieces[token] for token in tail]
        text = b"".join(texts)
        end = max(found + len(word) if (found := text.rfind(word)) >= 0 else 0 for word in wanted)
        if end > 0:
            # a breaker that begins before the tail ends earlier than one within it
            after, rest = 0, len(text)
            while rest - len(texts[-1 - after]) >= end:
                rest -= len(texts[-1 - after])
                after += 1
            return after
        if len(tail) == len(window):
            break
        looked_at *= _NEXT_LOOK
    return len(window)


def breaks_a_repeat(token: int, pieces: Sequence[bytes], breakers: Sequence[str]) -> bool:
    """Whether the token alone holds a breaker: it is never made less likely."""
    return any(breaker.encode() in pieces[token] for breaker in breakers if breaker)
