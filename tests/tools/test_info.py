"""`corral info`."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import TRAIN_CTX, write_toy_model

from corral.config import EngineConfig, ModelConfig
from corral.engine.load import load
from corral.errors import ModelFileError
from corral.gguf.types import GGMLType
from corral.gguf.writer import GGUFWriter
from corral.system.budget import mib
from corral.tools import info

KV_PER_TOKEN = 2 * 2 * 2 * 16 * 2
"""Of the toy model: keys and values of two layers, two heads of 16, two bytes each."""


@pytest.fixture
def writer(tmp_path: Path) -> GGUFWriter:
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add("general.name", "toy \x1b[31mred")
    writer.add("general.file_type", 15)
    writer.add("llama.context_length", 1000)
    writer.add("llama.embedding_length", 64)
    writer.add("llama.block_count", 2)
    writer.add("llama.attention.head_count", 2)
    writer.add("llama.attention.head_count_kv", 1)
    writer.add("llama.nan", math.nan)
    writer.add("tokenizer.ggml.model", "gpt2")
    writer.add("tokenizer.ggml.pre", "smollm")
    writer.add("tokenizer.ggml.tokens", [f"t{index}" for index in range(100)])
    writer.add("tokenizer.chat_template", "{{ messages }}\nline two")
    writer.add_tensor("a", np.zeros((4, 64), np.float32), GGMLType.Q8_0)
    writer.add_tensor("b", np.zeros((2, 64), np.float32), GGMLType.Q8_0)
    writer.add_tensor("c", np.zeros(64, np.float32))
    return writer


def _run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    info.add_arguments(parser)
    return info.run(parser.parse_args([str(word) for word in words]))


def _json(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    assert _run(*words, "--json") == 0
    report: dict[str, Any] = json.loads(
        capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")
    )
    return report


def test_model_and_metadata(writer: GGUFWriter, capsys: pytest.CaptureFixture[str]) -> None:
    path = writer.write()[0]
    report = _json(capsys, path)
    assert report["files"] == [str(path)]
    assert report["file_bytes"] == path.stat().st_size
    assert report["model"] == {
        "architecture": "llama",
        "name": "toy \x1b[31mred",
        "file_type": "Q4_K - Medium",
        "context_length": 1000,
        "embedding_length": 64,
        "block_count": 2,
        "tokenizer": "gpt2",
        "pre_tokenizer": "smollm",
        "vocabulary": 100,
        "chat_template": True,
    }
    tokens = report["metadata"]["tokenizer.ggml.tokens"]
    assert tokens == {"type": "STRING", "count": 100, "first": ["t0", "t1", "t2", "t3", "t4", "t5"]}
    assert report["metadata"]["llama.nan"] == "nan"


def test_tensors_by_type(writer: GGUFWriter, capsys: pytest.CaptureFixture[str]) -> None:
    report = _json(capsys, writer.write()[0])
    q8 = 6 * 64 // 32 * 34
    assert report["tensors"]["by_type"] == [
        {"type": "Q8_0", "count": 2, "parameters": 384, "bytes": q8, "bits_per_weight": 8.5},
        {"type": "F32", "count": 1, "parameters": 64, "bytes": 256, "bits_per_weight": 32.0},
    ]
    total = report["tensors"]["total"]
    assert (total["count"], total["parameters"], total["bytes"]) == (3, 448, q8 + 256)


@pytest.mark.parametrize(
    ("words", "tokens", "each"),
    [
        ((), TRAIN_CTX, TRAIN_CTX),
        (("--ctx-size", "0"), TRAIN_CTX, TRAIN_CTX),
        (("-c", "300", "-np", "4"), 300, 75),
    ],
)
def test_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], tokens: int, each: int
) -> None:
    report = _json(capsys, write_toy_model(tmp_path / "toy.gguf"), *words)
    memory = report["memory"]
    assert report["refused"] is None
    assert memory["kv_bytes_per_token"] == KV_PER_TOKEN
    assert (memory["ctx_size"], memory["ctx_size_per_request"]) == (tokens, each)
    assert memory["kv_cache"] == KV_PER_TOKEN * tokens
    parts = ("weights", "kv_cache", "activations", "processes")
    assert memory["total"] == sum(memory[part] for part in parts)
    assert min(memory[part] for part in parts) > 0


@pytest.mark.native
def test_memory_is_what_the_server_plans_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_toy_model(tmp_path / "toy.gguf")
    told: list[str] = []
    config = EngineConfig(ctx_size=4096, parallel=2)
    load(ModelConfig(path=str(path)), config, lambda _, message: told.append(message))
    memory = _json(capsys, path, "-c", "4096", "-np", "2")["memory"]
    sizes = {
        "weights": memory["weights"],
        "KV cache": memory["kv_cache"],
        "activations": memory["activations"],
        "processes": memory["processes"],
        "=": memory["total"],
    }
    for name, size in sizes.items():
        assert f"{name} {mib(size)}" in told[0], told[0]


def test_a_model_that_is_not_served_is_told_so(
    writer: GGUFWriter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    path = writer.write()[0]
    assert _run(path) == 0
    assert f"corral serve refuses it: {path}: " in capsys.readouterr().out


def test_what_the_file_does_not_say_is_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = GGUFWriter(tmp_path / "m.gguf", "clip").write()[0]
    report = _json(capsys, path)
    assert report["model"]["vocabulary"] is None
    assert report["model"]["chat_template"] is False
    assert "general.architecture is 'clip', expected one of" in report["refused"]
    assert report["memory"]["total"] is None
    assert report["tensors"]["total"]["bits_per_weight"] is None
    assert _run(path) == 0


def test_shards_count_as_one(writer: GGUFWriter, capsys: pytest.CaptureFixture[str]) -> None:
    paths = writer.write(tensors_per_shard=1)
    report = _json(capsys, paths[0])
    assert report["files"] == [str(path) for path in paths]
    assert report["file_bytes"] == sum(path.stat().st_size for path in paths)
    assert report["tensors"]["total"]["count"] == 3


def test_table_is_readable_and_steers_no_terminal(
    writer: GGUFWriter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert _run(writer.write()[0]) == 0
    out = capsys.readouterr().out
    for part in ("Q4_K - Medium", r"toy \x1b[31mred", "[t0, t1, t2, t3, t4, t5, ...]  100 STRING", "8.50"):
        assert part in out
    assert r"{{ messages }}\nline two" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("words", [("--ctx-size", "-1"), ("--ctx-size", "many"), ("--parallel", "0")])
def test_wrong_arguments_are_named(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        _run(tmp_path, *words)
    assert f"{words[1]!r}, expected a whole number, at least" in capsys.readouterr().err


def test_a_wrong_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="file is missing"):
        _run(tmp_path / "absent.gguf")
