"""The KV cache of one token, from metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.gguf.writer import GGUFWriter
from corral.system.memory import kv_bytes_per_token

LLAMA_2_7B = {"block_count": 32, "embedding_length": 4096, "attention.head_count": 32}


def _file(folder: Path, keys: dict[str, Any]) -> GGUFFile:
    writer = GGUFWriter(folder / "m.gguf", "llama")
    for key, value in keys.items():
        writer.add(f"llama.{key}", value)
    return GGUFFile.open(writer.write()[0])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (LLAMA_2_7B, 2 * 32 * 32 * 128 * 2),  # half a MiB, as is well known
        (LLAMA_2_7B | {"attention.head_count_kv": 8}, 2 * 32 * 8 * 128 * 2),
        (LLAMA_2_7B | {"attention.key_length": 192, "attention.value_length": 64}, 32 * 32 * (192 + 64) * 2),
        (LLAMA_2_7B | {"attention.key_length": 64}, 32 * 32 * (64 + 128) * 2),
        (
            {
                "block_count": 3,
                "embedding_length": 64,
                "attention.head_count": 4,
                "attention.head_count_kv": [2, 0, 1],
            },
            (2 + 0 + 1) * (16 + 16) * 2,
        ),
        (
            {
                "block_count": 2,
                "embedding_length": 64,
                "attention.head_count": [0, 4],
                "attention.head_count_kv": [0, 2],
            },
            2 * (16 + 16) * 2,
        ),
        ({"block_count": 24, "embedding_length": 768, "attention.head_count": 0}, 0),
        (LLAMA_2_7B | {"block_count": 2**32 - 1}, 2 * (2**32 - 1) * 32 * 128 * 2),
    ],
)
def test_kv_bytes_per_token(tmp_path: Path, keys: dict[str, Any], expected: int) -> None:
    file = _file(tmp_path, keys)
    assert kv_bytes_per_token(file) == expected
    assert kv_bytes_per_token(file, bytes_per_value=4) == 2 * expected


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "llama.block_count is missing, expected an integer"),
        ({"block_count": "32"}, "llama.block_count is '32' (STRING), expected an integer"),
        ({"block_count": -1}, "llama.block_count is -1, expected a whole number, at least 0"),
        (
            LLAMA_2_7B | {"attention.head_count_kv": [8, 8]},
            "llama.attention.head_count_kv is an array of 2, expected one number or 32, as there are layers",
        ),
        (
            LLAMA_2_7B | {"block_count": 1, "attention.head_count_kv": [0.5]},
            "llama.attention.head_count_kv is 0.5, expected a whole number, at least 0",
        ),
        (LLAMA_2_7B | {"attention.head_count_kv": True}, "head_count_kv is True (BOOL), expected an integer"),
    ],
)
def test_nonsense_is_named(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        kv_bytes_per_token(_file(tmp_path, keys))
    assert message in str(caught.value)


@pytest.mark.model
def test_real_models(smollm2_path: Path, gemma3_path: Path) -> None:
    assert kv_bytes_per_token(GGUFFile.open(smollm2_path)) == 2 * 30 * 3 * 64 * 2
    assert kv_bytes_per_token(GGUFFile.open(gemma3_path)) == 2 * 18 * 1 * 256 * 2
