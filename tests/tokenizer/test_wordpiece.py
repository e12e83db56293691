"""WordPieceTokenizer on a vocabulary of a few words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.tokenizer.token_type import TokenType
from corral.tokenizer.tokenizer import load_tokenizer

Vocab = Callable[..., GGUFFile]

CONTROL, NORMAL = TokenType.CONTROL, TokenType.NORMAL
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PIECES = ["▁un", "aff", "able", "▁a", "a", "aaa", "▁cafe", "▁café", "▁Cafe", "▁,", "▁!", "▁日", "▁ab", "b"]
IDS = {"unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3, "padding_token_id": 0}


def file(gguf: Vocab, **keys: Any) -> GGUFFile:
    tokens: list[Any] = [(text, CONTROL) for text in SPECIAL] + [(text, NORMAL) for text in PIECES]
    return gguf("bert", tokens, {"pre": "default", **IDS, **keys})


def pieces(file: GGUFFile, text: str, **options: bool) -> list[str]:
    tokenizer = load_tokenizer(file)
    return [tokenizer.token_text(id) for id in tokenizer.encode(text, **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("unaffable", "▁un aff able"),
        ("  un\t\nun ", "▁un ▁un"),
        ("aaaa", "▁a aaa"),  # the longest that fits, from the left
        ("aaaaaa", "▁a aaa a a"),
        ("abb", "▁ab b"),
        ("abc", "[UNK]"),  # all of the word, not its end
        ("un abc un", "▁un [UNK] ▁un"),
        ("un,un!!", "▁un ▁, ▁un ▁! ▁!"),
        ("un日un", "▁un ▁日 ▁un"),
        ("CAFÉ Cafe\u0301", "▁cafe ▁cafe"),
        ("u\0n \ufffdun", "▁un ▁un"),
        ("[CLS]un[SEP]", "[CLS] ▁un [SEP]"),
    ],
)
def test_pieces(gguf: Vocab, text: str, expected: str) -> None:
    assert pieces(file(gguf), text, add_special=False) == expected.split()


def test_cls_before_and_sep_behind(gguf: Vocab) -> None:
    assert pieces(file(gguf), "un") == ["[CLS]", "▁un", "[SEP]"]
    assert pieces(file(gguf, add_bos_token=False, add_eos_token=False), "") == ["[CLS]", "[SEP]"]


def test_special_tokens_are_text_unless_asked_for(gguf: Vocab) -> None:
    assert "[SEP]" not in pieces(file(gguf), "[SEP]", add_special=False, parse_special=False)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"lowercase": True, "strip_accents": False}, ["▁café", "▁cafe"]),
        ({"lowercase": False}, ["[UNK]", "▁Cafe"]),
        ({"lowercase": False, "strip_accents": True}, ["▁Cafe", "▁Cafe"]),
    ],
)
def test_what_the_file_says_of_case_and_accents(
    gguf: Vocab, keys: dict[str, bool], expected: list[str]
) -> None:
    keys = {f"tokenizer.ggml.normalizer.{key}": value for key, value in keys.items()}
    assert pieces(file(gguf, **keys), "Café Cafe", add_special=False) == expected


@pytest.mark.parametrize("length", [99, 100, 101, 102, 1000])
def test_a_word_may_have_any_length(gguf: Vocab, length: int) -> None:
    found = pieces(file(gguf), f"un {'a' * length} un", add_special=False)
    assert found[0] == found[-1] == "▁un"
    inner = found[1:-1]
    assert inner[0] == "▁a"
    assert sum(len(piece) for piece in inner) == length + 1
    assert set(inner[1:]) <= {"aaa", "a"}


def test_a_long_word_takes_linear_time(gguf: Vocab) -> None:
    tokenizer = load_tokenizer(file(gguf))
    start = time.perf_counter()
    ids = tokenizer.encode("b" * 50_000 + "a" * 50_000, add_special=False)
    assert time.perf_counter() - start < 2
    assert ids == [1]  # no word begins with b


def test_an_unknown_token_is_needed(gguf: Vocab) -> None:
    tokens: list[Any] = [("[CLS]", CONTROL), ("[SEP]", CONTROL), ("▁a", NORMAL)]
    keys = {"pre": "default", "unknown_token_id": 7, "cls_token_id": 0, "seperator_token_id": 1}
    with pytest.raises(ModelFileError, match="unknown_token_id"):
        load_tokenizer(gguf("bert", tokens, keys))


def test_text_of_tokens(gguf: Vocab) -> None:
    tokenizer = load_tokenizer(file(gguf))
    ids = tokenizer.encode("unaffable, cafe")
    assert tokenizer.decode(ids) == b" unaffable , cafe"
    assert tokenizer.decode(ids, special=True) == b"[CLS] unaffable , cafe[SEP]"
