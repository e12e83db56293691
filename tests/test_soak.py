"""A short soak of a server with a toy model, and what `scripts/soak.py` takes for wrong."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_model import TRAIN_CTX, write_toy_model

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> Any:
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.native
def test_every_request_ends_once_and_all_comes_back(tmp_path: Path) -> None:
    model = write_toy_model(tmp_path / "toy.gguf")
    command = [sys.executable, str(SCRIPT), "--model", str(model), "--ctx-size", str(TRAIN_CTX)]
    command += ["--minutes", "0.35", "--kill-seconds", "5", "--clients", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = {what: int(count) for count, what in re.findall(r"^ *(\d+)  (.+)$", done.stdout, re.MULTILINE)}
    assert {"engine killed", "stream: ok", "whole: ok", "leave_early: left", "too_long: refused 400"} <= set(
        seen
    )


def stream(*events: object) -> bytes:
    return b"".join(b"data: %s\n\n" % (e if isinstance(e, bytes) else json.dumps(e).encode()) for e in events)


STOP = {"choices": [{"finish_reason": "stop"}]}
TEXT = {"choices": [{"finish_reason": None}]}


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, stream(TEXT, STOP, b"[DONE]"), "ok"),
        (200, stream(TEXT, {"error": {}}), "error event"),
        (200, stream(TEXT, STOP), "WRONG: no [DONE]"),
        (200, stream(TEXT), "WRONG: a stream with 0 ends"),
        (200, stream(STOP, STOP, b"[DONE]"), "WRONG: a stream with 2 ends"),
        (503, b'{"error": {}}', "refused 503"),
        (429, b"", "WRONG: status 429"),
        (500, b'{"error": {}}', "error 500"),
        (404, b'{"error": {}}', "WRONG: status 404"),
    ],
)
def test_what_is_wrong_with_a_stream(soak: Any, status: int, body: bytes, verdict: str) -> None:
    assert soak.judge_stream(soak.Answer(status, body)) == verdict


def test_memory_that_grows_is_wrong(soak: Any) -> None:
    for growth, wrong in ((0, 0), (soak.GROWTH_BYTES, 0), (soak.GROWTH_BYTES + 1, 1)):
        run = soak.Soak(0, None, 0, None, 0.0)
        run.memory = [(0.0, 10**9), (1.0, 10**6), (2.5, 10**6 + growth), (3.0, 10**6)]
        soak.check_memory(run)
        assert len(run.wrong) == wrong


def test_the_gauges_exist(soak: Any) -> None:
    source = (SCRIPT.parent.parent / "corral/server/metrics.py").read_text()
    for name in soak.ZERO_WHEN_IDLE:
        assert f'"{re.split("llamacpp:|corral_", name)[1]}"' in source
