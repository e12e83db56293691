"""The arithmetic behind docs/quality.md, on arrays whose answers are known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def divergence() -> ModuleType:
    """benchmarks/ is a folder of scripts, not a package: loaded by its path."""
    spec = importlib.util.spec_from_file_location("divergence", FOLDER / "divergence.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "divergence", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


def random_logits(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (rows, columns)).astype(np.float32)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ([0.5, 0.5], [0.5, 0.5], 0.0),
        ([0.5, 0.5], [0.25, 0.75], 0.5 * np.log(2) + 0.5 * np.log(2 / 3)),
        ([0.25, 0.75], [0.5, 0.5], 0.25 * np.log(0.5) + 0.75 * np.log(1.5)),
        ([1.0, 0.0], [0.5, 0.5], np.log(2)),
        ([1 / 8] * 8, [1 / 2, *[1 / 14] * 7], np.log(1 / 8) - (np.log(1 / 2) + 7 * np.log(1 / 14)) / 8),
    ],
)
def test_kl_of_known_distributions(
    divergence: ModuleType, p: list[float], q: list[float], expected: float
) -> None:
    with np.errstate(divide="ignore"):
        got = divergence.kl_divergence(np.log([p]), np.log([q]))
    assert got == pytest.approx([expected], abs=1e-15)


@pytest.mark.parametrize("shift", [0, 1e4, -1e4])
def test_a_shift_of_all_logits_changes_nothing(divergence: ModuleType, shift: float) -> None:
    logits = random_logits(3, 50).astype(np.float64)
    p, q = divergence.log_softmax(logits), divergence.log_softmax(logits + shift)
    assert np.exp(q).sum(axis=1) == pytest.approx(np.ones(3))
    assert divergence.kl_divergence(p, q) == pytest.approx(np.zeros(3), abs=1e-12)
    assert divergence.logit_error(logits[0] + shift, logits[0]) == pytest.approx(0, abs=1e-9)


def test_kl_of_a_small_error_is_half_its_variance(divergence: ModuleType) -> None:
    """KL(p || softmax(x + e)) = Var_p(e) / 2 + O(e^3)."""
    x = random_logits(1, 200).astype(np.float64)
    error = np.random.default_rng(1).normal(0, 1e-3, x.shape)
    p = divergence.log_softmax(x)
    weights = np.exp(p)
    variance = (weights * error**2).sum() - (weights * error).sum() ** 2
    got = divergence.kl_divergence(p, divergence.log_softmax(x + error))
    assert got == pytest.approx([variance / 2], rel=0.02)


@pytest.mark.parametrize("rows", [2, 63, 64, 65, 130])
def test_scores_of_a_window(divergence: ModuleType, rows: int) -> None:
    """Rows are taken in portions: the ends of these are no ends of the text."""
    reference, other = random_logits(rows, 40), random_logits(rows, 40, seed=1)
    other[0] = reference[0]
    tokens = np.random.default_rng(2).integers(0, 40, rows, dtype=np.int32)
    own, score = divergence.score_window(reference, [other], tokens)
    p, q = divergence.log_softmax(reference), divergence.log_softmax(other)
    assert np.array_equal(own.kl, np.zeros(rows))
    assert own.same_top.all()
    assert score.kl == pytest.approx(divergence.kl_divergence(p, q))
    assert score.kl[0] == 0
    assert np.array_equal(score.same_top, reference.argmax(axis=1) == other.argmax(axis=1))
    assert len(score.nll) == rows - 1
    assert score.nll == pytest.approx([-q[i, tokens[i + 1]] for i in range(rows - 1)])


def test_summary_of_windows(divergence: ModuleType) -> None:
    first = divergence.Scores(np.array([0.0, 1.0]), np.array([True, True]), np.array([np.log(2)]))
    second = divergence.Scores(np.array([2.0, 5.0]), np.array([True, False]), np.array([np.log(8)]))
    got = divergence.Scores.join([first, second]).summary()
    assert (got.tokens, got.kl_mean, got.kl_median, got.kl_max, got.same_top) == (4, 2.0, 1.5, 5.0, 0.75)
    assert got.kl_p99 == pytest.approx(4.91)
    assert got.perplexity == pytest.approx(4)


@pytest.mark.parametrize(
    ("offset", "verdict"), [(0.5, "worse"), (-0.5, "better"), (0.0, "no measurable difference")]
)
def test_paired_bootstrap_verdict(divergence: ModuleType, offset: float, verdict: str) -> None:
    """The noise both have is ten times the offset: only the pairing shows it."""
    random = np.random.default_rng(3)
    b = random.normal(0, 5, 1000)
    got = divergence.paired_bootstrap(b + offset + random.normal(0, 0.3, 1000), b)
    assert got.verdict == verdict
    assert got.low < got.mean < got.high
    assert got.low < offset < got.high


def test_bootstrap_interval_has_the_width_of_the_standard_error(divergence: ModuleType) -> None:
    difference = np.random.default_rng(4).normal(0, 1, 400)
    got = divergence.paired_bootstrap(difference, np.zeros(400), block=1)
    assert got.high - got.low == pytest.approx(2 * 1.96 * difference.std() / np.sqrt(400), rel=0.05)


def test_bootstrap_counts_dependent_rows_once(divergence: ModuleType) -> None:
    """Blocks of 32 equal rows tell no more than one row of each."""
    difference = np.repeat(np.random.default_rng(5).normal(0, 1, 200), 32)
    got = divergence.paired_bootstrap(difference, np.zeros(6400), block=32)
    assert got.high - got.low == pytest.approx(2 * 1.96 * difference.std() / np.sqrt(200), rel=0.05)


@pytest.mark.parametrize(("rows", "block"), [(10, 32), (33, 32), (100, 7)])
def test_bootstrap_uses_every_row(divergence: ModuleType, rows: int, block: int) -> None:
    got = divergence.paired_bootstrap(np.full(rows, 3.0), np.ones(rows), block=block)
    assert (got.mean, got.low, got.high) == (2, 2, 2)


def test_logit_error_is_root_mean_square(divergence: ModuleType) -> None:
    reference = random_logits(1, 4)[0].astype(np.float64)
    error = np.array([0.3, -0.3, 0.3, -0.3])
    assert divergence.logit_error(reference + error, reference) == pytest.approx(0.3)
