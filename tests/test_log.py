"""The shapes of the log."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from corral import log
from corral.config import ServerConfig
from corral.errors import OptionError


@pytest.fixture(autouse=True)
def _pytests_own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(**settings: Any) -> list[str]:
    stream = io.StringIO()
    # basicConfig closes the handlers it finds; pytest's are put back afterwards
    logging.getLogger().handlers[:] = []
    log.setup(replace(ServerConfig(), **settings), stream)
    logger = logging.getLogger("corral.x")
    logger.log(log.TRACE, "t")
    logger.debug("d")
    logger.info("i %d", 1)
    logger.warning("w")
    logger.error("e")
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("name", ["stderr", "stdout"])
def test_the_stream_is_looked_up_when_it_is_written_to(
    name: Literal["stderr", "stdout"], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.setup(ServerConfig(log_stream=name))
    later = io.StringIO()
    monkeypatch.setattr(f"sys.{name}", later)  # as a progress bar does
    logging.getLogger("corral.x").info("hello")
    assert later.getvalue() == "hello\n"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["i 1", "warning: w", "error: e"]),
        ({"verbosity": -1}, []),
        ({"verbosity": 0}, []),
        ({"verbosity": 1}, ["error: e"]),
        ({"verbosity": 2}, ["warning: w", "error: e"]),
        ({"verbosity": 4}, ["d", "i 1", "warning: w", "error: e"]),
        ({"verbosity": 5}, ["t", "d", "i 1", "warning: w", "error: e"]),
        ({"log_prefix": True}, ["info corral.x: i 1", "warning corral.x: w", "error corral.x: e"]),
        ({"log_colors": "on"}, ["i 1", "\x1b[33mwarning: w\x1b[0m", "\x1b[31merror: e\x1b[0m"]),
        ({"log_colors": "off"}, ["i 1", "warning: w", "error: e"]),
    ],
)
def test_lines(settings: dict[str, Any], expected: list[str]) -> None:
    assert lines(**settings) == expected


def test_timestamps() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} i 1", lines(log_timestamps=True)[0])


def test_json_lines() -> None:
    first, *_ = (json.loads(line) for line in lines(log_jsonl=True, log_colors="on"))
    assert first.pop("time") > 1.7e9
    assert first == {"level": "info", "logger": "corral.x", "message": "i 1"}


def test_json_keeps_a_traceback_on_its_line() -> None:
    stream = io.StringIO()
    logging.getLogger().handlers[:] = []
    log.setup(ServerConfig(log_jsonl=True), stream)
    try:
        raise ValueError("why\nso")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: why\nso" in json.loads(line)["traceback"]


def test_the_file_gets_the_same_without_colours(tmp_path: Path) -> None:
    lines(log_file=str(tmp_path / "log"), log_colors="on")
    assert (tmp_path / "log").read_text().splitlines() == ["i 1", "warning: w", "error: e"]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--log-file .*can't write"):
        log.setup(ServerConfig(log_file=str(tmp_path)))
