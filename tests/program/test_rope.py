"""Rotary frequencies: by the formulas, by the flags, and the flags through to the Program."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corral.command_line import parse
from corral.config import build
from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.gguf.writer import GGUFWriter
from corral.program.rope import RopeConfig

DIMS = 64
CONTEXT = 2048
LONGER = 1 + 0.1 * math.log(4)
"""Magnitude of YaRN for a context of four times the length."""
PLAIN = 10000.0 ** (-np.arange(0, DIMS, 2) / DIMS)


def read(tmp_path: Path, line: str = "", **keys: Any) -> RopeConfig:
    """The frequencies of a file with these keys, served with these flags."""
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add("llama.context_length", CONTEXT)
    for key, value in keys.items():
        writer.add("llama.rope." + key.replace("__", "."), value)
    (path,) = writer.write()
    model, _, _ = build(parse(shlex.split(f"-m {path} {line}"), {}, Path("/nonexistent")))
    with GGUFFile.open(path, model.metadata_overrides) as file:
        return RopeConfig.read(file, DIMS)


def yarn(
    factor: float, original: int, ext: float = 1.0, fast: float = 32.0, slow: float = 1.0
) -> list[float]:
    """arXiv:2309.00071, equations 17 to 23, a pair at a time."""
    result = []
    for pair, frequency in enumerate(PLAIN):
        bounds = [
            DIMS * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(10000.0))
            for turns in (fast, slow)
        ]
        low, high = max(0, math.floor(bounds[0])), min(DIMS - 1, math.ceil(bounds[1]))
        kept = ext * (1 - min(1, max(0, (pair - low) / max(0.001, high - low))))
        result.append(frequency / factor * (1 - kept) + frequency * kept)
    return result


@pytest.mark.parametrize(
    ("keys", "line", "expected", "magnitude"),
    [
        ({}, "", PLAIN, 1.0),
        ({}, "--rope-freq-base 500000", 500000.0 ** (-np.arange(0, DIMS, 2) / DIMS), 1.0),
        ({}, "--rope-scale 4", PLAIN / 4, 1.0),
        ({}, "--rope-freq-scale 0.25", PLAIN / 4, 1.0),
        ({}, "--rope-scaling linear --rope-scale 2", PLAIN / 2, 1.0),
        ({"scaling__type": "linear", "scaling__factor": 8.0}, "", PLAIN / 8, 1.0),
        ({"scaling__type": "linear", "scaling__factor": 8.0}, "--rope-scale 2", PLAIN / 2, 1.0),
        ({"scaling__type": "linear", "scaling__factor": 8.0}, "--rope-scaling none", PLAIN, 1.0),
        ({"scale_linear": 2.0}, "", PLAIN / 2, 1.0),
        ({"scale_linear": 2.0}, "--rope-scale 4", PLAIN / 4, 1.0),
        ({}, "--rope-scaling yarn --rope-scale 4", yarn(4, CONTEXT), LONGER),
        ({}, "--rope-scaling yarn --rope-scale 4 --yarn-orig-ctx 512", yarn(4, 512), LONGER),
        ({}, "--rope-scaling yarn --rope-scale 4 --yarn-ext-factor 0", PLAIN / 4, 1.0),
        ({}, "--rope-scaling yarn --rope-scale 4 --yarn-ext-factor 0.5", yarn(4, CONTEXT, 0.5), LONGER),
        ({}, "--rope-scale 4 --yarn-ext-factor 1", yarn(4, CONTEXT), LONGER),
        ({}, "--rope-scaling yarn --rope-scale 4 --yarn-beta-fast 16 --yarn-beta-slow 2",
         yarn(4, CONTEXT, fast=16, slow=2), LONGER),
        ({}, "--rope-scaling yarn --rope-scale 4 --yarn-attn-factor 0.5", yarn(4, CONTEXT), LONGER / 2),
        ({}, "--yarn-attn-factor 2", PLAIN, 2.0),
        ({"scaling__type": "yarn", "scaling__factor": 4.0, "scaling__original_context_length": 512},
         "--yarn-orig-ctx 0", yarn(4, 512), LONGER),
    ],
)  # fmt: skip
def test_frequencies(
    tmp_path: Path, keys: dict[str, Any], line: str, expected: Any, magnitude: float
) -> None:
    frequencies, found = read(tmp_path, line, **keys).frequencies()
    np.testing.assert_allclose(frequencies, expected, rtol=1e-12)
    assert found == pytest.approx(magnitude)


def test_factors_divide_the_frequencies(tmp_path: Path) -> None:
    factors = np.linspace(1, 8, DIMS // 2, dtype=np.float32)
    frequencies, _ = read(tmp_path).frequencies(factors)
    np.testing.assert_allclose(frequencies, PLAIN / factors, rtol=1e-6)


@pytest.mark.parametrize(
    ("keys", "line", "message"),
    [
        ({"dimension_count": 65}, "", "rope.dimension_count is 65"),
        ({"dimension_count": 128}, "", "rope.dimension_count is 128"),
        ({"freq_base": 0.0}, "", "rope.freq_base is 0.0"),
        ({"freq_base": float("nan")}, "", "rope.freq_base is nan"),
        ({"scaling__factor": -1.0}, "", "rope.scaling.factor is -1.0"),
        ({"scaling__factor": float("nan")}, "", "rope.scaling.factor is nan"),
        ({"scaling__type": "longrope"}, "", "rope.scaling.type is longrope"),
        ({}, "--rope-scaling yarn --yarn-beta-slow 0", "rope.scaling.yarn_beta_slow is 0.0"),
        ({}, "--rope-scaling yarn --yarn-beta-fast -2", "rope.scaling.yarn_beta_fast is -2.0"),
        (
            {},
            "--rope-scaling yarn --rope-freq-base 1",
            "rope.freq_base is 1.0, expected more than 1, with YaRN",
        ),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, keys: dict[str, Any], line: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        read(tmp_path, line, **keys)
