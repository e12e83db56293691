"""How a server holds under many clients: tokens a second, the wait for the first token, the longest pause.

Starts `corral serve` on a model, and beside it another server with the same flags where `--compare-with`
names one (such as llama-server), and gives them the same load in turns. What is shown is the median over
the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from corral.errors import OptionError
from corral.tools import load
from corral.tools.bench import machine, whole
from corral.tools.chart import Group, bars

START_SECONDS = 600.0
SHAPE = ("clients", "requests", "rate", "prompt_words", "max_tokens", "parallel")
"""Arguments that say what the load is."""


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


FIGURES = (
    ("output_tokens_per_second", "output tokens/s", 1.0, "{:.1f}".format, True),
    ("first_token_median", "first token, median", 1e3, _time, False),
    ("first_token_p99", "first token, p99", 1e3, _time, False),
    ("between_tokens_median", "between tokens, median", 1e3, _time, False),
    ("between_tokens_p99", "between tokens, p99", 1e3, _time, False),
    ("longest_pause", "longest pause in a stream", 1e3, _time, False),
    ("health_p99", "/health, p99", 1e3, _time, False),
    ("failed", "failed requests", 1.0, "{:.0f}".format, False),
)
"""Key of a summary, what people read, factor, how a value is written, and whether more is better."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", required=True, metavar="FILE", help="a GGUF file")
    parser.add_argument("--clients", type=whole, default=8, metavar="N", help="that wait for answers [8]")
    parser.add_argument("--requests", type=whole, default=24, metavar="N", help="in a round [24]")
    parser.add_argument("--rate", type=_rate, default=None, metavar="R", help=_RATE_HELP)
    parser.add_argument("--prompt-words", type=whole, default=200, metavar="N", help="of a prompt [200]")
    parser.add_argument("--max-tokens", type=whole, default=32, metavar="N", help="of an answer [32]")
    parser.add_argument("--parallel", type=whole, default=8, metavar="N", help="slots of the server [8]")
    parser.add_argument("-t", "--threads", type=whole, default=None, metavar="N", help="[what may be used]")
    parser.add_argument("-r", "--rounds", type=whole, default=3, metavar="N", help="for each server [3]")
    parser.add_argument("--compare-with", metavar="CMD", help="another server, with llama-server's flags")
    parser.add_argument("--chart", metavar="FILE", help="write a chart (SVG)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _rate(text: str) -> float:
    """Above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


_RATE_HELP = "requests a second at random times, answered or not, instead of clients that wait"


@dataclass
class Server:
    """A server process on a port of its own, with its log in a file."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]
    ready_seconds: float = 0.0
    rounds: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def start(cls, name: str, command: Sequence[str], flags: Sequence[str]) -> Server:
        """Raises OptionError when the command can't be run."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the server)
        address = ["--host", "127.0.0.1", "--port", str(port)]
        try:
            process = subprocess.Popen([*command, *flags, *address], stdout=log, stderr=log)
        except OSError as error:
            log.close()
            raise OptionError(f"{command[0]}: {error.strerror}, expected a server's command") from None
        return cls(name, process, port, log)

    async def wait_ready(self) -> None:
        start = time.perf_counter()
        while not await load.healthy(self.port):
            if self.process.poll() is not None or time.perf_counter() - start > START_SECONDS:
                self.log.seek(0)
                said = self.log.read().decode(errors="replace").strip().splitlines()[-5:]
                raise OptionError(f"{self.name} did not get ready. The end of its log:\n" + "\n".join(said))
            await asyncio.sleep(0.05)
        self.ready_seconds = time.perf_counter() - start

    def peak_bytes(self) -> int:
        """Most memory resident at once, of the process and its children."""
        return sum(_peak_bytes(pid) for pid in _family(self.process.pid))

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def run(args: argparse.Namespace) -> int:
    report = asyncio.run(bench(args))
    if args.chart:
        Path(args.chart).write_text(chart(report))
    if args.json:
        print(json.dumps(report))
    else:
        _print(report)
    return 0


async def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Load the servers in turns. Returns a report as --json prints it."""
    context = args.parallel * (3 * args.prompt_words + args.max_tokens + 256)
    flags = ["-m", args.model, "--parallel", str(args.parallel), "--ctx-size", str(context)]
    if args.threads:
        flags += ["--threads", str(args.threads)]
    servers: list[Server] = []
    try:
        servers.append(Server.start("corral", [sys.executable, "-m", "corral.cli", "serve"], flags))
        await servers[0].wait_ready()
        if args.compare_with:
            command = shlex.split(args.compare_with)
            servers.append(Server.start(Path(command[0]).name, command, flags))
            await servers[1].wait_ready()
        for turn in range(args.rounds):
            for server in servers:
                server.rounds.append((await _load(server.port, args, turn)).summary())
        sides = {server.name: _side(server) for server in servers}
    finally:
        for server in servers:
            server.close()
    shape = {key: getattr(args, key) for key in SHAPE}
    return {"machine": machine(), "model": args.model, "load": shape, "sides": sides}


async def _load(port: int, args: argparse.Namespace, turn: int) -> load.Load:
    texts = load.prompts(args.requests, args.prompt_words, seed=turn)
    bodies = [load.chat_body(text, args.max_tokens) for text in texts]
    if args.rate:
        return await load.open_loop(port, bodies, args.rate, seed=turn)
    return await load.closed_loop(port, bodies, args.clients)


def _side(server: Server) -> dict[str, Any]:
    medians = {key: statistics.median(r[key] for r in server.rounds) for key in server.rounds[0]}
    about = {"ready_seconds": server.ready_seconds, "peak_bytes": server.peak_bytes()}
    return {**about, **medians, "rounds": server.rounds}


def chart(report: dict[str, Any]) -> str:
    """The figures of a report as bars."""
    sides = report["sides"]
    groups = []
    for key, label, factor, form, more in FIGURES:
        values = [side[key] * factor for side in sides.values()]
        if key != "failed" and all(map(math.isfinite, values)):
            notes = [_ratio(values, more) if len(values) == 2 else "", "more is better" if more else ""]
            note = ", ".join(filter(None, notes))
            # one side alone: its times are compared with each other
            scale = "" if more or len(sides) > 1 else "ms"
            groups.append(Group(label, values, [form(value) for value in values], note, scale))
    name, shape = Path(report["model"]).name, report["load"]
    how = f"{shape['rate']:g} requests/s" if shape["rate"] else f"{shape['clients']} clients"
    return bars(f"{name}: {how}, {shape['max_tokens']} tokens each", list(sides), groups)


def _ratio(values: Sequence[float], more: bool) -> str:
    """How the first of two compares; empty where nobody can say."""
    if not min(values) > 0:
        return ""
    times = values[0] / values[1] if more else values[1] / values[0]
    return f"{times:.1f}x better" if times >= 1 else f"{1 / times:.1f}x worse"


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    sides = report["sides"]
    console.print(f"\n[bold]{report['model']}[/bold]")
    for name, side in sides.items():
        console.print(
            f"  {name}: ready in {side['ready_seconds']:.1f} s, "
            f"peak memory {side['peak_bytes'] / (1 << 30):.2f} GiB"
        )
    table = Table()
    table.add_column("")
    for name in sides:
        table.add_column(name, justify="right")
    if len(sides) == 2:
        table.add_column(f"{next(iter(sides))} is", justify="right")
    for key, label, factor, form, more in FIGURES:
        values = [side[key] * factor for side in sides.values()]
        row = [label, *map(form, values)]
        if len(sides) == 2:
            row.append(_ratio(values, more))
        table.add_row(*row)
    console.print(table)


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(p for child in children for p in _family(int(child)))]


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
