"""The `llm` tool with its OpenAI-compatible models, on a live port, with a fake engine behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from fake_engine import FakeEngine, fake_state
from replies import CALLS, parse_as

from corral.engine.messages import ErrorInfo, Output

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::DeprecationWarning")]

llm: Any = pytest.importorskip("llm")

KINDS = ["chat", "completion", "responses"]


@pytest.fixture
def model(live: Callable[[Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`model(kind, engine)`, as a user's extra-openai-models.yaml describes it."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))

    def make(kind: str, engine: FakeEngine | None = None) -> Any:
        described = {
            "model_id": "corral",
            "model_name": "tiny",
            "api_base": live(fake_state(engine or FakeEngine(["Hel", "lo"]))) + "/v1",
            "supports_tools": True,
            kind: True,
        }
        (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([described]))
        found = llm.get_model("corral")
        found.key = "k"
        return found

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt(model: Any, kind: str, stream: bool) -> None:
    response = model(kind).prompt("hi", stream=stream)
    assert response.text() == "Hello"


@pytest.mark.parametrize("kind", ["chat", "responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_calls(model: Any, kind: str, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_as(monkeypatch, CALLS)
    calls = model(kind).prompt("hi", stream=stream).tool_calls()
    assert [(c.name, c.arguments) for c in calls] == [("weather", {"city": "Oslo"}), ("time", {})]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error(model: Any, kind: str) -> None:
    broke = Output(id="", finish_reason="error", error=ErrorInfo(400, "invalid_request_error", "broke"))
    with pytest.raises(openai.BadRequestError, match="broke"):
        model(kind, FakeEngine([broke])).prompt("hi").text()
