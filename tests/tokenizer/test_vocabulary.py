"""Vocabulary: types, bytes, roles, and the rules for BOS and EOS."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from corral.errors import ModelFileError
from corral.tokenizer.token_type import TokenType
from corral.tokenizer.vocabulary import Vocabulary

NORMAL, CONTROL, USER_DEFINED = TokenType.NORMAL, TokenType.CONTROL, TokenType.USER_DEFINED


def test_pieces_of_spm(spm: Any) -> None:
    vocab = Vocabulary(spm([("<tool>", USER_DEFINED), ("▁x▁", USER_DEFINED), ("dead", TokenType.UNUSED)]))
    id = {text.decode(): id for id, text in enumerate(vocab.texts)}
    assert vocab.piece(id["▁ab"]) == b" ab"
    assert vocab.piece(id["<0x0A>"]) == b"\n"
    assert vocab.piece(id["<0xFF>"]) == b"\xff"
    assert vocab.piece(id["<tool>"]) == b"<tool>"
    assert vocab.piece(id["▁x▁"]) == "▁x▁".encode()  # user-defined tokens are spelled as they are
    assert vocab.piece(id["dead"]) == b""
    for control in ("<unk>", "<s>"):
        assert vocab.piece(id[control]) == b""
        assert vocab.piece(id[control], special=True) == control.encode()


def test_pieces_of_byte_level_bpe(bpe: Any) -> None:
    vocab = Vocabulary(
        bpe([("<end>", CONTROL), ("Ġ<tag>", USER_DEFINED), ("‼", NORMAL), (b"\xff\xfe", NORMAL)])
    )
    id = {text: id for id, text in enumerate(vocab.texts)}
    assert vocab.piece(id["Ġab".encode()]) == b" ab"
    assert vocab.piece(id["Ã©".encode()]) == "é".encode()
    assert vocab.piece(id["Ġ<tag>".encode()]) == "Ġ<tag>".encode()
    assert vocab.piece(id["‼".encode()]) == "‼".encode()  # not of the alphabet: itself
    assert vocab.piece(id[b"\xff\xfe"]) == b"\xff\xfe"
    assert {vocab.piece(byte) for byte in range(256)} == {bytes([byte]) for byte in range(256)}


def test_decode_and_table(bpe: Any) -> None:
    vocab = Vocabulary(bpe([("<end>", CONTROL)]))
    end = len(vocab) - 1
    ids = [vocab.ids[b"ab"], end, vocab.ids["Ġa".encode()]]
    assert vocab.decode(ids) == b"ab a"
    assert vocab.decode(ids, special=True) == b"ab<end> a"
    assert vocab.token_bytes_table() == [vocab.piece(id) for id in range(len(vocab))]
    assert vocab.token_text(vocab.ids["Ġa".encode()]) == "Ġa"


@pytest.mark.parametrize("id", [-1, 10_000])
def test_an_id_out_of_range_is_named(bpe: Any, id: int) -> None:
    vocab = Vocabulary(bpe())
    for call in (vocab.piece, vocab.token_type, vocab.token_text, lambda id: vocab.decode([id])):
        with pytest.raises(IndexError, match=f"token id is {id}, expected 0 to {len(vocab) - 1}"):
            call(id)


@pytest.mark.parametrize(
    ("keys", "add_bos", "add_eos"),
    [
        ({}, True, False),
        ({"add_bos_token": False}, False, False),
        ({"add_eos_token": True}, True, True),
    ],
)
def test_bos_and_eos_of_spm(spm: Any, keys: dict[str, Any], add_bos: bool, add_eos: bool) -> None:
    vocab = Vocabulary(spm(**keys))
    assert (vocab.add_bos, vocab.add_eos) == (add_bos, add_eos)
    assert (vocab.special.bos, vocab.special.eos, vocab.special.unk) == (1, 2, 0)


@pytest.mark.parametrize(
    ("pre", "keys", "add_bos"),
    [
        ("gpt-2", {"bos_token_id": 5}, False),
        ("gpt-2", {"bos_token_id": 5, "add_bos_token": True}, True),
        ("llama-bpe", {"bos_token_id": 5}, True),
        ("tekken", {"bos_token_id": 5}, True),
        ("llama-bpe", {"bos_token_id": 5, "add_bos_token": False}, False),
        ("gemma4", {"bos_token_id": 5, "add_bos_token": False}, True),
        ("llama-bpe", {}, False),
    ],
)
def test_bos_of_bpe(bpe: Any, pre: str, keys: dict[str, Any], add_bos: bool) -> None:
    assert Vocabulary(bpe(pre=pre, **keys)).add_bos is add_bos


def test_no_ids_are_made_up_for_bpe(bpe: Any) -> None:
    special = Vocabulary(bpe()).special
    assert (special.bos, special.eos, special.unk, special.pad) == (None, None, None, None)


def test_roles_by_key_and_by_text(bpe: Any) -> None:
    more = [
        ("<|fim_prefix|>", CONTROL),
        ("<|fim_suffix|>", CONTROL),
        ("<|im_end|>", CONTROL),
        ("<pad>", CONTROL),
    ]
    file = bpe(more)
    first = len(file.raw_strings("tokenizer.ggml.tokens")) - len(more)
    vocab = Vocabulary(bpe(more, eos_token_id=7, padding_token_id=first + 3, suffix_token_id=9))
    special = vocab.special
    assert (special.fim_pre, special.fim_suf, special.eot) == (first, 9, first + 2)
    assert (special.eos, special.pad) == (7, first + 3)
    assert vocab.eog_ids == {7, first + 2}


def test_an_id_outside_the_vocabulary_is_ignored_with_a_warning(bpe: Any) -> None:
    vocab = Vocabulary(bpe(eos_token_id=99_999))
    assert vocab.special.eos is None
    assert any("eos_token_id is 99999" in warning for warning in vocab.warnings)


@pytest.mark.parametrize(
    ("more", "ends"),
    [
        ([("<|eot_id|>", CONTROL), ("<|eom_id|>", CONTROL), ("<|start_header_id|>", CONTROL)], {0, 1}),
        ([("<end_of_turn>", USER_DEFINED)], {0}),
        ([("<|im_end|>", NORMAL)], {0}),
        # an HTML tag, but where <s> is a control token
        ([("</s>", NORMAL)], set()),
        ([("</s>", USER_DEFINED), ("<s>", USER_DEFINED)], set()),
        ([("</s>", USER_DEFINED), ("<s>", CONTROL)], {0}),
        ([("</s>", CONTROL)], {0}),
        # gpt-oss: <|end|> ends a message
        ([("<|end|>", CONTROL)], {0}),
        ([("<|end|>", CONTROL), ("<|return|>", CONTROL), ("<|call|>", CONTROL)], {1, 2}),
    ],
)
def test_ends_of_generation(bpe: Any, more: list[tuple[str, int]], ends: set[int]) -> None:
    vocab = Vocabulary(bpe(more))
    first = len(vocab) - len(more)
    assert {id - first for id in vocab.eog_ids} == ends
    for id in vocab.eog_ids:
        assert vocab.is_control(id)


def test_a_marker_marked_as_text_becomes_control_with_a_warning(
    bpe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "corral.tokenizer"):
        vocab = Vocabulary(bpe([("<|im_end|>", NORMAL)]))
    assert vocab.is_control(len(vocab) - 1)
    assert vocab.piece(len(vocab) - 1) == b""
    (warning,) = vocab.warnings
    assert "'<|im_end|>' is marked as ordinary text" in warning
    assert warning in caplog.text


def test_channel_markers_are_shown(bpe: Any) -> None:
    vocab = Vocabulary(bpe([("<|channel|>", CONTROL)]))
    assert vocab.token_type(len(vocab) - 1) is TokenType.USER_DEFINED
    assert vocab.piece(len(vocab) - 1) == b"<|channel|>"


@pytest.mark.parametrize(("pre", "warned"), [("gpt-2", False), ("nonsense", True), ("", True)])
def test_an_unknown_pre_tokenizer_is_a_warning(
    bpe: Any, caplog: pytest.LogCaptureFixture, pre: str, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING, "corral.tokenizer"):
        vocab = Vocabulary(bpe(pre=pre))
    assert any("tokenizer.ggml.pre" in warning for warning in vocab.warnings) is warned
    assert ("tokenizer.ggml.pre" in caplog.text) is warned


def test_the_pre_tokenizer_does_not_matter_to_spm(spm: Any) -> None:
    assert Vocabulary(spm(pre="nonsense")).warnings == ()


def test_empty_and_repeated_tokens(bpe: Any) -> None:
    vocab = Vocabulary(bpe([("", NORMAL), ("ab", NORMAL)]))
    assert vocab.token_text(len(vocab) - 2) == f"[EMPTY_{len(vocab) - 2}]"
    assert vocab.ids[b"ab"] == len(vocab) - 1
    assert any("more than once" in warning for warning in vocab.warnings)


@pytest.mark.parametrize(
    ("model", "tokens", "keys", "message"),
    [
        ("t5", [("a", 1)], {}, "tokenizer.ggml.model is 't5', expected one of llama, gpt2, gemma4"),
        ("llama", [], {}, "tokenizer.ggml.tokens is empty"),
        (
            "llama",
            [("a", 1), ("b", 1)],
            {"scores": [0.0]},
            "length of tokenizer.ggml.scores is 1, expected 2",
        ),
        ("llama", [("a", 1)], {"add_bos_token": 1}, "tokenizer.ggml.add_bos_token"),
        ("llama", [("a", 1)], {"bos_token_id": "one"}, "tokenizer.ggml.bos_token_id"),
    ],
)
def test_errors_name_the_field(
    gguf: Any, model: str, tokens: list[tuple[str, int]], keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelFileError, match=message.replace(".", r"\.")):
        Vocabulary(gguf(model, tokens, keys))
