"""The process that downloads for a server: `python -m corral.download.process`.

The server stays small, answers /health meanwhile, and can end a download at any moment. The first line of
standard input is a DownloadConfig; when the input ends, so does this process. Frames go to standard output.
"""

from __future__ import annotations

import os
import sys
import threading

import msgspec

from corral.config import DownloadConfig
from corral.download.fetch import fetch
from corral.download.frames import Failed, Fetched, Frames
from corral.errors import CorralError


def main() -> int:
    """0 when the file is here, else 1."""
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=DownloadConfig)
    threading.Thread(target=_end_with_the_input, daemon=True).start()
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # whatever a library prints is not a frame
        frames = Frames(out)
        try:
            path = fetch(config, frames)
        except CorralError as error:
            frames.send(Failed(str(error)))
            return 1
        frames.send(Fetched(str(path)))
    return 0


def _end_with_the_input() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread may hold the lock of the input, for which the interpreter would wait
