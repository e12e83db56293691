"""`corral bench`: its arithmetic, and a real run on a toy model."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_model import write_toy_model

from corral import cli
from corral.errors import OptionError
from corral.gguf.writer import GGUFWriter
from corral.tools import bench
from corral.tools.bench import Case, Worker
from corral.tools.bench_peer import Setting, fastest


@pytest.fixture
def toy_file(tmp_path: Path) -> Path:
    return write_toy_model(tmp_path / "toy.gguf")


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(["-m", "x.gguf", *words])


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["pp512", "tg128"]),
        (["-p", "0", "-n", "16", "--parallel", "1,8"], ["tg16", "tg16 x8"]),
        (["-p", "32,64", "-n", "0", "-d", "0,128"], ["pp32", "pp64", "pp32 @128", "pp64 @128"]),
    ],
)
def test_cases(words: list[str], names: list[str]) -> None:
    assert [case.name for case in bench.cases(arguments(*words))] == names


@pytest.mark.parametrize("text", ["x", "1,,2", "-1", ""])
def test_counts_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(f"--n-prompt={text}")
    assert "expected numbers with commas between" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], (3.0, 3.0, 3.0)), ([1.0, 2.0, 3.0, 4.0, 5.0], (2.0, 3.0, 4.0)), ([4.0, 2.0], (2.5, 3.0, 3.5))],
)
def test_quartiles(values: list[float], expected: tuple[float, float, float]) -> None:
    assert bench.quartiles(values) == expected


def worker(name: str, seconds: dict[Case, list[float]]) -> Worker:
    made = Worker(name, process=None)  # type: ignore[arg-type]  # nothing is run
    made.about = {"weights": 1e9, "weight_bytes": 5e8}
    made.seconds = seconds
    return made


def test_the_ratio_is_the_median_over_pairs_and_the_limit_is_the_scarcer_resource() -> None:
    case = Case("decode", tokens=10, streams=2)
    sides = [worker("corral", {case: [1.0, 2.0, 4.0]}), worker("llama.cpp", {case: [3.0, 3.0, 20.0]})]
    result = bench._result(case, sides, limits=(5e9, 5e9))
    assert result["ratio"] == 3.0  # of 3, 1.5 and 5
    assert result["sides"]["corral"]["tokens_per_second"] == 10.0  # 20 tokens in the median of 2 s
    assert result["limit"] == 5.0  # 2e9 multiply-adds take 0.4 s, longer than the 0.1 s of reading
    alone = Case("decode", tokens=10)
    result = bench._result(alone, [worker("corral", {alone: [1.0]})], limits=(1e12, 5e9))
    assert result["limit"] == 10.0
    assert "ratio" not in result


def test_a_side_that_dies_is_named() -> None:
    with pytest.raises(OptionError, match="the corral side ended with code 1"):
        Worker.start("corral", sys.executable, ["missing.gguf", "1", "auto", "1", "8"])


def test_a_side_that_prints_no_answer_is_named() -> None:
    words = [sys.executable, "-c", "print('assertion failed'); raise SystemExit(3)"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with pytest.raises(OptionError, match="the peer side ended with code 3"):
        Worker("peer", process)._answer()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--isa", "sse9"], "--isa is sse9, expected one that this CPU can run: auto"),
        (["-p", "0", "-n", "0"], "-p and -n are 0"),
        (["--chart", "missing/chart.svg"], "--chart is missing/chart.svg, expected a file in a folder"),
        (["-m", "missing.gguf"], "missing.gguf: file is missing"),
        (["-d", "1000000000000"], "toy.gguf needs "),
        (["-m", "clip.gguf"], "clip.gguf: general.architecture is 'clip', expected one of"),
        (["--compare", "llama.cpp", "--peer-python", "/none"], "--peer-python is /none, expected an interp"),
        (["--compare", "llama.cpp", "--peer-python", "false"], "false can't import llama_cpp"),
    ],
)
@pytest.mark.native
def test_what_cant_work_is_told_before_anything_is_timed(
    words: list[str],
    message: str,
    toy_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(bench, "bench")
    monkeypatch.chdir(toy_file.parent)
    GGUFWriter(Path("clip.gguf"), "clip").write()
    assert cli.main(["bench", "-m", str(toy_file), *words]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_no_stream_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments("--parallel", "1,0")
    assert "expected numbers of 1 or more, got '1,0'" in capsys.readouterr().err


def test_the_variable_of_the_server_forces_a_variant_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(bench, "run", lambda args: seen.append(args.isa) or 0)
    monkeypatch.setenv("CORRAL_ISA", "scalar")
    cli.main(["bench", "-m", "x"])
    cli.main(["bench", "-m", "x", "--isa", "avx2"])
    monkeypatch.delenv("CORRAL_ISA")
    cli.main(["bench", "-m", "x"])
    assert seen == ["scalar", "avx2", "auto"]


@pytest.mark.native
def test_more_threads_than_may_run_are_not_started(
    toy_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "bench", lambda path, threads, args: {})
    assert cli.main(["bench", "-m", str(toy_file), "-t", "4000", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["threads"] < 4000
    assert said.err.startswith("warning: --threads 4000 is more than the ")


@pytest.mark.parametrize(
    ("op", "tokens", "streams", "wanted", "tried"),
    [
        ("decode", 64, 1, Setting(flash=False), 2),
        ("decode", 64, 8, Setting(flash=False, unified=False), 3),
        ("prefill", 512, 8, Setting(flash=False, ubatch=128), 3),
        ("prefill", 128, 1, Setting(flash=False), 2),  # no more than the smaller ubatch
        ("decode", 64, 8, Setting(), 3),
    ],
)
def test_the_peer_gets_its_fastest_settings(
    op: str, tokens: int, streams: int, wanted: Setting, tried: int
) -> None:
    times: dict[Setting, float] = {}

    def seconds(setting: Setting) -> float:
        assert setting not in times
        times[setting] = 1.0 + sum(vars(setting)[name] != value for name, value in vars(wanted).items())
        return times[setting]

    assert fastest(op, tokens, streams, seconds) == wanted
    assert len(times) == tried


def test_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "-m", "missing.gguf"]) == 1
    assert capsys.readouterr().err.startswith("error: missing.gguf: file is missing")


@pytest.mark.native
@pytest.mark.slow
def test_a_toy_model(capsys: pytest.CaptureFixture[str], toy_file: Path) -> None:
    words = ["bench", "-m", str(toy_file), "-t", "1", "-r", "2"]
    words += ["-p", "40", "-n", "3", "-d", "0,64", "--parallel", "1,2"]
    assert cli.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    tests = report["models"][0]["tests"]
    assert [test["test"] for test in tests] == ["pp40", "tg3", "tg3 x2", "pp40 @64", "tg3 @64", "tg3 x2 @64"]
    assert all(test["sides"]["corral"]["tokens_per_second"] > 0 for test in tests)
    assert report["models"][0]["limits"]["memory_bytes"] > 1e8
    peak = report["models"][0]["sides"]["corral"]["peak_bytes"]
    assert 10 << 20 < peak < 200 << 20  # of its process alone: this one has read 512 MiB for the limits
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "tg3 x2" in shown
    assert "of the limit" in shown


@pytest.mark.native
@pytest.mark.slow
def test_a_comparison(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, toy_file: Path
) -> None:
    """With a stand-in that refuses a token at a wrong position. Both sides, each setting, a deep cache."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "fake_peer"))
    words = ["bench", "-m", str(toy_file), "-t", "1", "-r", "1", "--compare", "llama.cpp"]
    words += ["-p", "150", "-n", "3", "-d", "64", "--parallel", "1,2"]
    assert cli.main([*words, "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["models"]
    found = {test["test"]: test["sides"]["llama.cpp"]["setting"] for test in report["tests"]}
    alone, together = "no flash attention, ubatch 512, one cache", "no flash attention, ubatch 512, a cache"
    assert found["tg3 @64"] == alone
    assert found["tg3 x2 @64"].startswith(together)
    assert found["pp150 @64"].startswith("no flash attention, ubatch")
    assert all(test["ratio"] > 0 for test in report["tests"])
    assert report["sides"]["llama.cpp"]["isa"] == "AVX2"


def test_the_chart_has_a_group_for_each_test() -> None:
    sides = {"corral": {"tokens_per_second": 30.0}, "llama.cpp": {"tokens_per_second": 10.0}}
    tests = [{"test": name, "sides": sides, "ratio": 3.0} for name in ("pp512", "tg64 x8")]
    report = {"model": "/m/model.gguf", "sides": sides, "tests": tests}
    drawn = bench.chart([report])
    assert [drawn.count(text) for text in (">pp512<", ">tg64 x8<", ">30.0 (3.0x)<", ">10.0<")] == [1, 1, 2, 2]
    assert ">model, tokens a second<" in drawn
    several = bench.chart([report, {**report, "model": "other.gguf"}])
    assert [several.count(text) for text in (">model<", ">other<")] == [2, 2]
