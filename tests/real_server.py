"""A server of a real model, in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Server:
    """`corral serve` on a free port; `url` is where it listens, `lines` what it logs."""

    def __init__(self, model: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "corral.cli", "serve", "-m", str(model), "--port", "0", *flags]
        self.popen = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        self.lines: list[str] = []
        self.url = ""
        self.listening = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self.listening.wait(120), self.lines
        assert self.url, self.lines

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(line)
            if found := re.search(r"server is listening on (\S+)", line):
                self.url = found[1]
                self.listening.set()
        self.listening.set()
        self.popen.stderr.close()

    def stop(self) -> None:
        """Ends well, with no traceback in the log."""
        self.popen.send_signal(signal.SIGTERM)
        assert self.popen.wait(30) == 0
        time.sleep(0.1)
        assert "Traceback" not in "".join(self.lines)
