from __future__ import annotations

import math

import numpy as np
import pytest

from corral.sampling.select import all_finite, log_sum_exp, mass, top_candidates

ROWS = {
    "normal": lambda rng, size: rng.standard_normal(size) * 3,
    "many ties": lambda rng, size: rng.integers(-3, 3, size),
    "all the same": lambda rng, size: np.full(size, 1.5),
    "half of it banned": lambda rng, size: np.where(
        rng.random(size) < 0.5, -np.inf, rng.standard_normal(size)
    ),
    "zeros of both signs": lambda rng, size: np.where(rng.random(size) < 0.5, -0.0, 0.0),
    "rising": lambda rng, size: np.arange(size) / size,
    "falling": lambda rng, size: -np.arange(size) * 1e30,
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("size", [1, 2, 7, 600, 2048, 5003, 49152])
def test_top_candidates_against_a_full_sort(kind: str, size: int) -> None:
    row = ROWS[kind](np.random.default_rng(size), size).astype(np.float32)
    order = np.lexsort((np.arange(size), -row))
    for k in {1, 2, 40, 700, size - 1, size, size + 1} - {0}:
        ids, logits = top_candidates(row, k)
        assert ids.tolist() == order[:k].tolist()
        assert logits.tolist() == row[order[:k]].tolist()
        assert (ids.dtype, logits.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0, 1e30, 1e300])
@pytest.mark.parametrize("size", [1, 5, 49152])
def test_mass(size: int, scale: float) -> None:
    row = (np.random.default_rng(size).standard_normal(size) * 3).astype(np.float32)
    exact = math.fsum(np.exp(scale * (row.astype(np.float64) - row.max())).tolist())
    assert mass(row, scale) == pytest.approx(exact, rel=1e-6)


def test_log_sum_exp_with_banned_tokens() -> None:
    row = np.array([-np.inf, 90.0, -np.inf, 90.0], np.float32)
    assert log_sum_exp(row) == pytest.approx(90 + math.log(2), abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 4095])
def test_one_entry_that_is_not_finite_is_found(value: float, place: int) -> None:
    row = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    assert all_finite(row)
    row[place] = value
    assert not all_finite(row)


def test_infinities_of_both_signs_and_sums_that_overflow() -> None:
    assert not all_finite(np.array([np.inf, -np.inf], np.float32))
    assert all_finite(np.full(100, 3e38, np.float32))
