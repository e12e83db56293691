"""The codebooks against the `gguf` package, and their copy for the kernels against them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest

from corral.gguf.codebook import IQ1_LEVELS, IQ2_LEVELS, IQ3_S_LEVELS, IQ3_XXS_LEVELS
from corral.gguf.grids import GRIDS, words
from corral.gguf.types import GGMLType

ROOT = Path(__file__).resolve().parent.parent.parent
LEVELS = {
    GGMLType.IQ3_S: IQ3_S_LEVELS,
    GGMLType.IQ3_XXS: IQ3_XXS_LEVELS,
    GGMLType.IQ2_S: IQ2_LEVELS,
    GGMLType.IQ2_XS: IQ2_LEVELS,
    GGMLType.IQ2_XXS: IQ2_LEVELS,
    GGMLType.IQ1_S: IQ1_LEVELS,
}


@pytest.mark.parametrize("type", GRIDS, ids=lambda type: type.name)
def test_every_entry_equals_the_gguf_package(type: GGMLType) -> None:
    theirs = getattr(gguf.quants, type.name)
    theirs.init_grid()
    assert np.array_equal(LEVELS[type][GRIDS[type]], theirs.grid.reshape(theirs.grid_shape))


@pytest.mark.parametrize("type", GRIDS, ids=lambda type: type.name)
def test_words_are_sorted_and_hold_the_levels(type: GGMLType) -> None:
    packed, bits = words(GRIDS[type]), 2 if GRIDS[type].shape[1] == 8 else 3
    assert (np.diff(packed.astype(int)) > 0).all()
    for weight, levels in enumerate(GRIDS[type].T):
        assert np.array_equal(packed >> (bits * weight) & ((1 << bits) - 1), levels)


def make_grids() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_grids", ROOT / "scripts" / "make_grids.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_header_is_what_the_script_writes() -> None:
    script = make_grids()
    assert script.TARGET.read_text() == script.header()
