"""Which buffers of a Program share memory: those that are never wanted at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from corral.program.program import Attention, Linear, Program

Key = TypeVar("Key")


class Lifetime(NamedTuple):
    """From the op that writes a buffer up to the one before which its memory is free: indices of ops."""

    start: int
    end: int


def lifetimes(program: Program) -> dict[int, Lifetime]:
    """Of each buffer.

    Threads are at different rows of a run of row ops, and buffers of different widths have their rows at
    different places: what was read for the last time there is free only when the threads meet, at a linear or
    an attention.
    """
    last = program.last_reads()
    ends = [0] * (
        len(program.ops) + 1
    )  # of a buffer whose last reader is that op; the logits' is past the end
    ends[-1] = meeting = len(program.ops) + 1
    for i in reversed(range(len(program.ops))):
        ends[i] = meeting
        if isinstance(program.ops[i], Linear | Attention):
            meeting = i
    return {b: Lifetime(i, ends[last[b]]) for i, op in enumerate(program.ops) for b in op.writes}


def share(widths: Mapping[Key, int], lives: Mapping[Key, Lifetime]) -> dict[Key, int]:
    """A slot for each: the widest first, each where it fills best of the slots that are free all its life.

    So no slot is wider than the first buffer in it. ("Greedy by size", arXiv:2001.03288.)
    """
    slots: list[list[Lifetime]] = []
    found: dict[Key, int] = {}
    for key in sorted(widths, key=lambda key: (-widths[key], lives[key])):
        life = lives[key]
        for slot in reversed(range(len(slots))):  # the narrowest, as the widest came first
            if all(other.end <= life.start or life.end <= other.start for other in slots[slot]):
                break
        else:
            slot = len(slots)
            slots.append([])
        slots[slot].append(life)
        found[key] = slot
    return found
