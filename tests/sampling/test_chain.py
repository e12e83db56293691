"""The chain against a slow twin: full sort, float64, one sampler after the other as they are defined."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from corral.errors import InternalError, RequestError
from corral.sampling.candidates import Candidates
from corral.sampling.chain import Chain, check_params, log_probs, uniform
from corral.sampling.params import SamplingParams
from corral.sampling.samplers import penalties

CLOSE = 2e-6
"""The chain sums a vocabulary in single precision: a share this close to a limit may fall on either side."""


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    terms = np.exp(logits - logits.max())
    return terms / terms.sum()


def edited(
    row: NDArray[np.float32], params: SamplingParams, tokens: list[int], eog: set[int]
) -> NDArray[np.float32]:
    """Logits after bias and penalties."""
    row = row.copy()
    for token, bias in params.logit_bias.items():
        row[token] += bias
    if params.ignore_eos:
        row[list(eog)] = -np.inf
    last = tokens[-params.repeat_last_n :] if params.repeat_last_n > 0 else tokens
    for token, times in Counter(last if params.repeat_last_n else []).items():
        logit = float(row[token])
        logit = logit * params.repeat_penalty if logit <= 0 else logit / params.repeat_penalty
        row[token] = logit - (times * params.frequency_penalty + params.presence_penalty)
    return row


def twin(
    row: NDArray[np.float32], params: SamplingParams, tokens: list[int], u: float, eog: set[int]
) -> tuple[int, bool]:
    """The token, and whether no comparison on the way was too close to call."""
    row = edited(row, params, tokens, eog)
    order = np.lexsort((np.arange(len(row)), -row))
    if params.temperature <= 0:
        return int(order[0]), True
    logits = row[order].astype(np.float64)
    clear = True
    if params.top_k > 0:
        logits = logits[: params.top_k]
    if params.top_p < 1:
        sums = np.cumsum(softmax(logits))
        clear &= bool(np.abs(sums - params.top_p).min() > CLOSE)
        logits = logits[: max(1, 1 + int((sums < params.top_p).sum()))]
    if params.min_p > 0:
        limit = logits[0] + math.log(params.min_p)
        clear &= bool(np.abs(logits - limit).min() > CLOSE)
        logits = logits[: max(1, int((logits >= limit).sum()))]
    sums = np.cumsum(softmax(logits / params.temperature))
    clear &= bool(np.abs(sums - u).min() > CLOSE)
    return int(order[min(int((sums < u).sum()), len(logits) - 1)]), clear


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, -1.0, 0.1, 0.8, 1.0, 2.0, 50.0]),
    top_k=st.sampled_from([0, -1, 1, 2, 40, 500, 10_000]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.95, 0.999, 1.0, 2.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.5]),
    repeat_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    repeat_last_n=st.sampled_from([0, 1, 5, 64, -1]),
    presence_penalty=st.sampled_from([0.0, 0.5, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.2, -0.1]),
    logit_bias=st.dictionaries(st.integers(0, 99), st.sampled_from([-math.inf, -2.0, 5.0]), max_size=5),
    ignore_eos=st.booleans(),
)


@settings(max_examples=400, deadline=None)
@given(
    params=PARAMS,
    size=st.sampled_from([100, 101, 700, 5000]),
    spread=st.sampled_from([0.01, 1.0, 4.0, 15.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_against_the_twin(params: SamplingParams, size: int, spread: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    row = (rng.standard_normal(size) * spread).astype(np.float32)
    before = row.copy()
    tokens = rng.integers(0, 100, rng.integers(0, 90)).tolist()
    eog = {3, 98}
    expected, clear = twin(row, params, tokens, uniform(seed, len(tokens)), eog)
    if clear:
        assert Chain(params, seed, eog).sample(row, tokens) == expected
    assert (row == before).all(), "the executor's logits were changed"


@pytest.mark.parametrize("top_k", [0, 40])
def test_frequencies_are_the_probabilities(top_k: int) -> None:
    row = np.log(np.array([0.5, 0.25, 0.125, 0.125] + [1e-9] * 60, np.float32))
    chain = Chain(SamplingParams(temperature=1, top_k=top_k, top_p=1, min_p=0), seed=1)
    counts = Counter(chain.sample(row, [0] * i) for i in range(4000))
    for token, share in enumerate([0.5, 0.25, 0.125, 0.125]):
        # 4 standard deviations
        assert counts[token] / 4000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 4000))


def test_greedy_takes_the_first_of_equals() -> None:
    row = np.array([1, 3, 2, 3, 3], np.float32)
    for params in (SamplingParams(temperature=0), SamplingParams(temperature=-1), SamplingParams(top_k=1)):
        assert Chain(params, seed=0).sample(row, []) == 1


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(repeat_penalty=2.0), [0.5, -2.0, 3.0]),
        (SamplingParams(presence_penalty=0.5), [0.5, -1.5, 3.0]),
        (SamplingParams(frequency_penalty=0.25), [0.5, -1.25, 3.0]),
        (SamplingParams(repeat_penalty=2.0, repeat_last_n=1), [1.0, -2.0, 3.0]),
        (
            SamplingParams(repeat_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25),
            [-0.5, -2.75, 3.0],
        ),
    ],
)
def test_penalties_by_hand(params: SamplingParams, expected: list[float]) -> None:
    """Token 0 appeared twice, token 1 once and last, token 2 never."""
    candidates = Candidates(np.array([1.0, -1.0, 3.0], np.float32))
    penalties(candidates, params, [0, 0, 1])
    assert candidates.edit().tolist() == expected


def test_the_same_seed_gives_the_same_token_and_another_another() -> None:
    row = np.zeros(1000, np.float32)
    params = SamplingParams(top_k=0, min_p=0)
    draws = [Chain(params, seed).sample(row, [1, 2]) for seed in (7, 7, 8, 2**63, -1)]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 4


def test_uniform() -> None:
    """Mean, and no visible link between neighbours in place or seed."""
    values = np.array([[uniform(seed, place) for place in range(200)] for seed in range(200)])
    assert ((values >= 0) & (values < 1)).all()
    assert values.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * values.size))
    centred = values - 0.5
    for product in (
        centred[1:] * centred[:-1],
        centred[:, 1:] * centred[:, :-1],
        centred[1:, :-1] * centred[:-1, 1:],
    ):
        assert abs(product.mean()) < 4 / 12 / math.sqrt(product.size)


def test_log_probs() -> None:
    row = np.array([1.0, 3.0, 2.0, 3.0], np.float32)
    exact = np.log(softmax(row.astype(np.float64)))
    result = log_probs(row, chosen=0, count=3)
    assert result.chosen == pytest.approx(exact[0], abs=1e-6)
    assert [token for token, _ in result.top] == [1, 3, 2]
    assert [value for _, value in result.top] == pytest.approx(exact[[1, 3, 2]].tolist(), abs=1e-6)
    assert len(log_probs(row, 0, 99).top) == 4


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite(value: float) -> None:
    with pytest.raises(InternalError, match="logits for token 3 are not finite"):
        Chain(SamplingParams(), 0).sample(np.array([0, value, 1], np.float32), [1, 1, 1])


def test_all_tokens_banned() -> None:
    params = SamplingParams(logit_bias={0: -math.inf}, ignore_eos=True)
    with pytest.raises(RequestError, match="bans every token"):
        Chain(params, 0, {1}).sample(np.zeros(2, np.float32), [])
    assert Chain(params, 0, {1}).sample(np.zeros(3, np.float32), []) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": math.nan}, "temperature is nan, expected a number from -1000000 to 1000000"),
        ({"top_p": math.inf}, "top_p is inf"),
        ({"min_p": -math.inf}, "min_p is -inf"),
        ({"repeat_penalty": 0.0}, "repeat_penalty is 0.0, expected a number from 0.000001 to 1000000"),
        ({"repeat_penalty": -1.0}, "repeat_penalty is -1.0"),
        ({"presence_penalty": 1e7}, "presence_penalty is 10000000.0"),
        ({"frequency_penalty": math.nan}, "frequency_penalty is nan"),
        ({"repeat_last_n": -2}, "repeat_last_n is -2, expected -1 or more"),
        ({"n_probs": -1}, "n_probs is -1, expected 0 or more"),
        ({"logit_bias": {10: 1.0}}, "logit_bias names token 10, expected one from 0 to 9"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias names token -1, expected one from 0 to 9"),
        ({"logit_bias": {1: math.inf}}, "logit_bias of token 1 is inf, expected a number"),
        ({"logit_bias": {1: math.nan}}, "logit_bias of token 1 is nan"),
    ],
)
def test_parameters_without_a_meaning_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message.replace("(", "\\(")):
        check_params(SamplingParams(**changes), 10)


@pytest.mark.parametrize(
    "params",
    [SamplingParams(), SamplingParams(logit_bias={9: -math.inf}), SamplingParams(temperature=-1, top_k=-1)],
)
def test_parameters_with_a_meaning_are_not(params: SamplingParams) -> None:
    check_params(params, 10)


def test_the_tiniest_temperature_is_greedy() -> None:
    row = np.array([0.0, 1.0, 0.9999], np.float32)
    for temperature in (1e-6, 1e-300, 5e-324):
        assert Chain(SamplingParams(temperature=temperature, top_k=0), seed=5).sample(row, []) == 1
