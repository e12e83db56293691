"""What llama.cpp is run with in a comparison: of the settings that matter on a CPU, the fastest ones here.

Which ones that is depends on model, depth and streams, so each test tries them first. Threads and the types
of the KV cache are as corral's: fewer threads or other types would be another test.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from corral.errors import OptionError


@dataclass(frozen=True)
class Setting:
    """Its defaults where it has several streams; `ubatch`: tokens that are computed at once."""

    flash: bool = True
    ubatch: int = 512
    unified: bool = True

    @property
    def name(self) -> str:
        words = ["flash attention" if self.flash else "no flash attention", f"ubatch {self.ubatch}"]
        return ", ".join([*words, "one cache" if self.unified else "a cache for each stream"])


SMALL_UBATCH = 128


def fastest(op: str, tokens: int, streams: int, seconds: Callable[[Setting], float]) -> Setting:
    """The setting with the least time for `op`, prefill or decode; one change is tried after the other."""
    changes: list[dict[str, Any]] = [{"flash": False}]
    if op == "prefill" and tokens > SMALL_UBATCH:
        changes.append({"ubatch": SMALL_UBATCH})
    elif streams > 1:
        changes.append({"unified": False})
    best = Setting()
    least = seconds(best)
    for change in changes:
        other = replace(best, **change)
        if (taken := seconds(other)) < least:
            best, least = other, taken
    return best


def check(python: str) -> None:
    """Raises OptionError if this interpreter can't run llama.cpp."""
    try:
        ended = subprocess.run(
            [python, "-c", "import llama_cpp"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise OptionError(f"--peer-python is {python}, expected an interpreter: {error.strerror}") from None
    if ended.returncode:
        why = (ended.stderr.strip().splitlines() or [f"it ended with code {ended.returncode}"])[-1]
        raise OptionError(
            f"--compare llama.cpp: {python} can't import llama_cpp ({why}); --peer-python names an "
            "interpreter that has llama-cpp-python"
        )
