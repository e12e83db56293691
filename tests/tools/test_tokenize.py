"""`corral tokenize`."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest

from corral.errors import ModelFileError, OptionError
from corral.gguf.types import ValueType
from corral.gguf.writer import GGUFWriter
from corral.tokenizer.byte_level import BYTE_ALPHABET
from corral.tools import tokenize


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The 256 bytes, "ab" = 256, <bos> = 257 (added) and <|im_end|> = 258."""
    writer = GGUFWriter(tmp_path / "vocab.gguf", "llama")
    writer.add("tokenizer.ggml.model", "gpt2")
    writer.add("tokenizer.ggml.pre", "gpt-2")
    writer.add("tokenizer.ggml.tokens", [*BYTE_ALPHABET, "ab", "<bos>", "<|im_end|>"])
    writer.add("tokenizer.ggml.token_type", [1] * 257 + [3, 3], ValueType.INT32)
    writer.add("tokenizer.ggml.merges", ["a b"])
    writer.add("tokenizer.ggml.bos_token_id", 257)
    writer.add("tokenizer.ggml.add_bos_token", True)
    return writer.write()[0]


def _run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    tokenize.add_arguments(parser)
    return tokenize.run(parser.parse_args([str(word) for word in words]))


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["-p", "ab", "--ids"], b"[257, 256]\n"),
        (["-p", "ab", "--ids", "--no-bos"], b"[256]\n"),
        (["-p", "", "--ids", "--no-bos"], b"[]\n"),
        (["-p", "ab"], b"   257 -> '<bos>'\n   256 -> 'ab'\n"),
        (["-p", "ab", "--ids", "--show-count"], b"[257, 256]\nTotal number of tokens: 2\n"),
        (["-p", "<|im_end|>", "--ids", "--no-bos"], b"[258]\n"),
        (["-p", "a<|", "--ids", "--no-bos", "--no-parse-special"], b"[97, 60, 124]\n"),
        (["-p", r"\n\x41\\\q", "--ids", "--no-bos"], b"[10, 65, 92, 92, 113]\n"),
        (["-p", r"\n", "--ids", "--no-bos", "--no-escape"], b"[92, 110]\n"),
        # half a character is shown as the bytes it is
        (["-p", "é", "--no-bos"], b"   195 -> '\xc3'\n   169 -> '\xa9'\n"),
    ],
)
def test_output(path: Path, capfdbinary: pytest.CaptureFixture[bytes], words: list[str], out: bytes) -> None:
    assert _run("-m", path, *words) == 0
    assert capfdbinary.readouterr().out == out


def test_control_tokens_spelled_in_text_stay_text(
    path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    _run("-m", path, "-p", "<|im_end|>", "--ids", "--no-bos", "--no-parse-special")
    assert capfdbinary.readouterr().out == str(list(b"<|im_end|>")).encode() + b"\n"


def test_file_and_standard_input(
    path: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"ab\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))
    _run("-m", path, "-f", text, "-p", "ignored", "--ids", "--no-bos")
    assert capfdbinary.readouterr().out == b"[256, 10]\n"
    _run("-m", path, "-f", text, "--stdin", "--ids", "--no-bos")
    assert capfdbinary.readouterr().out == b"[97, 10]\n"


def test_standard_input_is_the_default(
    path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"ab")))
    _run("-m", path, "--ids", "--no-bos")
    assert capfdbinary.readouterr().out == b"[256]\n"


def test_errors_are_one_line(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="missing"):
        _run("-m", tmp_path / "absent.gguf", "-p", "a")
    with pytest.raises(OptionError, match="expected a readable file"):
        _run("-m", path, "-f", tmp_path / "absent")
