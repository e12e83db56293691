"""What is said of a download."""

from __future__ import annotations

import io

import pytest

from corral.download.progress import Lines, amount, progress_on


def test_lines() -> None:
    said: list[str] = []
    lines = Lines(said.append, iter([0.0, 1.0, 9.0, 10.0, 11.0, 21.0, 21.0]).__next__)
    lines.start("m.gguf", 4_000_000_000, 1_000_000_000)
    for _ in range(5):
        lines.advance(200_000_000)
    lines.finish()
    assert said == [
        "downloading m.gguf, 4 GB, 1 GB of it are here already",
        "m.gguf: 40 %, 1.6 GB of 4 GB, 60 MB/s, 40 s left",
        "m.gguf: 50 %, 2 GB of 4 GB, 47.6 MB/s, 42 s left",
        "m.gguf: 50 %, 2 GB of 4 GB, 47.6 MB/s, 42 s left",
    ]


def test_lines_without_a_size() -> None:
    said: list[str] = []
    lines = Lines(said.append, iter([0.0, 2.0, 2.0]).__next__)
    lines.start("m.gguf", None, 0)
    lines.advance(1000)
    lines.finish()
    assert said == ["downloading m.gguf", "m.gguf: 1 kB, 500 B/s"]


def test_no_bar_without_a_terminal() -> None:
    stream = io.StringIO()
    progress = progress_on(stream)
    progress.start("m.gguf", 10, 0)
    progress.note("a note")
    assert stream.getvalue() == "downloading m.gguf, 10 B\na note\n"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    progress = progress_on(stream)
    progress.start("m[1].gguf", 2000, 1000)
    progress.advance(1000)
    progress.note("a [note]")
    progress.finish()
    assert "m[1].gguf" in stream.getvalue()
    assert "a [note]" in stream.getvalue()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (4.368e9, "4.37 GB"), (2e12, "2 TB")]
)
def test_amounts(count: float, text: str) -> None:
    assert amount(count) == text
