"""The passes over a row, of every ISA variant and in numpy, against plain definitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from corral.sampling.kernels import BLOCK, Kernels, NumpyKernels
from corral.sampling.logits import Logits

native = pytest.importorskip("corral._native")
KERNELS: dict[str, Kernels] = {
    "numpy": NumpyKernels(),
    **{name: native.LogitKernels(name) for name in native.isas()},
}
NATIVE = [kernels for name, kernels in KERNELS.items() if name != "numpy"]

Row = NDArray[Any]
ROWS: dict[str, Callable[[np.random.Generator, int], Row]] = {
    "normal": lambda rng, size: rng.standard_normal(size) * 3,
    "many ties": lambda rng, size: rng.integers(-3, 3, size),
    "all the same": lambda rng, size: np.full(size, 1.5),
    "half of it banned": lambda rng, size: np.where(
        (rng.random(size) < 0.5) & (np.arange(size) != size // 2), -np.inf, rng.standard_normal(size)
    ),
    "all but one banned": lambda rng, size: np.where(np.arange(size) == size // 2, 0.0, -np.inf),
    "zeros of both signs": lambda rng, size: np.where(rng.random(size) < 0.5, -0.0, 0.0),
    "rising": lambda rng, size: np.arange(size) / size,
    "falling": lambda rng, size: -np.arange(size) * 1e30,
}
SIZES = [1, 2, 7, 16, 17, 63, 64, 65, 100, 600, 2048, 5003, 49152]
each_kernel = pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS.keys())
QUICK = {*itertools.product(("normal", "half of it banned"), (1, 17, 65, 5003))}
each_row = pytest.mark.parametrize(
    ("kind", "size"),
    [
        pytest.param(*row, marks=() if row in QUICK else pytest.mark.slow)
        for row in itertools.product(ROWS, SIZES)
    ],
)


def make(kind: str, size: int) -> NDArray[np.float32]:
    return np.asarray(ROWS[kind](np.random.default_rng(size), size), np.float32)


def maxima_of(row: NDArray[np.float32]) -> list[float]:
    return [float(row[i : i + BLOCK].max()) for i in range(0, len(row), BLOCK)]


@each_kernel
@each_row
def test_the_largest_against_a_full_sort(kernels: Kernels, kind: str, size: int) -> None:
    row = make(kind, size)
    logits = Logits(row, kernels)
    assert logits._maxima.tolist() == maxima_of(row)
    assert logits.largest() == row.max()
    order = np.lexsort((np.arange(size), -row))
    for k in {1, 2, 40, 700, size - 1, size, size + 1} - {0}:
        ids, values = logits.top(k)
        assert ids.tolist() == order[:k].tolist()
        assert values.tolist() == row[order[:k]].tolist()
        assert (ids.dtype, values.dtype) == (np.int32, np.float32)


@each_kernel
@each_row
def test_counts(kernels: Kernels, kind: str, size: int) -> None:
    row = make(kind, size)
    for bound in (-math.inf, -1.0, 0.0, float(np.median(row)), float(row.max()), math.inf):
        assert Logits(row, kernels).count_from(bound) == int((row >= np.float32(bound)).sum())


@each_kernel
@each_row
@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0, 1e30, 1e300])
def test_mass_and_entropy(kernels: Kernels, kind: str, size: int, scale: float) -> None:
    row = make(kind, size)
    below = (float(row.max()) - row.astype(np.float64)) * min(scale, 1e30)
    terms = [math.exp(-d) if d < 700 else 0.0 for d in below.tolist()]
    mass = math.fsum(terms)
    products = math.fsum(t * d for t, d in zip(terms, below.tolist(), strict=True) if t)
    logits = Logits(row, kernels)
    assert logits.mass(scale) == pytest.approx(mass, rel=1e-6)
    assert logits.entropy(scale) == pytest.approx(math.log(mass) + products / mass, rel=2e-6, abs=2e-6)


@each_kernel
@each_row
def test_spread(kernels: Kernels, kind: str, size: int) -> None:
    row = make(kind, size)
    finite = row[row > -np.inf].astype(np.float64)
    if kind != "falling":  # whose squares no float32 can hold
        assert Logits(row, kernels).spread() == pytest.approx(float(finite.std()), rel=1e-5, abs=1e-6)


@each_kernel
def test_spread_of_nothing(kernels: Kernels) -> None:
    assert Logits(np.full(5, -np.inf, np.float32), kernels).spread() == 0.0


@each_kernel
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_masks(kernels: Kernels, size: int, share: float) -> None:
    rng = np.random.default_rng(size)
    row = make("normal", size)
    allowed = rng.random(size) < share
    words = np.zeros(-(-size // 32) * 32, np.uint8)
    words[:size] = allowed
    masked = Logits(row, kernels).masked(np.packbits(words, bitorder="little").view(np.uint32))
    expected = np.where(allowed, row, np.float32(-np.inf))
    assert masked._row.tolist() == expected.tolist()
    assert masked._maxima.tolist() == maxima_of(expected)


@each_kernel
@pytest.mark.parametrize("size", [1, 70, 5003])
def test_changes_are_seen(kernels: Kernels, size: int) -> None:
    row = make("normal", size)
    before = row.copy()
    logits = Logits(row, kernels)
    ids = np.unique(np.random.default_rng(1).integers(0, size, 30)).astype(np.int32)
    expected = row.copy()
    for value in (50.0, -math.inf, 1.0):
        expected[ids] = value
        logits.set(ids, np.full(len(ids), value, np.float32))
        assert logits._maxima.tolist() == maxima_of(expected)
        assert logits[ids].tolist() == [value] * len(ids)
    assert (row == before).all()


@each_kernel
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 15, 16, 63, 64, 4095, 4098])
def test_one_entry_that_is_not_finite_is_found(kernels: Kernels, value: float, place: int) -> None:
    row = np.random.default_rng(0).standard_normal(4099).astype(np.float32)
    assert Logits(row, kernels).all_finite
    row[place] = value
    assert not Logits(row, kernels).all_finite


@each_kernel
def test_infinities_of_both_signs_and_sums_that_overflow(kernels: Kernels) -> None:
    assert not Logits(np.array([np.inf, -np.inf], np.float32), kernels).all_finite
    assert Logits(np.full(100, 3e38, np.float32), kernels).all_finite


@each_row
def test_variants_agree_bit_for_bit(kind: str, size: int) -> None:
    row = make(kind, size)
    largest = float(row.max())

    def sums(kernels: Kernels) -> list[object]:
        return [
            kernels.exp_sum(row, largest, 0.7),
            kernels.exp_sums(row, largest, 1.0),
            kernels.moment(row, largest, 1),
            kernels.moment(row, 0.3, 2),
        ]

    results = [sums(kernels) for kernels in NATIVE]
    assert all(result == results[0] for result in results)
    assert results[0][0] == NATIVE[0].exp_sums(row, largest, 0.7)[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda k, row, maxima: k.scan(row, maxima[1:]),
        lambda k, row, maxima: k.scan(row[:0], maxima[:0]),
        lambda k, row, maxima: k.top(row, maxima, np.zeros(0, np.int32), np.zeros(0, np.float32)),
        lambda k, row, maxima: k.top(row, maxima, np.zeros(101, np.int32), np.zeros(101, np.float32)),
        lambda k, row, maxima: k.mask(row, np.zeros(3, np.uint32), row.copy(), maxima),
        lambda k, row, maxima: k.refresh(row, np.array([100], np.int32), maxima),
        lambda k, row, maxima: k.refresh(row, np.array([-1], np.int32), maxima),
        lambda k, row, maxima: k.count_from(row, maxima[1:], 0.0),
    ],
)
def test_arrays_that_do_not_fit_are_refused(call: Callable[[Any, Row, Row], object]) -> None:
    """A bug of ours must not become a wild read."""
    row, maxima = np.zeros(100, np.float32), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match=r"\w"):
        call(NATIVE[0], row, maxima)
