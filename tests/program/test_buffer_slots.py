"""Buffers that share memory are never wanted at the same time, and the memory is hardly more than must be."""

from __future__ import annotations

import random

import pytest

from corral.program.buffer_slots import Lifetime, share


def together(lives: dict[int, Lifetime], widths: dict[int, int]) -> int:
    """The most that is wanted at once: no way of sharing takes less."""
    starts = [life.start for life in lives.values()]
    return max(sum(widths[b] for b, life in lives.items() if life.start <= i < life.end) for i in starts)


@pytest.mark.parametrize("seed", range(30))
def test_random_lives(seed: int) -> None:
    rng = random.Random(seed)
    lives, widths = {}, {}
    for b in range(rng.randrange(1, 120)):
        start = rng.randrange(60)
        lives[b] = Lifetime(start, start + rng.randrange(1, 9))
        widths[b] = rng.choice([64, 256, 576, 2048])
    slots = share(widths, lives)
    assert slots.keys() == widths.keys()
    assert set(slots.values()) == set(range(max(slots.values()) + 1))
    for a in slots:
        for b in range(a):
            if slots[a] == slots[b]:
                assert lives[a].end <= lives[b].start or lives[b].end <= lives[a].start, (a, b)
    taken = sum(max(widths[b] for b in slots if slots[b] == slot) for slot in set(slots.values()))
    assert together(lives, widths) <= taken <= 1.5 * together(lives, widths)


def test_a_narrow_buffer_does_not_keep_a_wide_slot() -> None:
    """First come, first served, it would: and there would be three wide ones, where two are enough."""
    lives = dict(enumerate([Lifetime(0, 1), Lifetime(0, 1), Lifetime(1, 9), Lifetime(3, 4), Lifetime(3, 4)]))
    slots = share({b: 64 if b == 2 else 8192 for b in lives}, lives)
    assert {slots[0], slots[1]} == {slots[3], slots[4]} == {0, 1}
    assert slots[2] == 2


def test_nothing_to_share() -> None:
    assert share({}, {}) == {}
