"""The commands `corral` and `llama-server`. A command imports what it needs when it runs: --help is quick."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from corral import __version__
from corral.errors import CorralError

OVERVIEW = """\
usage: corral <command> [...]

  serve      serve a model over HTTP, with the flags of llama-server
  info       what is in a GGUF file, and what it would need
  tokenize   text to token ids
  pull       download a model
  bench      how fast a model runs here; bench serve: how a server holds under many clients
  health     is the server in this container ready

for example
  corral serve --model model.gguf --ctx-size 4096
  corral info model.gguf

corral <command> --help says more. corral --version prints the version.
"""

UNWRITTEN = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Our reader, such as `head`, has gone; or there is no room for what we print."""


def main(argv: Sequence[str] | None = None) -> int:
    """`corral`. Returns the exit code: 0, or 1 after one message on standard error; 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and words[:1] == ["serve"]:
        _end_at_signals()
    return _guarded(lambda: _corral(words))


def llama_server(argv: Sequence[str] | None = None) -> int:
    """`llama-server`: the same as `corral serve`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _end_at_signals()
    return _guarded(lambda: serve(words, program="llama-server"))


def _end_at_signals() -> None:
    """Until the server has its own handlers: process 1 of a container ignores a signal without one."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: sys.exit(0))


def _guarded(command: Callable[[], int]) -> int:
    try:
        code = command()
        print(end="", flush=True)  # here, where a full disk has an error of its own; there may be no stdout
        return code
    except CorralError as error:
        message = str(error)
        print(message if message.startswith("error") else f"error: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # as a shell says it
    except OSError as error:
        if error.errno not in UNWRITTEN:
            raise
        # the interpreter must not fail on the same file again at exit
        if sys.stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            print(f"error: cannot write: {error.strerror}", file=sys.stderr)
        return 1


def _corral(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(OVERVIEW, end="")
        return 0 if words else 1
    command, *rest = words
    if command == "--version":
        print(version())
        return 0
    if command == "serve":
        return serve(rest, program="corral serve")
    if command == "health":
        from corral.tools.health import main as health  # reads its few words itself: argparse is slow

        return health(rest)
    if command == "bench" and rest[:1] == ["serve"]:
        return _tool("bench serve", rest[1:])
    if command in ("info", "tokenize", "bench", "pull"):
        return _tool(command, rest)
    hint = f"; to serve: corral serve {command} ..." if command.startswith("-") else ""
    expected = "serve, info, tokenize, bench, pull or health"
    print(f"error: unknown command {command!r}, expected {expected}{hint}", file=sys.stderr)
    return 1


def _tool(name: str, words: Sequence[str]) -> int:
    import argparse

    module = import_module("corral.tools." + name.replace(" ", "_"))
    parser = argparse.ArgumentParser(prog=f"corral {name}", description=module.__doc__)
    module.add_arguments(parser)
    if name == "bench":
        from corral.command_line import forced_isa

        parser.set_defaults(isa=forced_isa(os.environ))
    code: int = module.run(parser.parse_args(words))
    return code


def version() -> str:
    """The first words are as llama-server prints them, for scripts that read it."""
    return f"version: {__version__} (corral)"


def serve(words: Sequence[str], program: str) -> int:
    """Parses, configures, and serves until a signal."""
    from corral.command_line import parse

    parsed = parse(words, os.environ)
    action = parsed.values.get("action")
    if action is not None:
        print(_ACTIONS[action](program), end="")
        return 0

    import dataclasses
    import logging

    from corral import log
    from corral.config import build
    from corral.system import budget, cpu

    model, engine, server = build(parsed)
    log.setup(server)
    decision = cpu.decide(engine.threads, cpu.limits(), force=engine.force_threads)
    engine = dataclasses.replace(engine, threads=decision.threads)
    logging.getLogger(__name__).debug("threads: %d, %s", decision.threads, decision.reason)
    warnings = [*parsed.warnings, *filter(None, [decision.warning])]

    try:
        budget.expect_room(budget.memory_limit())  # before what takes some

        from corral.server.serve import run

        return run(model, engine, server, warnings)
    except CorralError as error:
        if log.say_why(error):
            return 1
        raise  # a log that is turned off does not hide why the program ends


def _help(program: str) -> str:
    import shutil

    from corral.usage import help_text

    return help_text(program, shutil.get_terminal_size((100, 24)).columns)


def _completion(program: str) -> str:
    from corral.usage import bash_completion

    return bash_completion(program)


def _devices(_program: str) -> str:
    from corral.system import cpu

    return f"Available devices:\n  CPU: {cpu.limits().describe()}\n"


def _cache_list(_program: str) -> str:
    from pathlib import Path

    from corral.command_line import download_places
    from corral.download.listing import cached_models, report

    places = download_places(os.environ)
    return report(cached_models(Path(places["hub_cache"]), Path(places["url_cache"])))


_ACTIONS: dict[str, Callable[[str], str]] = {
    "help": _help,
    "version": lambda _program: version() + "\n",
    "completion-bash": _completion,
    "list-devices": _devices,
    "cache-list": _cache_list,
}


if __name__ == "__main__":
    sys.exit(main())
