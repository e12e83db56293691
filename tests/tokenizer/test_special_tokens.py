"""SpecialTokens: the fast way agrees with the obvious one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.tokenizer.special_tokens import SpecialTokens


def _obvious(texts: dict[str, int], text: str) -> list[str | int]:
    """Longest token first, each cutting what the longer ones left."""
    parts: list[str | int] = [text]
    for token in sorted(texts, key=len, reverse=True):
        cut: list[str | int] = []
        for part in parts:
            if isinstance(part, int):
                cut.append(part)
                continue
            first, *rest = part.split(token)
            cut.append(first)
            for raw in rest:
                cut += [texts[token], raw]
        parts = cut
    return [part for part in parts if part != ""]


@pytest.mark.parametrize(
    ("tokens", "text", "parts"),
    [
        (["<s>", "</s>"], "a<s>b</s>", ["a", 0, "b", 1]),
        (["<s>"], "<s><s>", [0, 0]),
        (["<s>"], "<s", ["<s"]),
        (["<s>"], "", []),
        ([], "text", ["text"]),
        ([], "", []),
        # the longest wins, a shorter one takes what is left
        (["\n", "\n\n", "\n\n\n"], "\n\n\n\n\n", [2, 1]),
        (["<a", "<a>"], "<a><a", [1, 0]),
        # the longer of two that overlap wins, though it begins later
        (["ab", "bcd"], "abcd", ["a", 1]),
        # what a pattern could mean is text
        (["[a]", ".*", "\\d"], "a[a].*\\d", ["a", 0, 1, 2]),
    ],
)
def test_split(tokens: list[str], text: str, parts: list[str | int]) -> None:
    assert SpecialTokens({token: id for id, token in enumerate(tokens)}).split(text) == parts


@given(
    st.lists(st.text("ab<>", min_size=1, max_size=4), unique_by=len),
    st.text("ab<>", max_size=30),
)
def test_agrees_with_the_obvious_way(tokens: list[str], text: str) -> None:
    texts = {token: id for id, token in enumerate(tokens)}
    assert SpecialTokens(texts).split(text) == _obvious(texts, text)


@given(st.sets(st.integers(1, 9), min_size=1), st.text("\nx", max_size=60))
def test_runs_agree_with_the_obvious_way(lengths: set[int], text: str) -> None:
    texts = {"\n" * length: length for length in lengths}
    assert SpecialTokens(texts).split(text) == _obvious(texts, text)


def test_white_space_around_a_token_goes_where_the_token_asks() -> None:
    tokens = {"<mask>": 1, "<end>": 2, "<plain>": 3}
    special = SpecialTokens(tokens, lstrip=frozenset({1}), rstrip=frozenset({2}))
    assert special.split("a \n<mask> b <end>\t\n c <plain> d") == ["a", 1, " b ", 2, "c ", 3, " d"]
    assert special.split("<end> \n<mask>") == [2, 1]


@pytest.mark.slow
def test_a_vocabulary_of_very_long_nested_tokens() -> None:
    special = SpecialTokens({"\t" * length: length for length in range(1, 1000)})
    assert special.split("\t" * 5000) == [999] * 5 + [5]
