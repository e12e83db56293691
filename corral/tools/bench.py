"""How fast a model runs here: prompts, one stream, many streams, beside the machine's limits and llama.cpp.

Each engine has a process of its own and they take turns, test by test, so that a machine that slows down
slows all of them. What is shown is the median of the repetitions, with the quartiles, and of ratios the
median over the pairs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corral.config import EngineConfig
from corral.errors import OptionError
from corral.gguf.reader import GGUFFile
from corral.tools.bench_peer import Setting, check, fastest
from corral.tools.chart import Group, bars

LIMIT_BYTES = 1 << 29
"""Memory that the bandwidth is measured on."""


@dataclass(frozen=True)
class Case:
    """A thing to time: `streams` sequences of `tokens` tokens, behind `depth` tokens that are cached."""

    op: str
    tokens: int
    streams: int = 1
    depth: int = 0

    @property
    def name(self) -> str:
        short = {"prefill": "pp", "decode": "tg"}[self.op] + str(self.tokens)
        return (
            short
            + (f" x{self.streams}" if self.streams > 1 else "")
            + (f" @{self.depth}" if self.depth else "")
        )

    @property
    def total(self) -> int:
        """Tokens computed, in all streams."""
        return self.tokens * self.streams


@dataclass
class Worker:
    """The process of one side; see bench_worker.py."""

    name: str
    process: subprocess.Popen[str]
    about: dict[str, Any] = field(default_factory=dict)
    peak_bytes: int = 0
    seconds: dict[Case, list[float]] = field(default_factory=dict)
    settings: dict[Case, Setting] = field(default_factory=dict)
    """What the peer runs a case with."""

    @classmethod
    def start(cls, name: str, python: str, args: Sequence[str]) -> Worker:
        script = Path(__file__).with_name("bench_worker.py")
        # Another interpreter may not have this package: there the file stands alone (-P: no neighbours).
        alone = python != sys.executable
        command = [python, "-P", str(script)] if alone else [python, "-m", "corral.tools.bench_worker"]
        process = subprocess.Popen(
            [*command, name, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        worker = cls(name, process)
        worker.about = worker._answer()
        return worker

    def time(self, case: Case, setting: Setting | None = None) -> float:
        assert self.process.stdin
        setting = setting or self.settings.get(case)
        job = {**vars(case), "setting": vars(setting) if setting else None}
        print(json.dumps(job), file=self.process.stdin, flush=True)
        answer = self._answer()
        self.peak_bytes = answer["peak_bytes"]
        return float(answer["seconds"])

    def choose(self, case: Case) -> None:
        """Find the peer's settings for a case: each is run twice."""

        def seconds(setting: Setting) -> float:
            return min(self.time(case, setting) for _ in range(2))

        self.settings[case] = fastest(case.op, case.tokens, case.streams, seconds)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:  # nothing, or what is no answer: a library may print the place where it failed
            code = self.close()
            raise OptionError(f"the {self.name} side ended with code {code}, see its message above") from None
        return answer

    def close(self) -> int:
        """End the process; returns its exit code."""
        with self.process:  # closes the pipes, which ends the worker, and waits
            pass
        return self.process.returncode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m", "--model", action="append", required=True, metavar="FILE", help="a GGUF file; repeatable"
    )
    parser.add_argument(
        "-p", "--n-prompt", type=_counts, default=(512,), metavar="N,..", help="prompt lengths [512]"
    )
    parser.add_argument(
        "-n", "--n-gen", type=_counts, default=(128,), metavar="N,..", help="tokens to generate [128]"
    )
    parser.add_argument(
        "-d", "--n-depth", type=_counts, default=(0,), metavar="N,..", help="tokens in the cache before [0]"
    )
    parser.add_argument(
        "--parallel", type=_streams, default=(1,), metavar="N,..", help="streams that generate [1]"
    )
    parser.add_argument(
        "-t", "--threads", type=whole, default=None, metavar="N", help="threads [what this container may use]"
    )
    parser.add_argument("-r", "--repetitions", type=whole, default=5, metavar="N", help="of each test [5]")
    parser.add_argument(
        "--isa", default="auto", metavar="NAME", help="force an ISA variant of corral [CORRAL_ISA, else auto]"
    )
    parser.add_argument(
        "--compare",
        choices=["llama.cpp"],
        help="run this too, in turns, with its fastest settings (needs llama-cpp-python)",
    )
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PATH",
        help="the interpreter that has llama-cpp-python [this one]",
    )
    parser.add_argument("--chart", metavar="FILE", help="write a chart (SVG)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    from corral.system import cpu

    _check(args)
    decision = cpu.decide(args.threads, cpu.limits())
    if decision.warning:
        print(f"warning: {decision.warning.partition(';')[0]}", file=sys.stderr)
    threads = decision.threads
    reports = [bench(path, threads, args) for path in args.model]
    if args.chart:
        Path(args.chart).write_text(chart(reports))
    if args.json:
        print(json.dumps({"machine": machine(), "threads": threads, "models": reports}))
    else:
        for report in reports:
            _print(report, threads)
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can't work is said in one line, before anything is timed."""
    from corral.program.native import check_isa

    if not any(cases(args)):
        raise OptionError("-p and -n are 0, expected a number of tokens for one of them")
    for path in args.model:
        _check_model(path, *_size(list(cases(args))))
    check_isa(args.isa)
    if args.compare:
        check(args.peer_python)
    if args.chart and not Path(args.chart).absolute().parent.is_dir():
        raise OptionError(f"--chart is {args.chart}, expected a file in a folder that exists")


def _check_model(path: str, streams: int, context: int) -> None:
    """Raises ModelFileError, OptionError: it can't be run, or not with so many tokens in so many streams."""
    from corral.engine.load import plan_memory
    from corral.system import budget

    with GGUFFile.open(path) as file:
        needed = plan_memory(file, EngineConfig(ctx_size=context * streams, parallel=streams)).total
    limit = budget.memory_limit()
    if limit and needed > limit.bytes:
        raise OptionError(
            f"{path} needs {budget.mib(needed)} of memory with {streams} x {context} tokens, there are "
            f"{budget.mib(limit.bytes)} ({limit.source}); expected less of --n-depth, --n-prompt, --n-gen or "
            "--parallel, or a smaller model"
        )


def _size(todo: Sequence[Case]) -> tuple[int, int]:
    """The most streams, and the most tokens of one."""
    return max(c.streams for c in todo), max(c.depth + c.tokens for c in todo)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    for depth in args.n_depth:
        for tokens in args.n_prompt:
            if tokens:
                yield Case("prefill", tokens, depth=depth)
        for tokens in args.n_gen:
            for streams in args.parallel:
                if tokens:
                    yield Case("decode", tokens, streams, depth)


def bench(path: str, threads: int, args: argparse.Namespace) -> dict[str, Any]:
    """Time every case on every side, in turns. Returns a report as --json prints it."""
    todo = list(cases(args))
    streams, context = _size(todo)
    common = [path, str(threads), args.isa, str(streams), str(context)]
    workers: list[Worker] = []
    before = measured_limits(args.isa, threads)
    try:
        workers.append(Worker.start("corral", sys.executable, common))
        if args.compare:
            workers.append(Worker.start(args.compare, args.peer_python, common))
        for case in todo:
            _say(f"{path}: {case.name}")
            for worker in workers[1:]:
                worker.choose(case)
            for turn in range(args.repetitions + 1):
                for worker in workers:
                    seconds = worker.time(case)
                    if turn:  # the first is a warm-up
                        worker.seconds.setdefault(case, []).append(seconds)
    finally:
        _say("")
        for worker in workers:
            worker.close()
    after = measured_limits(args.isa, threads)
    limits = max(before[0], after[0]), max(before[1], after[1])  # a neighbour can only make them smaller
    return {
        "model": path,
        "limits": {"int8_multiply_adds": limits[0], "memory_bytes": limits[1]},
        "sides": {w.name: {**w.about, "peak_bytes": w.peak_bytes} for w in workers},
        "tests": [_result(case, workers, limits) for case in todo],
    }


def _say(text: str) -> None:
    """On a terminal, in a line that the next one replaces: what is being timed."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def measured_limits(isa: str, threads: int) -> tuple[float, float]:
    """(int8 multiply-adds a second, bytes read a second) of this machine with so many threads."""
    from corral import _native

    return _native.measure_limits(isa, threads, LIMIT_BYTES)


def _result(case: Case, workers: Sequence[Worker], limits: tuple[float, float]) -> dict[str, Any]:
    about = workers[0].about
    dots, read = limits
    if case.op == "prefill":
        limit = dots / about["weights"]
    else:  # each step reads the weights once and multiplies them with every stream's token
        limit = case.streams / max(about["weight_bytes"] / read, case.streams * about["weights"] / dots)
    sides: dict[str, dict[str, Any]] = {}
    for worker in workers:
        rates = [case.total / seconds for seconds in worker.seconds[case]]
        low, middle, high = quartiles(rates)
        sides[worker.name] = {
            "tokens_per_second": middle,
            "low": low,
            "high": high,
            "of_limit": middle / limit,
        }
        if case in worker.settings:
            sides[worker.name]["setting"] = worker.settings[case].name
    result = {"test": case.name, **vars(case), "limit": limit, "sides": sides}
    if len(workers) == 2:
        ours, theirs = (worker.seconds[case] for worker in workers)
        result["ratio"] = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return result


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(first quartile, median, third quartile); of one value, itself three times."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        name = names[0] if names else name
    return {"cpu": name, "python": platform.python_version(), "system": platform.platform()}


def chart(reports: Sequence[dict[str, Any]]) -> str:
    """Tokens a second of every test as bars; the ratio is behind corral's."""
    groups = []
    for report in reports:
        name = Path(report["model"]).stem
        for test in report["tests"]:
            values = [side["tokens_per_second"] for side in test["sides"].values()]
            texts = [f"{value:.1f}" for value in values]
            if "ratio" in test:
                texts[0] += f" ({test['ratio']:.1f}x)"
            groups.append(Group(test["test"], values, texts, name[:26] if len(reports) > 1 else ""))
    title = "Tokens a second" if len(reports) > 1 else f"{name}, tokens a second"
    return bars(title, list(reports[0]["sides"]), groups)


def _print(report: dict[str, Any], threads: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    names = list(report["sides"])
    gib = 1 << 30
    console.print(f"\n[bold]{report['model']}[/bold], {threads} threads")
    for name, side in report["sides"].items():
        console.print(
            f"  {name} ({side['version']}): {side['isa']}; loaded in {side['load_seconds']:.2f} s, "
            f"peak memory {side['peak_bytes'] / gib:.2f} GiB"
        )
    limits = report["limits"]
    console.print(
        f"  machine: {machine()['cpu']}; {limits['int8_multiply_adds'] / 1e9:.0f} G int8 multiply-adds/s, "
        f"{limits['memory_bytes'] / 1e9:.1f} GB/s read"
    )
    table = Table()
    table.add_column("test")
    for name in names:
        table.add_column(f"{name}, tokens/s", justify="right")
    table.add_column("of the limit", justify="right")
    if len(names) == 2:
        table.add_column("ratio", justify="right")
    for test in report["tests"]:
        sides = [test["sides"][name] for name in names]
        row = [test["test"]]
        row += [f"{s['tokens_per_second']:.1f} ({s['low']:.1f} to {s['high']:.1f})" for s in sides]
        row.append(f"{100 * sides[0]['of_limit']:.0f} %")
        if len(names) == 2:
            row.append(f"{test['ratio']:.2f}x")
        table.add_row(*row)
    console.print(table)
    if len(names) == 2:
        console.print(f"{names[1]} ran with the fastest of the settings that were tried:")
        for test in report["tests"]:
            console.print(f"  {test['test']}: {test['sides'][names[1]]['setting']}")


def whole(text: str) -> int:
    """A number of 1 or more, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(word) for word in text.split(","))
    except ValueError:
        values = (-1,)
    if any(value < 0 for value in values):
        raise argparse.ArgumentTypeError(
            f"expected numbers with commas between, such as 128,512, got {text!r}"
        )
    return values


def _streams(text: str) -> tuple[int, ...]:
    values = _counts(text)
    if 0 in values:
        raise argparse.ArgumentTypeError(f"expected numbers of 1 or more, got {text!r}")
    return values
