"""langchain-openai, on a live port, with a fake engine behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from fake_engine import FakeEngine, fake_state
from replies import ALL, CALL_WORDS, CALLS, HERMES, parse_as

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::DeprecationWarning")]

langchain_openai: Any = pytest.importorskip("langchain_openai")

BOTH = pytest.mark.parametrize("responses", [False, True])


@pytest.fixture
def chat(live: Callable[[Any], str]) -> Callable[..., Any]:
    def make(state: Any = None, **options: Any) -> Any:
        url = live(state or fake_state(FakeEngine(["Hel", "lo"]))) + "/v1"
        return langchain_openai.ChatOpenAI(base_url=url, api_key="k", model="x", max_retries=0, **options)

    return make


def text(message: Any) -> str:
    found = message.text
    return str(found() if callable(found) and not isinstance(found, str) else found)


@BOTH
def test_a_chat(chat: Any, responses: bool) -> None:
    model = chat(use_responses_api=responses, stream_usage=True)
    message = model.invoke([("system", "be kind"), ("human", "hi")])
    assert text(message) == "Hello"
    assert message.usage_metadata["output_tokens"] == 2
    chunks = list(model.stream("hi"))
    assert "".join(map(text, chunks)) == "Hello"
    assert sum(c.usage_metadata["output_tokens"] for c in chunks if c.usage_metadata) == 2


@BOTH
def test_calls(chat: Any, responses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_as(monkeypatch, CALLS)
    model = chat(use_responses_api=responses)
    whole = model.invoke("hi")
    first, *rest = model.stream("hi")
    for chunk in rest:
        first += chunk
    for message in (whole, first):
        assert [(c["name"], c["args"], c["id"]) for c in message.tool_calls] == [
            ("weather", {"city": "Oslo"}, "call_1"),
            ("time", {}, "call_2"),
        ]


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_bound_tools(chat: Any, responses: bool, stream: bool) -> None:
    from langchain_core.tools import tool

    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return city

    engine = FakeEngine(CALL_WORDS)
    model = chat(fake_state(engine, HERMES), use_responses_api=responses)
    bound = model.bind_tools([weather], tool_choice="weather")
    message, *rest = bound.stream("hi") if stream else [bound.invoke("hi")]
    for chunk in rest:
        message += chunk
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [("weather", {"city": "Oslo"})]
    assert engine.submits[0].constraint is not None


@BOTH
def test_a_reply_goes_back_as_history(chat: Any, responses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage

    parse_as(monkeypatch, ALL)
    model = chat(use_responses_api=responses)
    reply = model.invoke("hi")
    results = [ToolMessage("21 °C", tool_call_id=c["id"]) for c in reply.tool_calls]
    assert text(model.invoke([HumanMessage("hi"), reply, *results])) == "Hello"


@BOTH
def test_errors(chat: Any, responses: bool) -> None:
    model = chat(use_responses_api=responses, top_p=2)
    with pytest.raises(openai.BadRequestError, match="top_p"):
        model.invoke("hi")
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        chat(use_responses_api=responses).invoke("x" * 500)
