"""`corral serve`: from a configuration to a running server, and to its end.

The order is what makes the start short: the sockets are bound and the engine process is started first; while
it loads the weights, this process reads the tokenizer and the template and already answers /health. A model
that has to be downloaded comes before the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import uvicorn
import uvloop

from corral import __version__
from corral.chat.prompt import ChatPrompter
from corral.chat.template import choose_template, tool_template
from corral.config import EngineConfig, ModelConfig, ServerConfig
from corral.download.client import fetch
from corral.download.progress import Bar, Lines, Progress
from corral.engine.client import EngineClient
from corral.engine.messages import Ready
from corral.errors import InternalError
from corral.gguf.reader import GGUFFile
from corral.server import constraint, sockets, tls
from corral.server.app import build_app
from corral.server.model_info import model_info
from corral.server.reaper import reap_orphans
from corral.server.state import LoadedModel, ServerState
from corral.server.static_files import check_folder
from corral.server.supervisor import Supervisor
from corral.server.throttling import watch_throttling
from corral.tokenizer.tokenizer import Tokenizer, load_tokenizer

log = logging.getLogger("corral.server")

ENGINE_SECONDS = 1.5
"""For the engine process to end."""
PROGRESS_SECONDS = 10
"""Between two lines of a long load, in a log."""
KEEP_ALIVE_SECONDS = 75
"""Idle time of a connection: longer than the pools of common clients and proxies keep one."""


def run(
    model_config: ModelConfig,
    engine_config: EngineConfig,
    server_config: ServerConfig,
    warnings: Sequence[str] = (),
) -> int:
    """Serves until SIGTERM or SIGINT and returns 0. Raises CorralError when it can't start."""
    log.info("corral %s", __version__)
    for warning in warnings:
        log.warning("%s", warning)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    tls.check(server_config)
    check_folder(server_config.static_path)
    with contextlib.ExitStack() as stack:
        model = _Model(model_config, stack)
        if model_config.download is None:
            model.open()  # what is wrong with it is said before anything is started
        bound = sockets.bind(server_config.hosts, server_config.port, reuse_port=server_config.reuse_port)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_serve(model, bound, engine_config, server_config))
        finally:
            sockets.close(bound)
            sockets.unlink(server_config.hosts)


class _Model:
    """The model's file: open, or to be downloaded first."""

    def __init__(self, config: ModelConfig, stack: contextlib.ExitStack) -> None:
        self.config, self._stack = config, stack
        self._file: GGUFFile | None = None

    @property
    def is_open(self) -> bool:
        return self._file is not None

    @property
    def file(self) -> GGUFFile:
        assert self._file is not None, "it was not downloaded"
        return self._file

    def open(self) -> None:
        """Raises ModelFileError."""
        self._file = self._stack.enter_context(
            GGUFFile.open(self.config.path, self.config.metadata_overrides)
        )

    async def fetch(self, progress: Progress) -> None:
        """Download and open it. Raises DownloadError, ModelFileError."""
        assert self.config.download is not None
        path = await fetch(self.config.download, progress)
        log.info("model file: %s", path)
        self.config = replace(self.config, path=path, download=None)
        self.open()


