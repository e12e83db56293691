"""Vocabularies of a few hundred tokens, written as GGUF files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from corral.gguf.reader import GGUFFile
from corral.gguf.types import ValueType
from corral.gguf.writer import GGUFWriter
from corral.tokenizer.byte_level import BYTE_ALPHABET
from corral.tokenizer.token_type import TokenType

Vocab = Callable[..., GGUFFile]

BYTES = [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
# token, score
SPM_PIECES = {
    "▁": -1.0, "a": -2.0, "b": -3.0, "c": -4.0, "ab": -1.0, "bc": -1.0, "abc": -5.0, "▁a": -6.0, "▁▁": -7.0,
    "▁ab": -2.5, "ca": -1.0, "aa": -3.0, "aaaa": -3.0, "é": -8.0,
}  # fmt: skip
MERGES = ["a b", "b c", "ab c", "Ġ a", "Ġ ab", "c a", "a a", "aa aa", "1 2", "12 3", "Ã ©", "Ċ Ċ"]


@pytest.fixture
def gguf(tmp_path: Path) -> Vocab:
    """gguf(model, tokens=[(text, type), ...], keys={...}): a vocabulary-only file, opened."""

    def make(model: str, tokens: Sequence[tuple[str | bytes, int]], keys: Mapping[str, Any]) -> GGUFFile:
        writer = GGUFWriter(tmp_path / f"{len(list(tmp_path.iterdir()))}.gguf", "llama")
        writer.add("tokenizer.ggml.model", model)
        writer.add("tokenizer.ggml.tokens", [text for text, _ in tokens], ValueType.STRING)
        writer.add("tokenizer.ggml.token_type", [int(type) for _, type in tokens], ValueType.INT32)
        for key, value in keys.items():
            name = key if "." in key else f"tokenizer.ggml.{key}"
            writer.add(name, value, ValueType.FLOAT32 if key == "scores" else None)
        (path,) = writer.write()
        return GGUFFile.open(path)

    return make


@pytest.fixture
def spm(gguf: Vocab) -> Vocab:
    """An SPM vocabulary: <unk> <s> </s>, 256 bytes, SPM_PIECES, then `more`; `drop` takes some away."""

    def make(
        more: Sequence[tuple[str | bytes, int]] = (), drop: frozenset[str] = frozenset(), **keys: Any
    ) -> GGUFFile:
        tokens: list[tuple[str | bytes, int]] = [("<unk>", TokenType.UNKNOWN)]
        tokens += [("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
        tokens += [token for token in BYTES if token[0] not in drop]
        tokens += [(piece, TokenType.NORMAL) for piece in SPM_PIECES]
        tokens += more
        scores = [SPM_PIECES.get(text, 0.0) if isinstance(text, str) else 0.0 for text, _ in tokens]
        return gguf("llama", tokens, {"scores": scores, **keys})

    return make


@pytest.fixture
def bpe(gguf: Vocab) -> Vocab:
    """A byte-level BPE vocabulary: 256 bytes and MERGES; `more` tokens follow, `drop` takes some away."""

    def make(
        more: Sequence[tuple[str | bytes, int]] = (),
        drop: frozenset[str] = frozenset(),
        pre: str = "gpt-2",
        merges: Sequence[str] = MERGES,
        **keys: Any,
    ) -> GGUFFile:
        texts = [*BYTE_ALPHABET, *(merge.replace(" ", "") for merge in MERGES)]
        tokens: list[tuple[str | bytes, int]] = [
            (text, TokenType.NORMAL) for text in texts if text not in drop
        ]
        return gguf("gpt2", [*tokens, *more], {"pre": pre, "merges": list(merges), **keys})

    return make
