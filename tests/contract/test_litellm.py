"""litellm, through its OpenAI and Anthropic providers, on a live port, with a fake engine behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_engine import FakeEngine, fake_state
from replies import ALL, CALL_WORDS, HERMES, parse_as

from corral.chat.builtin import CHATML
from corral.engine.messages import ErrorInfo, Output

pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.filterwarnings(f"default{about}")  # its own ways with asyncio, pydantic and dates
        for about in (
            "::DeprecationWarning",
            ":.*ReadOnly:UserWarning",
            ":Pydantic serializer:UserWarning",
            "::ResourceWarning",
        )
    ),
]

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch a list of prices
litellm: Any = pytest.importorskip("litellm")

HI: Any = [{"role": "user", "content": "Hello!"}]
PROVIDERS = [("openai/x", "/v1"), ("anthropic/x", "")]


@pytest.fixture(scope="module", autouse=True)
def _close_its_event_loop() -> Iterator[None]:
    """It makes one for this thread, even when used without asyncio, and leaves it open."""
    yield
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):  # from Python 3.14 on there is none
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.get_event_loop().close()
    asyncio.set_event_loop(None)


def options(
    live: Callable[[Any], str], engine: FakeEngine, provider: tuple[str, str], template: str = CHATML
) -> dict[str, Any]:
    model, path = provider
    return {
        "model": model,
        "api_base": live(fake_state(engine, template)) + path,
        "api_key": "k",
        "max_retries": 0,
        "messages": HI,
    }


def fails(status: int, type: str) -> FakeEngine:
    return FakeEngine([Output(id="", finish_reason="error", error=ErrorInfo(status, type, "no"))])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_chat(live: Any, provider: Any) -> None:
    given = options(live, FakeEngine(["Hel", "lo"]), provider)
    response = litellm.completion(**given, max_tokens=9)
    assert response.choices[0].message.content == "Hello"
    assert response.choices[0].finish_reason == "stop"
    assert response.usage.completion_tokens == 2
    chunks = list(litellm.completion(**given, max_tokens=9, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_reasoning_and_calls(live: Any, provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_as(monkeypatch, ALL)
    given = options(live, FakeEngine(), provider)
    whole = litellm.completion(**given)
    streamed = litellm.stream_chunk_builder(list(litellm.completion(**given, stream=True)))
    for response in (whole, streamed):
        message = response.choices[0].message
        assert message.reasoning_content == "Let me think"
        assert message.content == "Hello"
        calls = [(c.id, c.function.name, c.function.arguments.replace(" ", "")) for c in message.tool_calls]
        assert calls == [("call_1", "weather", '{"city":"Oslo"}'), ("call_2", "time", "{}")]
        assert response.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("stream", [False, True])
def test_tools(live: Any, provider: Any, stream: bool) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    given = options(live, FakeEngine(CALL_WORDS), provider, HERMES)
    response = litellm.completion(**given, tools=[tool], tool_choice="required", stream=stream)
    if stream:
        response = litellm.stream_chunk_builder(list(response))
    (call,) = response.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    assert response.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_errors(live: Any, provider: Any) -> None:
    # what Anthropic calls overloaded is an internal error to litellm
    overloaded = litellm.ServiceUnavailableError if provider == PROVIDERS[0] else litellm.InternalServerError
    given = options(live, FakeEngine(), provider)
    with pytest.raises(litellm.BadRequestError, match="top_p"):
        litellm.completion(**given, top_p=2)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**{**given, "messages": [{"role": "user", "content": "x" * 500}]})
    for engine, error in [
        (fails(429, "unavailable_error"), litellm.RateLimitError),
        (fails(503, "unavailable_error"), overloaded),
        (fails(500, "server_error"), litellm.InternalServerError),
    ]:
        with pytest.raises(error, match="no"):
            litellm.completion(**options(live, engine, provider))


def test_ollamas_api(live: Any) -> None:
    given = options(live, FakeEngine(["Hel", "lo"]), ("ollama_chat/tiny", ""))
    response = litellm.completion(**given, max_tokens=9)
    assert response.choices[0].message.content == "Hello"
    assert response.usage.completion_tokens == 2
    chunks = list(litellm.completion(**given, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello"
    assert chunks[-1].choices[0].finish_reason == "stop"
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    given = options(live, FakeEngine(CALL_WORDS), ("ollama_chat/tiny", ""), HERMES)
    (call,) = litellm.completion(**given, tools=[tool]).choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
