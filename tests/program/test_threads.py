"""A team of threads ends, whenever it is asked to, on a machine that has other things to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("corral._native", reason="the extension is not built")

from batches import logits_of
from ops import Model

from corral.program.trace import linear

pytestmark = pytest.mark.native

BUSY = "while True: pass"


@pytest.mark.slow
def test_short_lives_on_a_busy_machine(tmp_path: Path) -> None:
    """Steps of different numbers of pieces, and an end right after one; hung about once in twenty."""
    weights = np.random.default_rng(0).standard_normal((400, 64))
    model = Model(
        tmp_path, {"x": np.ones((100, 64)), "w": weights}, lambda m: linear(m.input(), m.weight("w"))
    )
    neighbours = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(4)]
    try:
        for _ in range(100):
            executor = model.native(threads=3)
            for count in (100, 1, 7, 100, 1):
                logits_of(executor, range(count))
            executor.close()
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
