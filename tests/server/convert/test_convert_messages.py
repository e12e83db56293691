"""Bodies of Anthropic's /v1/messages as chat requests."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from corral.errors import NotSupported, RequestError
from corral.server.convert import messages
from corral.server.convert.messages import MessagesRequest, chat_request
from corral.server.decode import Schema
from corral.server.schema import ChatRequest

SCHEMA = Schema(MessagesRequest)
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}


@pytest.fixture(autouse=True)
def _everything_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "check_supported", lambda _: None)


def convert(*said: Any, **body: Any) -> ChatRequest:
    return chat_request(SCHEMA.read(msgspec.json.encode({"messages": said, **body})))


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


HI = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (HI, [HI]),
        (user(text("a")), [{"role": "user", "content": "a"}]),
        (user(text("a"), text("b")), [{"role": "user", "content": [text("a"), text("b")]}]),
        (user(), [{"role": "user", "content": ""}]),
        ({"role": "system", "content": [text("s")]}, [{"role": "system", "content": "s"}]),
        (
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "redacted_thinking", "data": "xx"},
                    text("a"),
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}},
                ],
            },
            [
                {
                    "role": "assistant",
                    "content": "a",
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
                    ],
                }
            ],
        ),
        (
            user(
                {"type": "tool_result", "tool_use_id": "t1", "content": "42"},
                {"type": "tool_result", "tool_use_id": "t2", "content": [text("43")]},
                {"type": "tool_result", "tool_use_id": "t3"},
                text("so?"),
            ),
            [
                {"role": "tool", "tool_call_id": "t1", "content": "42"},
                {"role": "tool", "tool_call_id": "t2", "content": "43"},
                {"role": "tool", "tool_call_id": "t3", "content": ""},
                {"role": "user", "content": "so?"},
            ],
        ),
        (
            user({"type": "tool_result", "tool_use_id": "t", "content": "no file", "is_error": True}),
            [{"role": "tool", "tool_call_id": "t", "content": [text("Error:"), text("no file")]}],
        ),
        (
            user({"type": "document", "title": "T", "source": {"type": "text", "data": "d"}}),
            [{"role": "user", "content": "T\nd"}],
        ),
    ],
    ids=str,
)
def test_messages(given: Any, expected: Any) -> None:
    assert convert(given).messages == expected


def test_no_messages() -> None:
    assert convert().messages == [{"role": "user", "content": ""}]


@pytest.mark.parametrize(
    ("system", "content"), [("be kind", "be kind"), ([text("a"), text("b")], [text("a"), text("b")])]
)
def test_system(system: Any, content: Any) -> None:
    assert convert(HI, system=system).messages == [{"role": "system", "content": content}, HI]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"max_tokens": 4096, "tools": None, "enable_thinking": None}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"n": 3, "n_cmpl": 3}, {"n": None, "n_cmpl": None}),
        (
            {"stop_sequences": ["END"], "top_k": 3, "temperature": 0.1},
            {"stop": ["END"], "top_k": 3, "temperature": 0.1},
        ),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False, "reasoning_budget_tokens": None}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            {"enable_thinking": True, "reasoning_budget_tokens": 2048},
        ),
        ({"thinking": {"type": "adaptive"}}, {"enable_thinking": True}),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "output", "schema": {"type": "object"}},
                }
            },
        ),
        ({"tools": [TOOL]}, {"tools": [CHAT_TOOL], "tool_choice": None, "parallel_tool_calls": None}),
        ({"tools": [{**TOOL, "type": "custom"}]}, {"tools": [CHAT_TOOL]}),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            },
            {
                "tool_choice": {"type": "function", "function": {"name": "f"}},
                "parallel_tool_calls": False,
            },
        ),
    ],
    ids=str,
)
def test_fields(body: Any, fields: Any) -> None:
    chat = convert(HI, **body)
    assert {name: getattr(chat, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("message", "body", "words"),
    [
        (HI, {"messages": None}, ["'messages'", "an array"]),
        ("hi", {}, ["'messages[0]'", "object"]),
        ({"role": "robot", "content": ""}, {}, ["'messages[0].role'", "'assistant'", "robot"]),
        ({"role": "user"}, {}, ["'messages[0].content'", "missing"]),
        ({"role": "user", "content": 3}, {}, ["'messages[0].content'", "a string", "3"]),
        (user({"type": "video"}), {}, ["'messages[0].content[0].type'", "'tool_result'", "video"]),
        (
            user({"type": "document", "source": {"type": "base64"}}),
            {},
            ["'messages[0].content[0].source.type'", "'text'", "base64"],
        ),
        (user({"type": "tool_use", "id": "", "name": "", "input": {}}), {}, ["[0].type'", "tool_use"]),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": "x"}]},
            {},
            ["'messages[0].content[0].input'", "an object"],
        ),
        (HI, {"max_tokens": "5"}, ["'max_tokens'", "an integer"]),
        (HI, {"system": [{"type": "image"}]}, ["'system[0].type'", "'text'"]),
        (HI, {"thinking": {"type": "on"}}, ["'thinking.type'", "'adaptive'", "on"]),
        (HI, {"thinking": {"type": "enabled", "budget_tokens": -1}}, ["budget_tokens", "0", "-1"]),
        (HI, {"tools": [{"name": "f"}]}, ["'tools[0].input_schema'", "missing"]),
        (HI, {"tools": [{"type": "web_search_20250305", "name": "w"}]}, ["'tools[0].type'", "'custom'"]),
        (HI, {"tools": [TOOL], "tool_choice": {"type": "all"}}, ["'tool_choice.type'", "'any'", "all"]),
        (HI, {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, ["'tool_choice.name'", "'f'"]),
        (HI, {"output_config": {"effort": "none"}}, ["'output_config.effort'", "'low'", "none"]),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(message: Any, body: Any, words: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        convert(message, **body)
    assert caught.value.status == 400
    assert [w for w in words if w not in str(caught.value)] == [], str(caught.value)


def test_images_are_not_supported() -> None:
    with pytest.raises(NotSupported, match=r"'messages\[0\].content\[0\]': 'image' is not supported"):
        convert(user({"type": "image", "source": {}}))
