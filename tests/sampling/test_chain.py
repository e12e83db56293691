"""The chain against a slow twin: full sort, float64, one sampler after the other as they are defined."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from definitions import Twin, samplers, softmax
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from corral.errors import InternalError, RequestError
from corral.sampler_order import DEFAULT_ORDER
from corral.sampling.chain import Chain, log_probs, uniform
from corral.sampling.check import check_params
from corral.sampling.logits import Logits
from corral.sampling.params import SamplingParams

CLOSE = 1e-5
"""The chain sums a vocabulary in single precision: a share this close to a limit may fall on either side."""
PIECES = [b"a", b"b", b"c\n", b":", b" d", b"*", b"e", b"f", b"g", b""] * 600
EOG = (3, 98)


def place_of(chain: Chain, params: SamplingParams, tokens: list[int], row: NDArray[np.float32]) -> Twin:
    chances = uniform(chain.seed, len(tokens)), uniform(chain._other_seed, len(tokens))
    return Twin(row, params, tokens, PIECES, chances)


def expected(twin: Twin, params: SamplingParams) -> int:
    if params.ignore_eos:
        twin.logits[list(EOG)] = -np.inf
    for sampler in samplers(params):
        sampler(twin)
    return twin.draw()


SHARES = st.sampled_from([0.0, 0.1, 0.5, 0.95, 0.999, 1.0, 2.0])
PARAMS = st.builds(
    SamplingParams,
    samplers=st.one_of(
        st.just(DEFAULT_ORDER), st.lists(st.sampled_from(DEFAULT_ORDER), max_size=7).map(tuple)
    ),
    min_keep=st.sampled_from([0, 0, 1, 3, 50]),
    temperature=st.sampled_from([0.0, -1.0, 0.1, 0.8, 1.0, 2.0, 50.0]),
    dynatemp_range=st.sampled_from([0.0, 0.0, 0.5, 3.0]),
    dynatemp_exponent=st.sampled_from([1.0, 0.5, 2.0]),
    top_k=st.sampled_from([0, -1, 1, 2, 40, 500, 10_000]),
    top_p=SHARES,
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.5]),
    typical_p=st.sampled_from([1.0, 1.0, 0.9, 0.2, 0.0]),
    top_n_sigma=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0]),
    xtc_probability=st.sampled_from([0.0, 0.5, 1.0]),
    xtc_threshold=st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.6]),
    repeat_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    repeat_last_n=st.sampled_from([0, 1, 5, 64, -1]),
    presence_penalty=st.sampled_from([0.0, 0.5, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.2, -0.1]),
    dry_multiplier=st.sampled_from([0.0, 0.8]),
    dry_base=st.sampled_from([1.0, 1.75]),
    dry_allowed_length=st.sampled_from([0, 1, 2]),
    dry_penalty_last_n=st.sampled_from([0, 5, 64, -1]),
    dry_sequence_breakers=st.sampled_from([("\n", ":", "*"), (), ("b c",), ("no such text", "a")]),
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
def test_against_the_definitions(params: SamplingParams, size: int, spread: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    row = (rng.standard_normal(size) * spread).astype(np.float32)
    before = row.copy()
    # few different ones, so that there are repeats
    tokens = rng.integers(0, rng.choice([3, 100]), rng.integers(0, 90)).tolist()
    chain = Chain(params, seed, EOG, PIECES)
    twin = place_of(chain, params, tokens, row)
    token = expected(twin, params)
    assume(twin.margin > CLOSE)
    assert chain.sample(row, tokens) == token
    assert (row == before).all(), "the executor's logits were changed"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_mirostat_against_its_definition(version: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    params = SamplingParams(mirostat=version, mirostat_tau=3.0, mirostat_eta=0.3, temperature=0.9, top_k=2)
    chain = Chain(params, seed)
    mu, tokens, clear = 6.0, [1, 2], 0
    for _ in range(40):
        row = (rng.standard_normal(2000) * 2.5).astype(np.float32)
        twin = place_of(chain, params, tokens, row)
        twin.temperature()
        token, mu = twin.mirostat(mu) if version == 1 else twin.mirostat_2(mu)
        sampled = chain.sample(row, tokens)
        if twin.margin < CLOSE:
            token, mu = sampled, chain._memories[len(tokens) + 1][0]
        else:
            clear += 1
        assert sampled == token
        assert chain._memories[len(tokens) + 1][0] == pytest.approx(mu, abs=1e-4)
        tokens.append(token)
    assert clear > 30


@pytest.mark.parametrize("target", [-1.0, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("top_k", [0, 30])
def test_adaptive_p_against_its_definition(target: float, top_k: int) -> None:
    rng = np.random.default_rng(top_k)
    params = SamplingParams(
        samplers=("adaptive_p", "top_k", "temperature"), top_k=top_k, adaptive_target=target
    )
    chain = Chain(params, 5)
    tokens, history = [4], []
    for _ in range(40):
        row = (rng.standard_normal(300) * 2.5).astype(np.float32)
        twin = place_of(chain, params, tokens, row)
        twin.top_k()
        twin.temperature()
        token, prob = twin.adaptive_p(history)
        if twin.margin < CLOSE:
            token = chain.sample(row, tokens)
        else:
            assert chain.sample(row, tokens) == token
        history.append(prob)
        tokens.append(token)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(mirostat=1),
        SamplingParams(mirostat=2),
        SamplingParams(samplers=("adaptive_p",), adaptive_target=0.4),
    ],
)
def test_a_token_may_be_sampled_again(params: SamplingParams) -> None:
    """After the request was put aside, or to check a draft."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((20, 500)) * 3).astype(np.float32)
    once, twice = Chain(params, 3), Chain(params, 3)
    tokens: list[int] = [7]
    for row in rows:
        first = twice.sample(row, tokens)
        assert twice.sample(row, tokens) == first == once.sample(row, tokens)
        tokens.append(first)
    assert once._memories == twice._memories


