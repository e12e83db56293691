"""The server's end of a download: the process that does it, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

import corral
from corral.config import DownloadConfig
from corral.download import frames
from corral.download.progress import Progress
from corral.errors import DownloadError

COMMAND = (sys.executable, "-P", "-m", "corral.download.process")


async def fetch(config: DownloadConfig, progress: Progress, command: Sequence[str] = COMMAND) -> str:
    """The path of the model's file. Cancelling ends the process at once. Raises DownloadError."""
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": _python_path()},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    decoder = msgspec.json.Decoder(frames.Frame)
    try:
        child.stdin.write(msgspec.json.encode(config) + b"\n")  # its end stays open: see the process
        async for line in child.stdout:
            match decoder.decode(line):
                case frames.Fetched(path):
                    return path
                case frames.Failed(message):
                    raise DownloadError(message)
                case frames.Note(text):
                    progress.note(text)
                case frames.Start(name, total, done):
                    progress.start(name, total, done)
                case frames.Advance(count):
                    progress.advance(count)
                case frames.Finish():
                    progress.finish()
        code = await child.wait()
        raise DownloadError(f"the process that downloads the model ended with code {code}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def _python_path() -> str:
    """The child finds the same `corral` as we, wherever that was."""
    folder = str(Path(corral.__file__).parent.parent)
    return os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH", ""))))