async def _serve(
    model: _Model,
    bound: list[socket.socket],
    engine_config: EngineConfig,
    server_config: ServerConfig,
) -> int:
    engine = Supervisor(lambda: EngineClient(model.config, engine_config))
    state = ServerState(config=server_config, engine=engine, ping_seconds=server_config.sse_ping_interval)
    http = _Http(state)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, number, stop, http)
    if model.is_open:
        await engine.start()
    serving = asyncio.create_task(http.serve(bound))
    living = asyncio.create_task(_live(state, engine, model, bound))
    stopping = asyncio.create_task(stop.wait())
    caring = [asyncio.create_task(watch_throttling())]
    if os.getpid() == 1:
        caring.append(asyncio.create_task(reap_orphans()))
    try:
        await asyncio.wait({living, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (living, serving):
            if task.done():
                task.result()
                raise InternalError("the HTTP server ended by itself")
    finally:
        state.draining = True
        http.end()
        living.cancel()
        stopping.cancel()
        await asyncio.wait({serving}, timeout=server_config.drain_timeout)
        # what still runs ends with an error that says why
        await engine.close(0 if http.force_exit else ENGINE_SECONDS)
        for task in caring:
            task.cancel()
        await asyncio.gather(serving, living, stopping, *caring, return_exceptions=True)
    return 0


def _on_signal(number: int, stop: asyncio.Event, http: _Http) -> None:
    if stop.is_set():
        log.warning("second signal: ending at once")
        http.force_exit = True
    else:
        name = signal.Signals(number).name
        log.info("%s: finishing the running requests, for %d s at most", name, http.drain_timeout)
        stop.set()


class _Http(uvicorn.Server):
    """uvicorn without its signal handlers: ending is ours to order."""

    def __init__(self, state: ServerState) -> None:
        self.drain_timeout = state.config.drain_timeout
        self._ending = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                build_app(state),
                ssl_keyfile=state.config.ssl_key_file,
                ssl_certfile=state.config.ssl_cert_file,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(state.config.drain_timeout + ENGINE_SECONDS),
            )
        )

    def end(self) -> None:
        """Take no more connections, finish the requests."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        """Once a second, for the date in the headers, and not ten times: a server without work sleeps."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 1)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _live(
    state: ServerState,
    engine: Supervisor,
    model: _Model,
    bound: Sequence[socket.socket],
) -> None:
    """Downloads, loads, announces, keeps the engine alive. Raises CorralError when that fails."""
    if not model.is_open:
        await model.fetch(Bar(sys.stderr) if _has_bars(state.config) else Lines(partial(log.info, "%s")))
        await engine.start()
    began = time.monotonic()
    with _progress(state):
        loaded, ready = await asyncio.gather(
            asyncio.to_thread(load_model, state.config, model.file, model.config), engine.wait_ready()
        )
    state.model = loaded
    _announce(loaded, ready, time.monotonic() - began)
    for sock in bound:
        url = sockets.url(sock, tls=state.config.ssl_key_file is not None)
        log.info("server is listening on %s%s", url, state.config.api_prefix)
    await engine.supervise()


def load_model(config: ServerConfig, file: GGUFFile, model: ModelConfig) -> LoadedModel:
    """The tokenizer, the chat template and the facts about the model. Raises ModelFileError, OptionError."""
    for key, before in file.replaced.items():
        was = "which the file does not have" if before is None else f"not {before!r} as in the file"
        log.info("metadata: %s is %r, %s", key, file.metadata[key], was)
    tokenizer = load_tokenizer(file)
    constraint.check(config, tokenizer)
    source = choose_template(file.metadata, config.chat_template)
    if source.note:
        log.warning("%s", source.note)
    make = partial(
        ChatPrompter.of,
        bos_token=_special_text(tokenizer, tokenizer.bos_id),
        eos_token=_special_text(tokenizer, tokenizer.eos_id),
        add_bos=tokenizer.add_bos,
        add_eos=tokenizer.add_eos,
    )
    for_tools = tool_template(file.metadata, config.chat_template)
    prompter = make(source, with_tools=make(for_tools) if for_tools else None)
    rerank_template = file.get("tokenizer.chat_template.rerank", str, None)
    return LoadedModel(model_info(model, file, tokenizer.vocab_size), tokenizer, prompter, rerank_template)


def _special_text(tokenizer: Tokenizer, id: int | None) -> str:
    return "" if id is None else tokenizer.token_text(id)


def _announce(model: LoadedModel, ready: Ready, seconds: float) -> None:
    info, template = model.info, model.prompter
    meta: dict[str, Any] = dict(info.meta)
    facts = {
        "model": f"{info.id}, {meta['ftype']}, {meta['n_params'] / 1e6:.0f} million parameters",
        "engine": f"{ready.executor}, {ready.isa}, {_count(ready.threads, 'thread')}",
        "context": f"{ready.n_ctx} tokens a request of {ready.kv_tokens} in all, "
        f"{_count(ready.parallel, 'request')} at a time",
        "chat template": f"from {template.template.source.origin}, {template.capabilities.describe()}",
    }
    for name, text in facts.items():
        log.info("%s: %s", name, text)
    for note in ready.notes:
        log.warning("%s", note)
    log.info("ready after %.2f s", seconds)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _has_bars(config: ServerConfig) -> bool:
    return sys.stderr.isatty() and config.verbosity >= 3 and not config.log_jsonl


@contextlib.contextmanager
def _progress(state: ServerState) -> Iterator[None]:
    """While the weights load: a bar on a terminal, else a line now and then."""

    async def say() -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            log.info("loading the model: %d %%", 100 * state.engine.status.progress)

    if not _has_bars(state.config):
        saying = asyncio.create_task(say())
        try:
            yield
        finally:
            saying.cancel()
        return
    from rich import progress
    from rich.console import Console

    async def update() -> None:
        while True:
            bar.update(task, completed=state.engine.status.progress)
            await asyncio.sleep(0.1)

    with progress.Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading the model", total=1.0)
        updating = asyncio.create_task(update())
        try:
            yield
        finally:
            updating.cancel()
