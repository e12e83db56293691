"""Ops that work row by row, against numpy in float64, on every ISA variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("corral._native", reason="the extension is not built")

import dataclasses

from batches import logits_of, one_sequence
from ops import EPS, Array, Model, assert_same_bits, assert_within

from corral.program.native import isas
from corral.program.program import Activation, IndexedBy
from corral.program.trace import (
    Tensor,
    activate,
    embed,
    glu,
    layer_norm,
    rms_norm,
    rope,
    rope_table,
    softcap,
)

pytestmark = pytest.mark.native

TOKENS = 40
WIDTHS = [1, 2, 15, 16, 17, 31, 33, 64, 80, 100, 576]


def normal(columns: int, seed: int = 0, scale: float = 1.0) -> Array:
    rng = np.random.default_rng((columns, seed))
    return (rng.standard_normal((TOKENS, columns)) * scale).astype(np.float32)


def found_everywhere(model: Model) -> Array:
    """Logits of all tokens. A row has the same bits on every variant, in any company, with any threads."""
    wanted = logits_of(model.native("scalar"), range(TOKENS))
    for isa in isas():
        native = model.native(isa)
        assert_same_bits(logits_of(native, range(TOKENS)), wanted, isa)
        for first, last in ((0, 1), (0, 3), (0, 39)):
            assert_same_bits(logits_of(native, range(first, last)), wanted[first:last], f"{isa} {last}")
    for threads in (2, 3):
        assert_same_bits(
            logits_of(model.native(threads=threads), range(TOKENS)), wanted, f"{threads} threads"
        )
    return wanted


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_rms_norm(tmp_path: Path, width: int, scale: float) -> None:
    x = normal(width, scale=scale)
    x[5] = 0
    x[6, width // 2] = 1e4 * scale
    weight = np.linspace(-1, 2, width, dtype=np.float32)
    model = Model(tmp_path, {"x": x, "w": weight}, lambda m: rms_norm(m.input(), m.weight("w"), 1e-5))
    found, wanted = found_everywhere(model), logits_of(model.reference(), range(TOKENS))
    # a lane sums width / 16 squares, then 16 lanes are summed as a tree; the root halves the error
    assert_within(found, wanted, (width / 32 + 8) * EPS * np.abs(wanted))


@pytest.mark.parametrize("head_dim", [16, 24, 80, 128])
@pytest.mark.parametrize("heads", [1, 3])
def test_rms_norm_of_each_head(tmp_path: Path, head_dim: int, heads: int) -> None:
    x = normal(head_dim * heads)
    weight = normal(head_dim, 1)[0]
    model = Model(
        tmp_path,
        {"x": x, "w": weight},
        lambda m: rms_norm(m.input(), m.weight("w"), 1e-6, head_dim),
    )
    found, wanted = found_everywhere(model), logits_of(model.reference(), range(TOKENS))
    assert_within(found, wanted, (head_dim / 32 + 8) * EPS * np.abs(wanted))
    if heads > 1:  # a head knows nothing of the others
        x[:, head_dim:] = 7
        model = Model(
            tmp_path, {"x": x, "w": weight}, lambda m: rms_norm(m.input(), m.weight("w"), 1e-6, head_dim)
        )
        assert_same_bits(found_everywhere(model)[:, :head_dim], found[:, :head_dim])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("biased", [True, False])
def test_layer_norm(tmp_path: Path, width: int, biased: bool) -> None:
    x = normal(width, scale=3.0)
    x[5] = 0
    x[6, width // 2] = 1e4
    x[7] += 100
    tensors = {"x": x, "w": np.linspace(-1, 2, width, dtype=np.float32), "b": normal(width, 1)[0]}

    def make(m: Model) -> Tensor:
        return layer_norm(m.input(), m.weight("w"), m.weight("b") if biased else None, 1e-5)

    model = Model(tmp_path, tensors, make)
    found, wanted = found_everywhere(model), logits_of(model.reference(), range(TOKENS))
    exact = x.astype(np.float64)
    spread = np.sqrt(exact.var(axis=1, keepdims=True) + 1e-5)
    bias = tensors["b"] if biased else np.zeros(width)
    plain = (exact - exact.mean(axis=1, keepdims=True)) / spread * tensors["w"] + bias
    assert_within(wanted, plain, 2 * EPS * (np.abs(plain) + np.abs(bias) + 1))
    # the mean is off by what its sum was rounded, which counts relative to the spread
    rounding = (width / 16 + 8) * EPS
    off = np.abs(x).max(axis=1, keepdims=True) / spread * np.abs(tensors["w"])
    assert_within(found, wanted, rounding * (np.abs(wanted) + np.abs(bias) + 2 * off))


@pytest.mark.parametrize("by", ["position", "nothing"])
def test_rows_by_position_or_always_the_first(tmp_path: Path, by: IndexedBy) -> None:
    x, places = normal(33), normal(33, 1)[:30]

    def make(m: Model) -> Tensor:
        return m.input() + embed(m.trace, m.weight("p"), by=by)

    model = Model(tmp_path, {"x": x, "p": places}, make)
    batch = one_sequence([9, 3, 30], start=27)
    wanted = x[[9, 3, 30]] + (places[27:] if by == "position" else places[:1])
    for executor in (model.native(threads=2), model.reference(np.float32)):
        executor.allocate(64)
        assert_same_bits(executor.step(batch).copy(), wanted)
    if by == "position":
        native = model.native()
        native.allocate(64)
        with pytest.raises(ValueError, match="outside the table of positions"):
            native.step(one_sequence([9, 3], start=29))


@pytest.mark.parametrize("interleaved", [True, False], ids=["interleaved", "halves"])
@pytest.mark.parametrize(
    ("head_dim", "heads", "rotated", "magnitude"),
    [
        (16, 1, 16, 1.0),
        (64, 3, 64, 1.0),
        (64, 3, 64, 1.25),
        (80, 2, 32, 1.0),
        (24, 5, 2, 0.75),
        (256, 1, 256, 1.0),
    ],
)
@pytest.mark.parametrize("start", [0, 1_000_000])
def test_rope(
    tmp_path: Path, interleaved: bool, head_dim: int, heads: int, rotated: int, magnitude: float, start: int
) -> None:
    inv_freq = 10000.0 ** (-np.arange(0, rotated, 2) / rotated)
    x = normal(head_dim * heads)

    def make(m: Model) -> Tensor:
        return rope(m.input(), rope_table(m.trace, inv_freq, magnitude), head_dim, interleaved=interleaved)

    model = Model(tmp_path, {"x": x}, make)
    batch = dataclasses.replace(
        one_sequence(range(TOKENS), start, blocks=(start + TOKENS) // 32 + 1),
    )
    found = {}
    for isa in isas():
        native = model.native(isa)
        native.allocate(batch.block_tables.size)
        found[isa] = native.step(batch).copy()
        assert_same_bits(found[isa], found[isas()[0]], isa)
    # complex numbers, straight from the paper: pair i turns by position * inv_freq[i]
    heads_of_x = x.reshape(TOKENS, heads, head_dim).astype(np.float64)
    turned = heads_of_x[..., :rotated]
    if interleaved:
        pairs = turned[..., 0::2] + 1j * turned[..., 1::2]
    else:
        pairs = turned[..., : rotated // 2] + 1j * turned[..., rotated // 2 :]
    angles = (start + np.arange(TOKENS))[:, None, None] * inv_freq
    pairs = pairs * np.exp(1j * angles) * magnitude
    wanted = heads_of_x.copy()
    order = [pairs.real, pairs.imag]
    wanted[..., :rotated] = (
        np.stack(order, -1).reshape(turned.shape) if interleaved else np.concatenate(order, -1)
    )
    # rounded: cos, cos * magnitude, the product of a pair's other half, the sum
    bound = 4 * EPS * magnitude * np.abs(x).max()
    assert_within(found["scalar"], wanted.reshape(TOKENS, -1), bound)
    untouched = heads_of_x[..., rotated:].astype(np.float32)
    assert_same_bits(found["scalar"].reshape(TOKENS, heads, head_dim)[..., rotated:].copy(), untouched)


def test_rope_angles_are_exact_far_out(tmp_path: Path) -> None:
    """At position 10^6 a float32 angle would be off by 1/16."""
    x = np.tile(np.array([1, 0], np.float32), (1, 1))
    model = Model(
        tmp_path, {"x": x}, lambda m: rope(m.input(), rope_table(m.trace, [0.9999]), 2, interleaved=True)
    )
    batch = one_sequence([0], start=999_999, blocks=31250)
    native = model.native()
    native.allocate(31250)
    angle = 999_999 * 0.9999
    assert_within(native.step(batch), np.array([[np.cos(angle), np.sin(angle)]]), 2 * EPS)


EXTREMES = [
    0.0,
    -0.0,
    1e-30,
    1e-4,
    1,
    -1,
    10,
    -10,
    20,
    -20,
    50,
    -50,
    87,
    -87,
    88,
    -88,
    100,
    -100,
    1e4,
    -1e4,
    1e9,
    -1e9,
]
CUT_OFF = 1e-37
"""e^x stops at e^88: what should be less than this much of an input may be this much of it."""


def sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def sigmoid_argument(x: Array, act: Activation) -> Array:
    """gelu's tanh form is x sigmoid(2 y), as tanh(y) = 2 sigmoid(2 y) - 1."""
    return x if act == "silu" else 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