def test_mirostat_starts_anew_with_each_chain_and_learns() -> None:
    params = SamplingParams(mirostat=2, mirostat_tau=5.0)
    chain = Chain(params, 0)
    row = np.zeros(64, np.float32)  # 6 bits of surprise
    chain.sample(row, [1])
    # mu was 10, so all 64 are kept; 10 - 0.1 * (6 - 5)
    assert chain._memories == {1: (10.0, 0.0), 2: (pytest.approx(9.9), 0.0)}


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
    result = log_probs(Logits(row), chosen=0, count=3)
    assert result.chosen == pytest.approx(exact[0], abs=1e-6)
    assert [token for token, _ in result.top] == [1, 3, 2]
    assert [value for _, value in result.top] == pytest.approx(exact[[1, 3, 2]].tolist(), abs=1e-6)
    assert len(log_probs(Logits(row), 0, 99).top) == 4


@pytest.mark.parametrize(
    ("params", "top"),
    [
        # 1/2, 1/4, 1/8, 1/8: two of them
        (SamplingParams(top_k=2, top_p=1, min_p=0, temperature=1), {0: 2 / 3, 1: 1 / 3}),
        (
            SamplingParams(top_k=0, top_p=1, min_p=0, temperature=0.5),
            {0: 16 / 22, 1: 4 / 22, 2: 1 / 22, 3: 1 / 22},
        ),
        (SamplingParams(temperature=0), {0: 1.0}),
        (
            SamplingParams(logit_bias={0: -math.inf}, top_p=1, min_p=0, temperature=1),
            {1: 0.5, 2: 0.25, 3: 0.25},
        ),
        (SamplingParams(mirostat=2, mirostat_tau=0.9, temperature=1), {0: 1.0}),  # mu is 1.8 bits
    ],
)
def test_post_sampling_probs(params: SamplingParams, top: dict[int, float]) -> None:
    params = msgspec.structs.replace(params, n_probs=9, post_sampling_probs=True)
    row = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))
    chain = Chain(params, 1)
    token = chain.sample(row, [0])
    result = chain.log_probs(token)
    assert result is not None
    assert result.post_sampling
    assert {t: math.exp(value) for t, value in result.top} == pytest.approx(top, abs=1e-6)
    assert math.exp(result.chosen) == pytest.approx(top[token], abs=1e-6)
    chain = Chain(msgspec.structs.replace(params, n_probs=1), 1)
    token = chain.sample(row, [0])
    assert chain.log_probs(token) == (result.chosen, result.top[:1], True)


def test_no_probs_unless_asked() -> None:
    chain = Chain(SamplingParams(post_sampling_probs=True), 0)
    row = np.zeros(4, np.float32)
    assert chain.log_probs(chain.sample(row, [])) is None


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
