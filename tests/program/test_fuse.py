"""Rewrites of a Program, and buffers that share memory, change no bit of a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("corral._native", reason="the extension is not built")

from batches import logits_of
from ops import Array, Model, assert_same_bits

from corral.gguf.types import GGMLType
from corral.program import native, program
from corral.program.buffer_slots import Lifetime, lifetimes, share
from corral.program.fuse import fuse
from corral.program.trace import Tensor, attention, glu, linear, rms_norm

pytestmark = pytest.mark.native

WIDTHS = [48, 320, 16, 64, 176, 32]
TOKENS = 200
KINDS = [GGMLType.Q8_0, GGMLType.F16, GGMLType.Q4_1]


def layers(folder: Path) -> Model:
    """Two layers of everything: linears of several formats that share an input, attention, a gated pair."""
    rng = np.random.default_rng(0)
    shapes = {"q": (64, 64), "k": (32, 64), "v": (32, 64), "gate": (96, 64), "up": (96, 64), "down": (64, 96)}
    tensors: dict[str, tuple[Array, GGMLType] | Array] = {
        f"{name}{i}": (rng.standard_normal(shape) / 8, KINDS[(i + place) % 3])
        for i in range(2)
        for place, (name, shape) in enumerate(shapes.items())
    }
    tensors |= {"x": rng.standard_normal((TOKENS, 64)), "norm": rng.standard_normal(64)}

    def make(m: Model) -> Tensor:
        x = m.input()
        for i in range(2):

            def apply(name: str, x: Tensor, i: int = i) -> Tensor:
                return linear(x, m.weight(f"{name}{i}"))

            h = rms_norm(x, m.weight("norm"), 1e-5)
            x = x + attention(apply("q", h), apply("k", h), apply("v", h), 32)
            h = rms_norm(x, m.weight("norm"), 1e-5)
            x = x + apply("down", glu(apply("gate", h), apply("up", h), "silu"))
        return x

    return Model(folder, tensors, make)


Change = Callable[[pytest.MonkeyPatch], None]


def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "fuse", lambda program: program)


def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer has a slot of its own."""

    def apart(widths: Mapping[object, int], lives: Mapping[object, Lifetime]) -> dict[object, int]:
        return {key: slot for slot, key in enumerate(widths)}

    monkeypatch.setattr(native, "share", apart)


def test_linears_of_one_input_become_one(tmp_path: Path) -> None:
    model = layers(tmp_path)
    ops = fuse(model.program).ops
    assert [len(op.outs) for op in ops if isinstance(op, program.Linear)] == [3, 2, 1] * 2
    assert len(ops) == len(model.program.ops) - 6
    assert {b for op in ops for b in op.writes} == {b for op in model.program.ops for b in op.writes}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("change", [unfused, unshared])
def test_same_bits_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, threads: int
) -> None:
    model = layers(tmp_path)
    usual = model.native(threads=threads)
    wanted = logits_of(usual, range(TOKENS))
    change(monkeypatch)
    other = model.native(threads=threads)
    assert len(other.program.ops) > len(usual.program.ops) or other.buffer_bytes > usual.buffer_bytes
    assert_same_bits(logits_of(other, range(TOKENS)), wanted)


def slots_of(made: program.Program) -> dict[int, int]:
    """As if all buffers were of one kind of rows."""
    return share({b: buffer.cols for b, buffer in enumerate(made.buffers)}, lifetimes(made))


def test_buffers_share_memory(tmp_path: Path) -> None:
    made = layers(tmp_path).program
    assert len(set(slots_of(made).values())) < len(made.buffers) / 2


def chains(folder: Path) -> Model:
    """One run of row ops, with a chain of short-lived buffers of each width; then all is added up."""
    rng = np.random.default_rng(1)
    tensors: dict[str, tuple[Array, GGMLType] | Array] = {}
    for width in WIDTHS:
        tensors[f"x{width}"] = rng.standard_normal((TOKENS, width))
        tensors[f"norm{width}"] = rng.standard_normal(width)
        tensors[f"w{width}"] = rng.standard_normal((64, width)) / 8

    def make(m: Model) -> Tensor:
        ends = []
        for width in WIDTHS:
            x = m.input(f"x{width}")
            for factor in (0.5, -1.5, 2.0):
                x = glu(rms_norm(x * factor, m.weight(f"norm{width}"), 1e-5), x, "silu")
            ends.append(x)
        total, *others = [linear(x, m.weight(f"w{width}")) for x, width in zip(ends, WIDTHS, strict=True)]
        for other in others:
            total = total + other
        return total

    return Model(folder, tensors, make)


def test_row_ops_of_different_widths_keep_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are at different rows of such a run: a buffer must not lie where rows are still wanted."""
    model = chains(tmp_path)
    wanted = logits_of(model.native(), range(TOKENS))
    for count in (1, 2, 33, TOKENS):
        assert_same_bits(logits_of(model.native(), range(count)), wanted[:count])
    team = model.native(threads=4)
    for _ in range(10):
        assert_same_bits(logits_of(team, range(TOKENS)), wanted)
    unshared(monkeypatch)
    assert_same_bits(logits_of(model.native(), range(TOKENS)), wanted)


def test_no_slot_is_taken_again_within_a_run_of_row_ops(tmp_path: Path) -> None:
    """The rule itself, whatever the timing of threads: between two meetings no slot is taken twice."""
    for model in (chains(tmp_path), layers(tmp_path)):
        fused = fuse(model.program)
        slots = slots_of(fused)
        last = fused.last_reads()
        held: dict[int, int] = {}  # slot -> the op after which it may be taken, when threads have met
        for i, op in enumerate(fused.ops):
            if isinstance(op, program.Linear | program.Attention):
                held = {slot: end for slot, end in held.items() if end >= i}  # threads meet before this op
            for b in op.writes:
                assert slots[b] not in held, f"{op} takes slot {slots[b]} again"
                held[slots[b]] = last[b]
