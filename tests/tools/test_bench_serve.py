"""`corral bench serve`: a round against two real servers with a toy model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from toy_model import write_toy_model

from corral import cli
from corral.errors import OptionError
from corral.tools.bench_serve import Server


@pytest.fixture
def toy_file(tmp_path: Path) -> Path:
    return write_toy_model(tmp_path / "toy.gguf")


@pytest.mark.native
@pytest.mark.slow
def test_two_servers_side_by_side(toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chart = tmp_path / "chart.svg"
    other = f"{sys.executable} -m corral.cli serve"
    words = ["bench", "serve", "-m", str(toy_file), "--compare-with", other, "--chart", str(chart), "--json"]
    words += ["--requests", "3", "--clients", "2", "--parallel", "2", "--rounds", "1"]
    words += ["--prompt-words", "3", "--max-tokens", "4", "--threads", "1"]
    assert cli.main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["sides"]) == 2
    for side in report["sides"].values():
        assert side["failed"] == 0
        assert side["output_tokens_per_second"] > 0
        assert side["peak_bytes"] > 1 << 20
    assert chart.read_text().count("output tokens/s") == 1


@pytest.mark.slow
def test_a_server_that_does_not_start_is_told(toy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "serve", "-m", str(toy_file.with_name("absent.gguf")), "--rounds", "1"]
    assert cli.main(words) == 1
    assert "corral did not get ready" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "x"])
def test_a_rate_that_can_not_be(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "serve", "-m", "x", f"--rate={rate}"])
    assert f"expected a number above 0, got '{rate}'" in capsys.readouterr().err


def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(OptionError, match="/nonexistent/server"):
        Server.start("x", ["/nonexistent/server"], [])
