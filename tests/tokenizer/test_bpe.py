"""BpeTokenizer against the obvious way to merge by rank."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.errors import ModelFileError
from corral.tokenizer import bpe as bpe_module
from corral.tokenizer.token_type import TokenType
from corral.tokenizer.tokenizer import Tokenizer, load_tokenizer

CONTROL, USER_DEFINED, NORMAL = TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.NORMAL


def _texts(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tokenizer.token_text(id) for id in tokenizer.encode(text, **options)]


def _obvious(merges: list[tuple[str, str]], word: str) -> list[str]:
    """Join the neighbours of the lowest rank, the leftmost of equals, until none is left."""
    symbols = list(word)
    while True:
        pairs = [
            (merges.index(pair), index) for index, pair in enumerate(pairwise(symbols)) if pair in merges
        ]
        if not pairs:
            return symbols
        index = min(pairs)[1]
        symbols[index : index + 2] = ["".join(symbols[index : index + 2])]


@pytest.mark.parametrize(
    ("pre", "text", "tokens"),
    [
        ("gpt-2", "abc ab", ["abc", "Ġab"]),
        ("gpt-2", "123", ["123"]),
        ("qwen2", "123", ["1", "2", "3"]),
        ("gpt-2", "é", ["Ã©"]),
        ("gpt-2", "\n\n", ["ĊĊ"]),
        ("gpt-2", "aaaaa", ["aaaa", "a"]),
        ("gpt-2", "\0\x7f", ["Ā", "ġ"]),
        ("gpt-2", "", []),
    ],
)
def test_encode(bpe: Any, pre: str, text: str, tokens: list[str]) -> None:
    tokenizer = load_tokenizer(bpe(pre=pre))
    assert _texts(tokenizer, text) == tokens
    assert tokenizer.decode(tokenizer.encode(text)) == text.encode()


@pytest.mark.parametrize(("pre", "tokens"), [("gpt-2", ["c", "ab"]), ("llama-bpe", ["cab"])])
def test_ignore_merges(bpe: Any, pre: str, tokens: list[str]) -> None:
    assert _texts(load_tokenizer(bpe([("cab", NORMAL)], pre=pre)), "cab") == tokens


def test_special_tokens(bpe: Any) -> None:
    more = [("<tool>", USER_DEFINED), ("<|im_end|>", CONTROL), ("[UNK]", TokenType.UNKNOWN)]
    tokenizer = load_tokenizer(bpe(more))
    text = "ab<tool> ab<|im_end|>[UNK]"
    assert _texts(tokenizer, text) == ["ab", "<tool>", "Ġab", "<|im_end|>", "[UNK]"]
    plain = tokenizer.encode(text, parse_special=False)
    assert [tokenizer.token_text(id) for id in plain[:3]] == ["ab", "<tool>", "Ġab"]
    assert not any(tokenizer.token_type(id) in (CONTROL, TokenType.UNKNOWN) for id in plain)
    assert tokenizer.decode(plain) == text.encode()


def test_bos_and_eos(bpe: Any) -> None:
    keys = {"bos_token_id": 0, "eos_token_id": 1, "add_bos_token": True, "add_eos_token": True}
    tokenizer = load_tokenizer(bpe(**keys))
    assert tokenizer.encode("") == [0, 1]
    inner = tokenizer.encode("abc", add_special=False)
    assert tokenizer.encode("abc") == [0, *inner, 1]


def test_bytes_without_a_token_are_dropped_and_keep_their_neighbours_apart(bpe: Any) -> None:
    tokenizer = load_tokenizer(bpe(drop=frozenset("!")))
    assert _texts(tokenizer, "1!2 12") == ["1", "2", "Ġ", "12"]


def test_merges_of_tokens_that_are_not_there(bpe: Any) -> None:
    tokenizer = load_tokenizer(bpe(merges=["a b", "x y", "nonsense", "ab c"]))
    assert _texts(tokenizer, "abcxy") == ["abc", "x", "y"]
    assert tokenizer.warnings == ("2 of 4 merges name tokens that are not there",)


def test_merges_are_needed(gguf: Any) -> None:
    with pytest.raises(ModelFileError, match=r"tokenizer\.ggml\.merges is missing"):
        load_tokenizer(gguf("gpt2", [("a", NORMAL)], {"pre": "gpt-2"}))


def test_gemma4_merges_characters_and_falls_back_to_bytes(gguf: Any) -> None:
    tokens = [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    tokens += [(text, NORMAL) for text in ("▁", "a", "b", "▁a", "ab", "é", "\n", "\n\n")]
    tokens += [("<bos>", CONTROL)]
    keys = {"merges": ["▁ a", "a b", "\n \n"], "bos_token_id": len(tokens) - 1}
    tokenizer = load_tokenizer(gguf("gemma4", tokens, keys))
    assert tokenizer.pre == "gemma4"
    assert _texts(tokenizer, "ab a é\n\nx") == [
        "<bos>", "ab", "▁a", "▁", "é", "\n\n", "<0x78>",
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("ab a é\n\nx€")) == "ab a é\n\nx€".encode()


def test_an_absurdly_long_run_is_cut(bpe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe_module, "_MAX_TEXT", 10)
    tokenizer = load_tokenizer(bpe([("<tool>", USER_DEFINED)]))
    text = "a" * 25 + "<tool>b"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.encode()
    assert [tokenizer.token_text(id) for id in ids[:3]] == ["aaaa", "aaaa", "aa"]


def test_threads_get_the_same_ids(bpe: Any) -> None:
    tokenizer = load_tokenizer(bpe())
    text = "abc ab 123 é\n" * 2000
    expected = tokenizer.encode(text)
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.extend(tokenizer.encode(text) == expected for _ in range(5)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 20


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    merges=st.lists(
        st.tuples(st.text("abc", min_size=1, max_size=3), st.text("abc", min_size=1, max_size=3)),
        max_size=25,
        unique=True,
    ),
    words=st.lists(st.text("abc", min_size=1, max_size=30), min_size=1, max_size=8),
)
def test_agrees_with_the_obvious_way(gguf: Any, merges: list[tuple[str, str]], words: list[str]) -> None:
    texts = dict.fromkeys([*"abc", *(part for pair in merges for part in (*pair, "".join(pair)))])
    keys = {"pre": "gpt-2", "merges": [" ".join(pair) for pair in merges] or ["a b"]}
    if not merges:
        merges, texts = [("a", "b")], {**texts, "ab": None}
    tokenizer = load_tokenizer(gguf("gpt2", [(text, NORMAL) for text in texts], keys))
    for word in words:
        assert _texts(tokenizer, word) == _obvious(merges, word)
