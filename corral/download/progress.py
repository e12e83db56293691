"""How far a download is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TextIO

LINE_SECONDS = 10.0
"""Between two lines about one file."""


class Progress(Protocol):
    """Who is told. Amounts are in bytes."""

    def note(self, text: str) -> None:
        """Something that the user should know; one line."""

    def start(self, name: str, total: int | None, done: int) -> None:
        """A file begins, of which `done` bytes are there already; `total` None is an unknown size."""

    def advance(self, count: int) -> None:
        """So many bytes more of it; negative if some have to come again."""

    def finish(self) -> None:
        """The file is complete, or was given up."""


class Lines:
    """A line at the start of a file, every few seconds, and at its end."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._name = ""

    def note(self, text: str) -> None:
        self._write(text)

    def start(self, name: str, total: int | None, done: int) -> None:
        self._name, self._total, self._done, self._first = name, total, done, done
        self._began = self._said = self._clock()
        size = "" if total is None else f", {amount(total)}"
        self._write(
            f"downloading {name}{size}" + (f", {amount(done)} of it are here already" if done else "")
        )

    def advance(self, count: int) -> None:
        self._done += count
        now = self._clock()
        if now - self._said >= LINE_SECONDS:
            self._said = now
            self._write(f"{self._name}: {self._state(now)}")

    def finish(self) -> None:
        if self._name and self._done > self._first:
            self._write(f"{self._name}: {self._state(self._clock())}")
        self._name = ""

    def _state(self, now: float) -> str:
        rate = max(0.0, self._done - self._first) / max(now - self._began, 1e-3)
        if not self._total:
            return f"{amount(self._done)}, {amount(rate)}/s"
        share = 100 * self._done // self._total
        text = f"{share} %, {amount(self._done)} of {amount(self._total)}, {amount(rate)}/s"
        left = (self._total - self._done) / rate if rate > 0 else 0
        return text + (f", {_duration(left)} left" if left >= 1 else "")


class Bar:
    """A bar on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(file=stream))
        self._task: object = None

    def note(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def start(self, name: str, total: int | None, done: int) -> None:
        self._progress.start()
        self._task = self._progress.add_task(name.replace("[", r"\["), total=total, completed=done)

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)  # type: ignore[arg-type]

    def finish(self) -> None:
        self._progress.stop()


def progress_on(stream: TextIO) -> Progress:
    """What suits the stream."""
    if stream.isatty():
        return Bar(stream)
    return Lines(lambda line: print(line, file=stream, flush=True))


def amount(count: float) -> str:
    """`4.37 GB`, as the sizes of models are given: powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.4g} TB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
