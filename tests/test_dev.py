"""./dev says what it does, and what it was not asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def dev(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(ROOT / "dev"), *words], capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("words", [(), ("help",), ("--help",)], ids=str)
def test_help_names_every_command(words: tuple[str, ...]) -> None:
    answer = dev(*words)
    assert answer.returncode == 0
    for command in ("serve", "test", "sanitize", "soak", "lint", "format", "build"):
        assert f"./dev {command} " in answer.stdout
    assert answer.stderr == ""


def test_an_unknown_command_is_an_error() -> None:
    answer = dev("tests")
    assert answer.returncode == 1
    assert answer.stderr.endswith("error: unknown command 'tests'\n")
    assert answer.stdout == ""
