"""The benchmark of guesses writes the same text in far fewer steps."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.mark.model
@pytest.mark.native
def test_an_edit_takes_half_the_steps(
    smollm2_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "speculation", raising=False)
    import speculation

    speculation.main([str(smollm2_path), "--rounds", "1"])
    said = capsys.readouterr().out
    (tokens, steps), (same, fewer) = re.findall(r"(\d+) tokens in +(\d+) steps", said)
    assert tokens == steps == same
    assert int(steps) > 2 * int(fewer)
    assert re.search(r"\n\d+\.\d\dx as fast\n$", said)
