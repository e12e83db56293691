"""The log probabilities of a prompt's tokens (`echo`): the same however it is cut."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from fake_executor import FakeExecutor, build_engine, prompt, run
from numpy.typing import NDArray

from corral.engine.messages import Output, Submit, TokenInfo
from corral.sampling.params import SamplingParams

PARAMS = SamplingParams(temperature=0, n_probs=3, ignore_eos=True)
ASKING = Submit(id="asking", prompt=prompt(150), max_tokens=4, sampling=PARAMS, prompt_probs=True)
OTHERS = [
    Submit(id=f"other {i}", prompt=prompt(150)[: 40 * i + 3], max_tokens=50, sampling=PARAMS)
    for i in range(4)
]


def infos_of(outputs: list[Output]) -> list[TokenInfo]:
    return [info for output in outputs for info in output.prompt_infos]


@pytest.fixture(scope="module")
def forced() -> list[TokenInfo]:
    """The slow twin: the tokens one at a time, each the only one that is to follow those before it."""
    engine = build_engine(parallel=1)
    infos = []
    for i in range(1, len(ASKING.prompt)):
        token = ASKING.prompt[i]
        params = msgspec.structs.replace(PARAMS, logit_bias={token: 1e6}, ignore_eos=False)
        submit = Submit(id=str(i), prompt=ASKING.prompt[:i], max_tokens=1, sampling=params)
        outputs = run(engine, [submit])[submit.id]
        assert [t for o in outputs for t in o.tokens] == [token]
        infos += [info for output in outputs for info in output.infos]
    return infos


@pytest.mark.parametrize("chunk", [1, 7, 512])
@pytest.mark.parametrize("rows", [1, 5, 16, 1000])
def test_they_are_those_of_the_tokens_one_by_one(forced: list[TokenInfo], chunk: int, rows: int) -> None:
    executor = FakeExecutor()
    engine = build_engine(executor, chunk_tokens=chunk, prompt_rows=rows)
    outputs = run(engine, [ASKING, *OTHERS])
    assert infos_of(outputs["asking"]) == forced
    assert sum(len(output.tokens) for output in outputs["asking"]) == 4
    assert not any(infos_of(outputs[other.id]) for other in OTHERS)
    assert max(len(batch.logit_rows) for batch in executor.steps) <= rows + 4  # sequences


def test_they_change_nothing_else() -> None:
    plain = msgspec.structs.replace(ASKING, prompt_probs=False)
    with_them, without = (run(build_engine(), [submit])["asking"] for submit in (ASKING, plain))
    assert [t for o in with_them for t in o.tokens] == [t for o in without for t in o.tokens]
    assert [i for o in with_them for i in o.infos] == [i for o in without for i in o.infos]


def test_all_of_the_prompt_is_computed_and_others_may_use_it(forced: list[TokenInfo]) -> None:
    engine = build_engine()
    for id, cached in (("first", 0), ("second", 0)):
        outputs = run(engine, [msgspec.structs.replace(ASKING, id=id)])[id]
        assert infos_of(outputs) == forced
        timings = outputs[-1].timings
        assert timings is not None
        assert (timings.cache_n, timings.prompt_n) == (cached, len(ASKING.prompt))
    plain = msgspec.structs.replace(ASKING, prompt_probs=False)
    timings = run(engine, [plain])["asking"][-1].timings
    assert timings is not None
    assert timings.cache_n == 128


def test_the_prompt_alone(forced: list[TokenInfo]) -> None:
    outputs = run(build_engine(), [msgspec.structs.replace(ASKING, max_tokens=0)])["asking"]
    assert infos_of(outputs) == forced
    assert [o.tokens for o in outputs if o.tokens] == []
    assert outputs[-1].finish_reason == "length"


def test_a_prompt_of_one_token_has_none() -> None:
    submit = msgspec.structs.replace(ASKING, prompt=[5])
    assert infos_of(run(build_engine(), [submit])["asking"]) == []


def test_several_that_ask_share_the_rows_and_the_oldest_gets_on(forced: list[TokenInfo]) -> None:
    executor = FakeExecutor()
    engine = build_engine(executor, prompt_rows=4, num_blocks=128)
    asking = [msgspec.structs.replace(ASKING, id=str(i), prompt=ASKING.prompt[: 150 - i]) for i in range(6)]
    outputs = run(engine, [*asking, *OTHERS])
    for i, submit in enumerate(asking):
        assert infos_of(outputs[submit.id]) == forced[: 149 - i]
    assert max(len(batch.logit_rows) for batch in executor.steps) <= 4 + 4


def test_none_is_given_twice_after_a_preemption(forced: list[TokenInfo]) -> None:
    growing = [
        Submit(id=f"g{i}", prompt=prompt(20, i), max_tokens=300, sampling=SamplingParams(ignore_eos=True))
        for i in range(3)
    ]
    engine = build_engine(num_blocks=18, n_ctx=512, prompt_rows=1, chunk_tokens=8)
    outputs = run(engine, [*growing, ASKING])
    assert engine.scheduler.preemptions > 0
    assert infos_of(outputs["asking"]) == forced


def test_logits_that_are_no_numbers_end_the_request_alone() -> None:
    def edit(logits: NDArray[np.float32], history: list[int]) -> None:
        if len(history) == 30 and history == ASKING.prompt[:30]:
            logits[3] = math.nan

    outputs = run(build_engine(FakeExecutor(edit)), [ASKING, *OTHERS])
    assert outputs["asking"][-1].finish_reason == "error"
    assert all(outputs[other.id][-1].finish_reason == "length" for other in OTHERS)
