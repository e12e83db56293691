"""A server process as `corral serve` starts it, with a fake engine and no model file. Run by test_serve.py.

    python serve_fake.py HOST PORT loads|fails|dies WORD... [-- FLAG...]
    python serve_fake.py HOST PORT URL CACHE WORD... [-- FLAG...]

The engine says each word after a tenth of a second. With a URL, the model is downloaded first. Flags and
variables are those of `corral serve`, for the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

from fake_engine import READY, FakeEngine, fake_state

from corral import log
from corral.command_line import parse
from corral.config import DownloadConfig, EngineConfig, ModelConfig, build
from corral.engine.messages import ErrorInfo, Output, Status, Submit
from corral.errors import CorralError, Unavailable
from corral.server import serve

host, port, fate, *words = sys.argv[1:]
flags: list[str] = []
if "--" in words:
    at = words.index("--")
    words, flags = words[:at], words[at + 1 :]
model = ModelConfig(path="tiny.gguf")
if "://" in fate:
    model = ModelConfig(path="", download=DownloadConfig(model_url=fate, url_cache=words.pop(0)))


class SlowEngine(FakeEngine):
    def __init__(self, *_config: Any) -> None:
        super().__init__(words)
        self.status = Status(state="loading")
        self.closed, self.lost = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        pass

    async def wait_ready(self) -> Any:
        await asyncio.sleep(0.3)
        if fate == "fails":
            raise Unavailable("model.gguf: magic is HTML, expected GGUF")
        self.status = Status(state="ready", ready=READY)
        if fate == "dies":
            self.status = Status(state="failed", ready=READY, message="The engine process was killed")
            self.lost.set()
        return READY

    async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
        async for output in super().generate(submit):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.closed.wait(), 0.1)
                error = ErrorInfo(503, "unavailable_error", "The server is shutting down")
                yield Output(id=submit.id, finish_reason="error", error=error)
                return
            yield output

    async def close(self, timeout: float) -> None:
        self.closed.set()


patched: Any = serve
patched.EngineClient = SlowEngine
patched.load_model = lambda *_: fake_state().model
patched.GGUFFile.open = lambda *_: contextlib.nullcontext(object())
patched.Supervisor = partial(serve.Supervisor, first_delay=0.01)
info = fake_state().model
assert info is not None
info.info.meta.update(ftype="Q8_0", n_params=1e6, n_ctx_train=256)  # type: ignore[attr-defined]
patched.load_model = lambda *_: info
line = ["-m", "x", "--host", host, "--port", port, "--drain-timeout", "1", *flags]
try:
    config = build(parse(line, os.environ, Path("/nonexistent")))[2]
    log.setup(config)
    sys.exit(serve.run(model, EngineConfig(), config, ["a warning"]))
except CorralError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
