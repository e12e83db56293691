"""The table of pre-tokenizers."""

from __future__ import annotations

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from corral.tokenizer.bpe import splitter
from corral.tokenizer.pretokenizers import PRE_TOKENIZERS, find_pre_tokenizer

SAMPLE = (
    "Hello  World, it's HTTPServer I'LL don't 12345.678 1,000\t\n\n  ÉCOLE naïve\u0301 Straße \r\n"
    "你好，世界。 こんにちは 안녕 नमस्ते สวัสดี ١٢٣ Ⅷ ½ 😀👩‍👩‍👧 \u00a0\u3000x_y <|tag|> [a] `b` ~ € -- ... "
    "IMGIMGABZ <sentinel:3> \x00\x1b\ufffd  "
)


def _pieces(name: str, text: str) -> list[str]:
    """The pieces of `text` before they are spelled in bytes."""
    pieces = [text]
    for pattern in PRE_TOKENIZERS[name].patterns:
        split = Split(Regex(pattern), "isolated")
        pieces = [piece for whole in pieces for piece, _ in split.pre_tokenize_str(whole)]
    return pieces


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_lossless(name: str) -> None:
    assert "".join(_pieces(name, SAMPLE)) == SAMPLE
    assert len(_pieces(name, SAMPLE)) > 1


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_splitter_follows_the_table(name: str) -> None:
    spans = [span for _, span in splitter(PRE_TOKENIZERS[name]).pre_tokenize_str(SAMPLE)]
    assert [SAMPLE[start:end] for start, end in spans] == _pieces(name, SAMPLE)


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt-2", "It's 123  ok\n", ["It", "'s", " 123", " ", " ok", "\n"]),
        ("gpt-2", "I'LL", ["I", "'", "LL"]),
        ("llama-bpe", "I'LL 12345\n\n x", ["I", "'LL", " ", "123", "45", "\n\n", " x"]),
        ("llama-bpe", "a'\u017f", ["a", "'\u017f"]),
        ("qwen2", "123 a!!\n", ["1", "2", "3", " a", "!!\n"]),
        ("qwen35", "e\u0301t", ["e\u0301t"]),
        ("qwen2", "e\u0301t", ["e", "\u0301t"]),
        ("smollm", "a12 b", ["a", "1", "2", " b"]),
        ("gpt-4o", "HelloWorld's ÉCOLE", ["Hello", "World's", " ÉCOLE"]),
        ("tekken", "HelloWorld's 12", ["Hello", "World", "'s", " ", "1", "2"]),
        ("kimi-k2", "你好HelloWorld", ["你好", "Hello", "World"]),
        ("deepseek-v3", "12345你好abc", ["123", "45", "你好", "abc"]),
        ("deepseek-llm", "a 12b\n", ["a", " ", "12", "b", "\n"]),
        ("falcon", "12345", ["123", "45"]),
        ("command-r", "12 x", ["1", "2", " x"]),
        ("superbpe", "ab 1234567 cd", ["ab ", "1", "234", "567", " cd"]),
        ("tiny_aya", "12345 x", ["12", "345", " x"]),
        ("afmoe", "12345 12", ["12", "345", " ", "12"]),
        ("viking", "a12 b.", ["a", "1", "2", " b", "."]),
        ("gemma4", "a b\n\nc", ["a b", "\n\n", "c"]),
        ("default", "12345 it's", ["123", "45", " it", "'", "s"]),
    ],
)
def test_pieces(name: str, text: str, pieces: list[str]) -> None:
    assert _pieces(name, text) == pieces


@pytest.mark.parametrize("name", ["superbpe", "tiny_aya", "afmoe"])
def test_digits_are_aligned_up_to_300(name: str) -> None:
    assert _pieces(name, "7" * 299) == ["77"] + ["777"] * 99


@pytest.mark.parametrize(("name", "words"), [("nonsense", "'nonsense' is unknown"), ("", "is missing")])
def test_the_default_stands_in_for_an_unknown_name(name: str, words: str) -> None:
    row, problem = find_pre_tokenizer(name)
    assert row is PRE_TOKENIZERS["default"]
    assert words in problem


def test_a_known_name_is_no_problem() -> None:
    assert find_pre_tokenizer("qwen2") == (PRE_TOKENIZERS["qwen2"], "")
