"""A model widened with zeros, so that every format fits, computes what it did."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import write_toy_model

from corral.gguf.reader import GGUFFile

WIDER = 160
"""A multiple that the toy's inner width is of, and its width is not."""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """benchmarks/ is a folder of scripts, not a package."""
    pytest.importorskip("corral._native", reason="the extension is not built")
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("runners"), importlib.import_module("widen")


def test_the_logits_stay(tmp_path: Path, scripts: tuple[Any, Any]) -> None:
    runners, widen = scripts
    tokens = [1, *range(70, 90)]
    with GGUFFile.open(write_toy_model(tmp_path / "toy.gguf")) as file:
        assert widen.widen(file, 32) is None
        runners.write_float32(file, tmp_path / "wide.gguf", widen.widen(file, WIDER))
        wanted = runners.Corral.reference(file, 64).logits(tokens, every=True)
    with GGUFFile.open(tmp_path / "wide.gguf") as file:
        assert all(tensor.shape[-1] % WIDER == 0 for tensor in file.tensors.values())
        found = runners.Corral.reference(file, 64).logits(tokens, every=True)
    assert np.abs(wanted).max() > 0.1
    assert np.abs(found - wanted).max() < 1e-5


def test_what_cant_be_widened_is_named(tmp_path: Path, scripts: tuple[Any, Any]) -> None:
    file = GGUFFile.open(write_toy_model(tmp_path / "toy.gguf"))
    with file, pytest.raises(ValueError, match=r"toy\.gguf is llama of 64 columns, 4 heads"):
        scripts[1].widen(file, 80)
