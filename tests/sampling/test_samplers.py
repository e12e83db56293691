"""Each sampler on examples worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from corral.sampler_order import DEFAULT_ORDER
from corral.sampling.candidates import Candidates
from corral.sampling.logits import Logits
from corral.sampling.params import SamplingParams
from corral.sampling.samplers import SAMPLERS, Place

PIECES = [b"x", b"y", b"z", b"a\nb"]


def apply(
    name: str,
    candidates: Candidates,
    tokens: Sequence[int] = (),
    chance: float = 0.0,
    pieces: Sequence[bytes] = PIECES,
    **params: object,
) -> Candidates:
    values = SamplingParams(**params)  # type: ignore[arg-type]
    if not SAMPLERS[name].is_identity(values):
        SAMPLERS[name].apply(candidates, Place(values, tokens, pieces, frozenset(), 0.0, chance))
    return candidates


def of_logits(*logits: float) -> Candidates:
    return Candidates(Logits(np.array(logits, np.float32)))


def of_probs(*probs: float) -> Candidates:
    return Candidates(Logits(np.log(np.array(probs, np.float32))))


def by_id(candidates: Candidates) -> list[float]:
    ids, logits = candidates.all()
    return [float(x) for x in logits[np.argsort(ids)]]


def ids(candidates: Candidates) -> list[int]:
    """Those that can still be chosen."""
    left, logits = candidates.all()
    return sorted(left[logits > -math.inf].tolist())


def shortened(candidates: Candidates) -> Candidates:
    """The same candidates, but as a list that leaves out one token of the vocabulary."""
    row = np.append(candidates._row._row, np.float32(-1e9))
    result = Candidates(Logits(row))
    result.keep(len(row) - 1)
    result.all()
    return result


BOTH = pytest.mark.parametrize("form", [lambda c: c, shortened], ids=["row", "list"])


@BOTH
@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"repeat_penalty": 2.0}, [0.5, -2.0, 3.0]),
        ({"presence_penalty": 0.5}, [0.5, -1.5, 3.0]),
        ({"frequency_penalty": 0.25}, [0.5, -1.25, 3.0]),
        ({"repeat_penalty": 2.0, "repeat_last_n": 1}, [1.0, -2.0, 3.0]),
        ({"repeat_penalty": 2.0, "repeat_last_n": 0}, [1.0, -1.0, 3.0]),
        ({"repeat_penalty": 2.0, "presence_penalty": 0.5, "frequency_penalty": 0.25}, [-0.5, -2.75, 3.0]),
    ],
)
def test_penalties(form, params, expected) -> None:  # type: ignore[no-untyped-def]
    """Token 0 appeared twice, token 1 once and last, token 2 never."""
    left = apply("penalties", form(of_logits(1.0, -1.0, 3.0)), [0, 0, 1], **params)
    assert by_id(left) == expected


@BOTH
@pytest.mark.parametrize(
    ("tokens", "params", "penalty"),
    [
        # 0 followed 1 2, which the text ends with again: 2 tokens of repeat, 2 allowed
        ([1, 2, 0, 1, 2], {}, {0: 1.0}),
        ([1, 2, 0, 1, 2], {"dry_multiplier": 0.5}, {0: 0.5}),
        ([2, 1, 2, 0, 2, 1, 2], {}, {0: 2.0}),
        ([2, 1, 2, 0, 2, 1, 2], {"dry_allowed_length": 3}, {0: 1.0}),
        # only 2 is repeated: 1 token, less than allowed
        ([2, 0, 1, 2], {}, {}),
        ([2, 0, 1, 2], {"dry_allowed_length": 1}, {0: 1.0}),
        # the longest repeat counts: 0 followed 2, and 0 1 2
        ([2, 0, 0, 1, 2, 0, 1, 2], {"dry_allowed_length": 1}, {0: 2.0 ** (3 - 1)}),
        # a repeat ends at a break, and looks back no further than asked
        ([1, 2, 0, 3, 1, 2], {}, {0: 1.0}),
        ([2, 3, 1, 0, 2, 3, 1], {"dry_allowed_length": 1}, {0: 1.0}),
        ([1, 2, 0, 1, 2], {"dry_penalty_last_n": 4}, {}),
        ([1, 2, 0, 1, 2], {"dry_penalty_last_n": -1}, {0: 1.0}),
        # a token that breaks repeats goes free
        ([1, 2, 3, 1, 2], {}, {}),
        ([1, 2, 3, 1, 2], {"dry_sequence_breakers": ()}, {3: 1.0}),
    ],
)
def test_dry(form, tokens, params, penalty) -> None:  # type: ignore[no-untyped-def]
    wanted = {"dry_multiplier": 1.0, "dry_base": 2.0, **params}
    left = apply("dry", form(of_logits(0.0, 0.0, 0.0, 0.0)), tokens, **wanted)
    assert by_id(left) == [-penalty.get(token, 0.0) for token in range(4)]


def test_a_breaker_may_spread_over_tokens() -> None:
    pieces = [b"0", b"1", b"xx END", b"ING", b"4"]
    tokens = [4, 1, 0, 4, 2, 3, 1]
    for breakers, penalty in [(("ENDING",), 1.0), (("NO",), 1.0), ((" ENDING1",), 0.0)]:
        left = apply(
            "dry",
            Candidates(Logits(np.zeros(5, np.float32))),
            tokens,
            pieces=pieces,
            dry_multiplier=1.0,
            dry_allowed_length=1,
            dry_sequence_breakers=breakers,
        )
        assert by_id(left) == [-penalty, 0.0, 0.0, 0.0, 0.0]


def test_a_penalty_that_no_float_can_hold() -> None:
    left = apply("dry", of_logits(0.0, 0.0), [0] * 60, dry_multiplier=1e6, dry_base=1e6)
    assert left.prob(1) == 1.0


@BOTH
@pytest.mark.parametrize(
    ("n", "left"), [(1.0, [2]), (1.5, [2, 3]), (3.0, [0, 1, 2, 3]), (-1.0, [0, 1, 2, 3])]
)
def test_top_n_sigma(form, n, left) -> None:  # type: ignore[no-untyped-def]
    """Mean 1, standard deviation sqrt((1 + 1 + 4 + 0) / 4) = 1.22."""
    candidates = form(of_logits(0.0, 0.0, 3.0, 1.0))
    if candidates.size < candidates.vocab_size:
        assert candidates.spread() == pytest.approx(math.sqrt(1.5))
    # 3 - 1.22 n: 1.78, 1.16 (so 1 is out), negative
    assert ids(apply("top_n_sigma", candidates, top_n_sigma=n)) == {1.5: [2]}.get(n, left)


def test_top_n_sigma_leaves_out_what_is_banned() -> None:
    assert of_logits(-math.inf, 1.0, 3.0).spread() == 1.0
    assert of_logits(-math.inf).spread() == 0.0


@BOTH
@pytest.mark.parametrize(("k", "left"), [(1, [1]), (2, [1, 2]), (0, [0, 1, 2]), (9, [0, 1, 2])])
def test_top_k(form, k, left) -> None:  # type: ignore[no-untyped-def]
    assert ids(apply("top_k", form(of_logits(0.0, 2.0, 1.0)), top_k=k)) == left


@BOTH
@pytest.mark.parametrize(
    ("p", "keep", "left"),
    [
        # entropy of (1/2, 1/4, 1/8, 1/8) is 1.75 bits; the surprises are 1, 2, 3, 3: distances .75, .25, 1.25
        (0.2, 0, [1]),
        (0.3, 0, [0, 1]),
        (0.8, 0, [0, 1, 2]),
        (0.9, 0, [0, 1, 2, 3]),
        (0.2, 2, [0, 1]),
        (1.0, 0, [0, 1, 2, 3]),
    ],
)
def test_typ_p(form, p, keep, left) -> None:  # type: ignore[no-untyped-def]
    assert ids(apply("typ_p", form(of_probs(0.5, 0.25, 0.125, 0.125)), typical_p=p, min_keep=keep)) == left


@BOTH
@pytest.mark.parametrize(
    ("p", "keep", "left"),
    [(0.4, 0, [0]), (0.6, 0, [0, 1]), (0.0, 0, [0]), (0.0, 3, [0, 1, 2]), (1, 0, [0, 1, 2, 3])],
)
def test_top_p(form, p, keep, left) -> None:  # type: ignore[no-untyped-def]
    assert ids(apply("top_p", form(of_probs(0.5, 0.25, 0.15, 0.1)), top_p=p, min_keep=keep)) == left


@BOTH
@pytest.mark.parametrize(
    ("p", "keep", "left"), [(0.4, 0, [0, 1]), (0.6, 0, [0]), (2.0, 0, [0]), (0.6, 2, [0, 1])]
)
def test_min_p(form, p, keep, left) -> None:  # type: ignore[no-untyped-def]
    assert ids(apply("min_p", form(of_probs(0.5, 0.25, 0.15, 0.1)), min_p=p, min_keep=keep)) == left


@BOTH
@pytest.mark.parametrize(
    ("threshold", "probability", "keep", "left"),
    [
        (0.2, 1.0, 0, [1, 2, 3]),  # 0.5 and 0.25 reach 0.2: the less likely of the two stays
        (0.3, 1.0, 0, [0, 1, 2, 3]),  # only one does
        (0.12, 1.0, 0, [2, 3]),
        (0.12, 1.0, 3, [0, 1, 2, 3]),  # two would be too few
        (0.0, 1.0, 0, [3]),
        (0.2, 0.0, 0, [0, 1, 2, 3]),
        (0.2, 0.4, 0, [0, 1, 2, 3]),  # the coin shows 0.45
        (0.2, 0.5, 0, [1, 2, 3]),
    ],
)
def test_xtc(form, threshold, probability, keep, left) -> None:  # type: ignore[no-untyped-def]
    candidates = form(of_probs(0.5, 0.25, 0.15, 0.1))
    apply("xtc", candidates, chance=0.45, xtc_threshold=threshold, xtc_probability=probability, min_keep=keep)
    if form is not shortened and threshold == 0.0:
        left = [3]
    assert ids(candidates) == left


@BOTH
def test_temperature(form) -> None:  # type: ignore[no-untyped-def]
    assert by_id(apply("temperature", form(of_logits(1.0, 4.0)), temperature=2.0)) == [0.5, 2.0]
    assert ids(apply("temperature", form(of_logits(1.0, 4.0, 4.0)), temperature=0.0)) == [1]


@pytest.mark.parametrize(
    ("probs", "params", "expected"),
    [
        ((0.25, 0.25, 0.25, 0.25), {"temperature": 1.0, "dynatemp_range": 0.5}, 1.5),
        ((1.0, 1e-30, 1e-30, 1e-30), {"temperature": 1.0, "dynatemp_range": 0.5}, 0.5),
        # 1.75 bits of 2
        ((0.5, 0.25, 0.125, 0.125), {"temperature": 1.0, "dynatemp_range": 0.5}, 0.5 + 0.875),
        (
            (0.5, 0.25, 0.125, 0.125),
            {"temperature": 1.0, "dynatemp_range": 0.5, "dynatemp_exponent": 2.0},
            0.5 + 0.875**2,
        ),
        ((0.5, 0.25, 0.125, 0.125), {"temperature": 0.0, "dynatemp_range": 2.0}, 2 * 0.875),
    ],
)
@BOTH
def test_dynamic_temperature(form, probs, params, expected) -> None:  # type: ignore[no-untyped-def]
    candidates = form(of_probs(*probs))
    largest, smallest = max(by_id(candidates)), min(by_id(candidates)[:4])
    apply("temperature", candidates, **params)
    logits = by_id(candidates)[:4]
    if largest > smallest:
        assert (max(logits) - min(logits)) == pytest.approx((largest - smallest) / expected, rel=1e-5)
    else:
        assert max(logits) == pytest.approx(largest / expected, rel=1e-5)


@pytest.mark.parametrize("exponent", [-1.0, -1e6, 1e6])
def test_an_exponent_without_a_limit(exponent: float) -> None:
    candidates = of_probs(1.0, 1e-30)
    apply("temperature", candidates, temperature=1.0, dynatemp_range=0.5, dynatemp_exponent=exponent)
    assert 0 <= candidates.prob(1) <= 0.5


def test_a_temperature_before_a_penalty() -> None:
    """A sampler sees the logits as the ones before it left them."""
    candidates = apply("temperature", of_logits(2.0, 8.0, 6.0), temperature=2.0)
    apply("penalties", candidates, [1], presence_penalty=1.5)
    assert by_id(candidates) == [1.0, 2.5, 3.0]
    apply("top_k", candidates, top_k=1)
    assert ids(candidates) == [2]


def test_every_name_has_a_row() -> None:
    assert tuple(SAMPLERS) == DEFAULT_ORDER
