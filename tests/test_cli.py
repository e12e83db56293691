"""The commands, with the server and the tools replaced by a few lines."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from corral import __version__, cli
from corral.config import EngineConfig, ModelConfig, ServerConfig
from corral.errors import CorralError, ModelFileError

Served = list[tuple[ModelConfig, EngineConfig, ServerConfig, Sequence[str]]]


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("LLAMA_", "CORRAL_", "XDG_CONFIG")) or name in ("HOME", "NO_COLOR"):
            monkeypatch.delenv(name)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """What the server was started with. Logging is left alone: it belongs to pytest here."""
    calls: Served = []
    module = ModuleType("corral.server.serve")

    def run(model: ModelConfig, engine: EngineConfig, server: ServerConfig, warnings: Sequence[str]) -> int:
        calls.append((model, engine, server, warnings))
        return 0

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "corral.server.serve", module)
    monkeypatch.setattr("corral.log.setup", lambda config: None)
    return calls


def test_serve(served: Served) -> None:
    assert cli.main(["serve", "-m", "x", "--threads", "1", "-ngl", "9"]) == 0
    ((model, engine, server, warnings),) = served
    assert model == ModelConfig(path="x")
    assert engine == EngineConfig(threads=1)
    assert server == ServerConfig()
    assert len(warnings) == 1


def test_llama_server_is_serve(served: Served) -> None:
    assert cli.llama_server(["-m", "x", "--threads", "1"]) == 0
    assert served[0][0].path == "x"


def test_the_environment_counts(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_MODEL", "y")
    assert cli.llama_server([]) == 0
    assert served[0][0].path == "y"


def test_threads_are_decided_and_clamped(served: Served) -> None:
    assert cli.main(["serve", "-m", "x", "-t", "1024"]) == 0
    _, engine, _, warnings = served[0]
    assert engine.threads is not None
    assert 1 <= engine.threads < 1024
    assert any("--threads 1024" in warning for warning in warnings)
    assert cli.main(["serve", "-m", "x", "-t", "1024", "--force-threads"]) == 0
    assert served[1][1].threads == 1024
    assert cli.main(["serve", "-m", "x"]) == 0
    assert served[2][1].threads is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve"], "error: no model to serve, expected --model FILE, LLAMA_ARG_MODEL or --hf-repo"),
        (["serve", "--bogus"], "error: invalid argument: --bogus\n"),
        (["serve", "--port"], 'error while handling argument "--port": expected value for argument\n'),
        (["fly"], "error: unknown command 'fly', expected serve, info, tokenize, bench, pull or health\n"),
        (
            ["--model", "x"],
            "error: unknown command '--model', expected serve, info, tokenize, bench, pull or health; ",
        ),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert err.startswith(message)
    assert out == ""


def test_an_error_while_serving_is_one_line(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise ModelFileError("x", "magic", "abc", "GGUF")

    monkeypatch.setattr(sys.modules["corral.server.serve"], "run", fail)
    assert cli.main(["serve", "-m", "x"]) == 1
    assert caplog.messages == ["x: magic is abc, expected GGUF"]


@pytest.mark.parametrize("words", [["--version"], ["serve", "--version"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"version: {__version__} (corral)\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], "usage: corral <command>"),
        (["serve", "--help"], "usage: corral serve --model FILE"),
        (["serve", "-h", "--bogus"], "--ctx-size N"),
        (["serve", "--completion-bash"], "complete -o filenames"),
        (["serve", "--list-devices"], "CPU: "),
    ],
)
def test_what_is_printed_instead(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert said in out
    assert err == ""


def test_no_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 1
    assert "serve" in capsys.readouterr().out


def test_a_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = ModuleType("corral.tools.info")

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file")

    def run(args: argparse.Namespace) -> int:
        if args.file == "bad":
            raise CorralError("bad file")
        return 7

    module.add_arguments, module.run = add_arguments, run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "corral.tools.info", module)
    assert cli.main(["info", "x"]) == 7
    assert cli.main(["info", "bad"]) == 1
    assert capsys.readouterr().err == "error: bad file\n"


HEAVY = {"numpy", "starlette", "uvicorn", "jinja2", "tokenizers", "sentencepiece", "asyncio", "rich"}


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["serve", "--version"], ["serve", "--help"]])
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    code = f"import sys\nfrom corral import cli\ncli.main({words!r})\nprint('modules:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split("modules:")[1].split())


def test_a_server_that_downloads_nothing_does_not_import_the_hub() -> None:
    code = "import sys, corral.server.serve, corral.engine.load; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"huggingface_hub", "httpx", "urllib.request"} & set(done.stdout.split())


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_before_the_server_runs_ends_it(number: str) -> None:
    code = (
        f"import os, signal, corral.cli as cli; cli._end_at_signals(); os.kill(os.getpid(), signal.{number})"
    )
    result = subprocess.run([sys.executable, "-c", f"{code}; print('alive')"], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def serve_nothing(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "corral.cli", "serve", "--model", str(folder / "none.gguf"), *flags]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.mark.slow
def test_what_ends_a_server_is_in_its_log(tmp_path: Path) -> None:
    copy = tmp_path / "log"
    done = serve_nothing(tmp_path, "--log-jsonl", "--log-stream", "stdout", "--log-file", str(copy))
    assert (done.returncode, done.stderr) == (1, "")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["level"], "none.gguf: file is missing" in last["message"]) == ("error", True)
    assert copy.read_text() == done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--log-disable",), ("--verbosity", "0")])
def test_what_ends_a_server_is_said_whatever_is_logged(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = serve_nothing(tmp_path, *flags)
    assert (done.returncode, done.stdout) == (1, "")
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert error.startswith(f"error: {tmp_path}/none.gguf: file is missing")


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("corral.tools.info.run", interrupted)
    assert cli.main(["info", "x.gguf"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words", [["--version"], ["--help"]])
def test_nowhere_to_print(words: list[str]) -> None:
    """A full disk is an error of one line; a reader that has gone is none, nor is no output."""
    command = [sys.executable, "-m", "corral.cli", *words]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: cannot write: No space left on device\n")
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
