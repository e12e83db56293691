"""SpmTokenizer against the obvious way to merge by score."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.tokenizer.token_type import TokenType
from corral.tokenizer.tokenizer import Tokenizer, load_tokenizer

CONTROL, USER_DEFINED, NORMAL = TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.NORMAL


def _texts(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tokenizer.token_text(id) for id in tokenizer.encode(text, **options)]


def _obvious(scores: Mapping[str, float], text: str) -> list[str]:
    """Merge the neighbours with the best score, the leftmost of equals, until none is left; then bytes."""
    symbols = list(text.replace(" ", "▁"))
    while True:
        pairs = [(-scores[a + b], index) for index, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]
        if not pairs:
            break
        index = min(pairs)[1]
        symbols[index : index + 2] = [symbols[index] + symbols[index + 1]]
    return [
        token
        for symbol in symbols
        for token in ([symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()])
    ]


def test_byte_fallback(spm: Any) -> None:
    tokenizer = load_tokenizer(spm(add_space_prefix=False))
    assert _texts(tokenizer, "xé\n€\0", add_special=False) == [
        "<0x78>", "é", "<0x0A>", "<0xE2>", "<0x82>", "<0xAC>", "<0x00>",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "text", "tokens"),
    [
        (True, "ab", ["▁ab"]),
        (False, "ab", ["ab"]),
        (True, " ab", ["▁", "▁ab"]),
        (False, "  ab", ["▁", "▁ab"]),
        (True, "", []),
        # after a special token the text begins anew
        (True, "ab<s>ab", ["▁ab", "<s>", "▁ab"]),
        (False, "ab<s>ab", ["ab", "<s>", "ab"]),
        # white space is not folded
        (False, "a  \n  b", ["a", "▁▁", "<0x0A>", "▁▁", "b"]),
        (False, "ａ", ["<0xEF>", "<0xBD>", "<0x81>"]),
    ],
)
def test_space_prefix(spm: Any, prefix: bool, text: str, tokens: list[str]) -> None:
    tokenizer = load_tokenizer(spm(add_space_prefix=prefix))
    assert _texts(tokenizer, text, add_special=False) == tokens


def test_bos_and_eos(spm: Any) -> None:
    tokenizer = load_tokenizer(spm(add_eos_token=True))
    assert _texts(tokenizer, "ab") == ["<s>", "▁ab", "</s>"]
    assert _texts(tokenizer, "") == ["<s>", "</s>"]
    assert _texts(tokenizer, "ab", add_special=False) == ["▁ab"]
    assert _texts(load_tokenizer(spm(add_bos_token=False)), "ab") == ["▁ab"]


def test_parse_special(spm: Any) -> None:
    tokenizer = load_tokenizer(
        spm([("<tool>", USER_DEFINED), ("<|im_end|>", CONTROL)], add_space_prefix=False)
    )
    text = "a<tool><|im_end|><s><unk>"
    assert _texts(tokenizer, text, add_special=False) == ["a", "<tool>", "<|im_end|>", "<s>", "<unk>"]
    plain = tokenizer.encode(text, add_special=False, parse_special=False)
    assert [tokenizer.token_text(id) for id in plain[:2]] == ["a", "<tool>"]
    assert not any(tokenizer.is_control(id) for id in plain)
    assert tokenizer.decode(plain) == text.encode()


def test_unused_tokens_merge_like_others(spm: Any) -> None:
    tokenizer = load_tokenizer(spm([("cc", TokenType.UNUSED)], add_space_prefix=False))
    assert _texts(tokenizer, "cc", add_special=False) == ["cc"]


def test_bytes_the_vocabulary_lacks(spm: Any) -> None:
    drop = frozenset(("<0x78>", "<0x0A>"))
    tokenizer = load_tokenizer(spm([("\n", NORMAL)], drop=drop, add_space_prefix=False))
    assert _texts(tokenizer, "ax\ny", add_special=False) == ["a", "<unk>", "\n", "<0x79>"]


def test_several_unknown_empty_and_repeated_tokens(spm: Any) -> None:
    more = [("<unk2>", TokenType.UNKNOWN), ("", NORMAL), ("ab", NORMAL), ("<0x41>", NORMAL)]
    tokenizer = load_tokenizer(spm(more, add_space_prefix=False))
    ids = tokenizer.encode("abA<unk2>", add_special=False)
    assert ids == [tokenizer.vocab_size - 2, tokenizer.vocab_size - 1, tokenizer.vocab_size - 4]


def test_a_vocabulary_without_an_unknown_token(gguf: Any) -> None:
    tokens = [("a", NORMAL), ("ab", NORMAL), ("b", NORMAL)]
    tokenizer = load_tokenizer(gguf("llama", tokens, {"add_bos_token": False, "add_space_prefix": False}))
    assert tokenizer.encode("abxa", add_special=False) == [1, 0, 0]  # unknown is 0 where the file is silent


def test_white_space_after_special_tokens_of_phi3(spm: Any) -> None:
    keys = {"general.name": "Phi-3-mini"}
    tokenizer = load_tokenizer(spm([("<|end|>", CONTROL)], add_space_prefix=False, **keys))
    assert _texts(tokenizer, "a<|end|>\n b<s> b", add_special=False) == ["a", "<|end|>", "b", "<s>", "▁", "b"]


def test_lone_surrogates(spm: Any) -> None:
    tokenizer = load_tokenizer(spm(add_space_prefix=False))
    assert tokenizer.decode(tokenizer.encode("a\ud800b", add_special=False)) == "a\ufffdb".encode()
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00", add_special=False)) == "😀".encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    scores=st.dictionaries(st.text("abc▁", min_size=2, max_size=5), st.integers(-4, 0), max_size=25),
    texts=st.lists(st.text("abc é", max_size=40), min_size=1, max_size=8),
)
def test_agrees_with_the_obvious_way(gguf: Any, scores: dict[str, int], texts: list[str]) -> None:
    scores = {**scores, "a": -9, "b": -9, "c": -9, "▁": -9}
    tokens = [("<unk>", TokenType.UNKNOWN), *((f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256))]
    tokens += [(text, NORMAL) for text in scores]
    keys = {"scores": [0.0] * 257 + [float(score) for score in scores.values()], "add_space_prefix": False}
    tokenizer = load_tokenizer(gguf("llama", tokens, keys))
    for text in texts:
        assert _texts(tokenizer, text, add_special=False) == _obvious(scores, text)
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text.encode()
