"""POST /infill."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, FakeTokenizer, fake_state

from corral.server.fill_in import Gap, fill_in_prompt
from corral.server.schema import ExtraFile
from corral.tokenizer.special_ids import SpecialIds

PRE, SUF, MID, REP, SEP = 900, 901, 902, 903, 904
FILL_IN = SpecialIds(bos=1, fim_pre=PRE, fim_suf=SUF, fim_mid=MID)
REPO = dataclasses.replace(FILL_IN, fim_rep=REP, fim_sep=SEP)


def state(engine: Any = None, special: SpecialIds = FILL_IN, *, add_bos: bool = False, **config: Any) -> Any:
    tokenizer = FakeTokenizer()
    tokenizer.special, tokenizer.add_bos = special, add_bos
    made = fake_state(engine, **config)
    assert made.model
    made.model = dataclasses.replace(made.model, tokenizer=tokenizer)
    return made


def ids(text: str) -> list[int]:
    return [ord(c) for c in text]


BODY = {"input_prefix": "ab", "input_suffix": "yz", "prompt": "c"}


@pytest.mark.parametrize(
    ("spm_infill", "prompt"),
    [
        (False, [1, PRE, *ids("abc"), SUF, *ids("yz"), MID]),
        (True, [1, SUF, *ids("yz"), PRE, *ids("abc"), MID]),
    ],
)
async def test_the_order(connected: Any, spm_infill: bool, prompt: list[int]) -> None:
    engine = FakeEngine()
    async with connected(state(engine, add_bos=True, spm_infill=spm_infill)) as client:
        body = (await client.post("/infill", json=BODY)).json()
    assert engine.submits[0].prompt == prompt
    assert (body["content"], body["stop"]) == ("Hello", True)


async def test_it_streams_like_a_completion(connected: Any) -> None:
    async with connected(state()) as client:
        response = await client.post("/infill", json={**BODY, "stream": True})
    assert response.text.count("data: ") == 3
    assert "[DONE]" not in response.text


def prompt_of(gap: Gap, n_ctx: int, special: SpecialIds, max_tokens: int = -1) -> list[int]:
    model = state(special=special).model
    return fill_in_prompt(model, gap, n_ctx, max_tokens)


def test_other_files_come_first() -> None:
    gap = Gap("ab", "yz", [ExtraFile("one", "1.py"), ExtraFile("two")])
    name = [REP, *ids("myproject\n")]
    files = [SEP, *ids("1.py\none"), SEP, *ids("tmp\ntwo"), SEP, *ids("filename\n")]
    middle = [PRE, *ids("ab"), SUF, *ids("yz"), MID]
    assert prompt_of(gap, 4000, REPO) == [*name, *files, *middle]
    # without tokens for files
    snippet = ids("\n\n--- snippet ---\n\n")
    assert prompt_of(gap, 4000, FILL_IN) == [*snippet, *ids("one"), *snippet, *ids("two"), *middle]


def test_of_too_much_the_nearest_is_taken() -> None:
    prefix, suffix = "a" * 5000 + "b" * 1536, "y" * 510 + "z" * 5000
    middle = [PRE, *ids("b" * 1536), SUF, *ids("y" * 510), MID]
    assert prompt_of(Gap(prefix, suffix), 8000, FILL_IN) == middle
    # 4000 - 2048 - 2 * 900 = 152 tokens are left for other files
    gap = Gap(prefix, suffix, [ExtraFile("d" * 100), ExtraFile("e" * 100 + "f" * 143)])
    assert prompt_of(gap, 4000, REPO, 900) == [*ids("f" * 142), SEP, *ids("filename\n"), *middle]
    assert prompt_of(gap, 4000, REPO, 3000) == middle


@pytest.mark.parametrize("n_ctx", [16, 64, 256, 2048, 5000])
@pytest.mark.parametrize("begun", ["", "c" * 3])
def test_whatever_the_text_the_prompt_fits(n_ctx: int, begun: str) -> None:
    gap = Gap("a" * 9000, "z" * 9000, [ExtraFile("d" * 9000)], begun)
    prompt = prompt_of(gap, n_ctx, REPO)
    assert len(prompt) < n_ctx
    assert prompt[-1] == MID


@pytest.mark.parametrize(
    ("special", "message"),
    [
        (SpecialIds(), "prefix token is missing. suffix token is missing. middle token is missing."),
        (dataclasses.replace(FILL_IN, fim_mid=None), "by this model: middle token is missing."),
    ],
)
async def test_a_model_that_cant(connected: Any, special: SpecialIds, message: str) -> None:
    async with connected(state(special=special)) as client:
        response = await client.post("/infill", json={})
    assert (response.status_code, response.json()["error"]["type"]) == (501, "not_supported_error")
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_prefix": None}, "Field 'input_prefix': expected a string, got null"),
        ({"input_suffix": 5}, "Field 'input_suffix': expected a string, got 5"),
        ({"input_extra": "a"}, "Field 'input_extra': expected an array"),
        ({"input_extra": [{"filename": "a"}]}, "missing, but required"),
        ({"input_extra": [{"text": 5}]}, "Field 'input_extra[0].text': expected a string"),
        ({"input_extra": [{"text": "", "filename": 5}]}, "Field 'input_extra[0].filename'"),
        ({"prompt": ["a"]}, "Field 'prompt': expected a string"),
    ],
)
async def test_what_is_wrong_is_named(connected: Any, change: dict[str, Any], message: str) -> None:
    async with connected(state()) as client:
        response = await client.post("/infill", json=BODY | change)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


async def test_both_sides_are_required(connected: Any) -> None:
    async with connected(state()) as client:
        response: httpx.Response = await client.post("/infill", json={"input_prefix": "a"})
    assert response.json()["error"]["message"] == "Field 'input_suffix': missing, but required"
