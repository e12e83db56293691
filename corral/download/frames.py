"""What the process that downloads tells its server: JSON lines on its standard output."""

from __future__ import annotations

from typing import BinaryIO

import msgspec


class Note(msgspec.Struct, tag="note"):
    """A line for the log."""

    text: str


class Start(msgspec.Struct, tag="start"):
    """A file begins; see `corral.download.progress.Progress`."""

    name: str
    total: int | None
    done: int


class Advance(msgspec.Struct, tag="advance"):
    """Bytes more of it."""

    count: int


class Finish(msgspec.Struct, tag="finish"):
    """The file is complete, or was given up."""


class Fetched(msgspec.Struct, tag="fetched"):
    """All is here: the file to load."""

    path: str


class Failed(msgspec.Struct, tag="failed"):
    """It can't be had."""

    message: str


Frame = Note | Start | Advance | Finish | Fetched | Failed
STEP = 8 << 20
"""Bytes that a frame about progress stands for, at least."""


class Frames:
    """Progress as JSON lines."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._encoder, self._held = out, msgspec.json.Encoder(), 0

    def send(self, frame: Frame) -> None:
        self._out.write(self._encoder.encode(frame) + b"\n")
        self._out.flush()

    def note(self, text: str) -> None:
        self.send(Note(text))

    def start(self, name: str, total: int | None, done: int) -> None:
        self._held = 0
        self.send(Start(name, total, done))

    def advance(self, count: int) -> None:
        self._held += count
        if self._held >= STEP:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self.send(Finish())

    def _flush(self) -> None:
        if self._held:
            self.send(Advance(self._held))
        self._held = 0