@pytest.mark.parametrize("act", ["silu", "gelu"])
@pytest.mark.parametrize("width", [1, 15, 16, 17, 49, 160])
def test_glu(tmp_path: Path, act: Activation, width: int) -> None:
    gate, up = normal(width, 1, 3.0), normal(width, 2)
    gate[: len(EXTREMES), width // 2] = EXTREMES
    gate[: len(EXTREMES), 0] = EXTREMES[::-1]
    model = Model(tmp_path, {"g": gate, "u": up}, lambda m: glu(m.input("g"), m.input("u"), act))
    found = found_everywhere(model)
    x = gate.astype(np.float64)
    y = sigmoid_argument(x, act)
    wanted = x * sigmoid(y) * up
    # y is rounded 5 times; e^-y multiplies its relative error by |y|, and is cut off beyond 88
    bound = (8 + 5 * np.minimum(np.abs(y), 88) * sigmoid(-y)) * EPS * np.abs(wanted) + CUT_OFF * np.abs(
        x * up
    )
    assert_within(found, wanted, bound)
    assert_within(logits_of(model.reference(), range(TOKENS)), wanted, 2 * EPS * np.abs(wanted) + 1e-45)


@pytest.mark.parametrize("act", ["silu", "gelu"])
def test_activate_is_the_glu_of_ones(tmp_path: Path, act: Activation) -> None:
    x = normal(49, 1, 3.0)
    x[: len(EXTREMES), 7] = EXTREMES
    tensors = {"x": x, "ones": np.ones_like(x)}
    single = Model(tmp_path, tensors, lambda m: activate(m.input(), act))
    gated = Model(tmp_path, tensors, lambda m: glu(m.input(), m.input("ones"), act))
    assert_same_bits(found_everywhere(single), found_everywhere(gated))
    wanted = logits_of(gated.reference(), range(TOKENS))
    assert_same_bits(logits_of(single.reference(), range(TOKENS)), wanted)


@pytest.mark.parametrize("cap", [30.0, 50.0, 0.5])
@pytest.mark.parametrize("width", [1, 16, 33])
def test_softcap(tmp_path: Path, cap: float, width: int) -> None:
    x = normal(width, scale=cap)
    x[: len(EXTREMES), width // 2] = EXTREMES
    model = Model(tmp_path, {"x": x}, lambda m: softcap(m.input(), cap))
    found = found_everywhere(model)
    wanted = cap * np.tanh(x.astype(np.float64) / cap)
    assert_within(
        found, wanted, 8 * EPS * cap
    )  # absolute: small numbers are the difference of cap and nearly cap
    assert (np.abs(found) <= cap).all()
    assert_within(logits_of(model.reference(), range(TOKENS)), wanted, EPS * cap)


@pytest.mark.parametrize("width", [1, 16, 17, 99])
def test_add_and_scale(tmp_path: Path, width: int) -> None:
    a, b = normal(width, 1), normal(width, 2, 1e5)

    def make(m: Model) -> Tensor:
        return m.input("a") + m.input("b") * -0.3

    found = found_everywhere(Model(tmp_path, {"a": a, "b": b}, make))
    assert_same_bits(found, a + b * np.float32(-0.3))


@pytest.mark.parametrize("rows", [[], [0], [39], [0, 1, 2], [3, 17, 38], list(range(40))], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_take_rows(tmp_path: Path, rows: list[int], threads: int) -> None:
    x = normal(50)
    model = Model(tmp_path, {"x": x}, lambda m: m.input())
    batch = dataclasses.replace(one_sequence(range(TOKENS)), logit_rows=np.array(rows, np.int32))
    for executor in (model.native(threads=threads), model.reference(np.float32)):
        executor.allocate(64)
        assert_same_bits(executor.step(batch), x[rows])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_row(tmp_path: Path, bad: float) -> None:
    x = normal(64)
    good = x.copy()
    x[7, 3] = bad

    def make(m: Model) -> Tensor:
        return glu(rms_norm(m.input(), m.weight("w"), 1e-5), m.input(), "gelu")

    weight = np.ones(64, np.float32)
    others = [i for i in range(TOKENS) if i != 7]
    for isa in isas():
        found, wanted = (
            logits_of(Model(tmp_path, {"x": values, "w": weight}, make).native(isa), range(TOKENS))
            for values in (x, good)
        )
        assert_same_bits(found[others], wanted[others])
