"""Bodies of /v1/responses as chat requests."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from corral.errors import CorralError, NotSupported, RequestError
from corral.server.convert import responses
from corral.server.convert.responses import ResponsesRequest, chat_request, input_items
from corral.server.decode import Schema
from corral.server.schema import ChatRequest

SCHEMA = Schema(ResponsesRequest)
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.fixture(autouse=True)
def _everything_is_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "check_supported", lambda _: None)


def convert(**body: Any) -> ChatRequest:
    request = SCHEMA.read(msgspec.json.encode({"input": "hi", **body}))
    return chat_request(request, input_items(request))


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("hi", [{"role": "user", "content": "hi"}]),
        ([{"role": "user", "content": "hi"}], [{"role": "user", "content": "hi"}]),
        (
            [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]}],
            [{"role": "developer", "content": "a"}],
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]}],
            [{"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]}],
        ),
        (
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
            [{"role": "assistant", "content": "no"}],
        ),
        (
            [CALL, {"type": "function_call_output", "call_id": "c1", "output": "42"}],
            [
                {"role": "assistant", "content": "", "tool_calls": [CHAT_CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "42"},
            ],
        ),
        (
            [
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
                CALL,
                CALL,
            ],
            [
                {
                    "role": "assistant",
                    "content": "a",
                    "reasoning_content": "hm",
                    "tool_calls": [CHAT_CALL, CHAT_CALL],
                }
            ],
        ),
        (
            [CALL, {"role": "assistant", "content": "b"}],
            [
                {"role": "assistant", "content": "", "tool_calls": [CHAT_CALL]},
                {"role": "assistant", "content": "b"},
            ],
        ),
        (
            [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]}],
            [{"role": "assistant", "content": "", "reasoning_content": "s"}],
        ),
    ],
)
def test_input(given: Any, messages: Any) -> None:
    assert convert(input=given).messages == messages


def test_instructions_come_first_and_history_before_the_input() -> None:
    request = ResponsesRequest(input="now", instructions="be kind")
    chat = chat_request(request, input_items(request), [{"role": "user", "content": "before"}])
    assert [m["content"] for m in chat.messages] == ["be kind", "before", "now"]


CHAT_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"max_output_tokens": 9, "max_tokens": 5}, {"max_tokens": 9}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0.5, "top_p": 0.9, "seed": 3}, {"temperature": 0.5, "top_p": 0.9, "seed": 3}),
        ({"stream": True, "top_k": 7}, {"stream": True, "top_k": 7}),
        ({"n": 3, "n_cmpl": 3}, {"n": None, "n_cmpl": None}),
        ({"tools": [TOOL]}, {"tools": [CHAT_TOOL], "tool_choice": "auto"}),
        ({"tools": [TOOL, {"type": "web_search"}]}, {"tools": [CHAT_TOOL]}),
        ({"tools": [], "tool_choice": "auto"}, {"tools": None, "tool_choice": None}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {
                "tools": [TOOL, {**TOOL, "name": "g"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "f"}],
                },
            },
            {"tools": [CHAT_TOOL], "tool_choice": "required"},
        ),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": None},
                }
            },
        ),
        ({"reasoning": {"effort": "none", "summary": "auto"}}, {"reasoning_effort": "none"}),
        (
            {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
            {"logprobs": True, "top_logprobs": 2},
        ),
        ({"include": ["reasoning.encrypted_content"], "top_logprobs": 0}, {"top_logprobs": None}),
    ],
    ids=str,
)
def test_fields(body: Any, fields: Any) -> None:
    chat = convert(**body)
    assert {name: getattr(chat, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": 3}, ["'input'", "3"]),
        ({"input": [3]}, ["'input[0]'", "an object", "3"]),
        ({"input": [{"type": "computer_call"}]}, ["'input[0].type'", "'reasoning'", "computer_call"]),
        ({"input": [{"role": "robot", "content": ""}]}, ["'input[0].role'", "'developer'", "robot"]),
        ({"input": [{"role": "user"}]}, ["'input[0].content'", "missing"]),
        ({"input": [{**CALL, "arguments": {}}]}, ["'input[0].arguments'", "a string", "{}"]),
        (
            {"input": [{"role": "user", "content": [{"type": "video"}]}]},
            ["'input[0].content[0].type'", "'input_text'", "video"],
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            ["'input[0].content[0]'", "input_file"],
        ),
        ({"max_output_tokens": -5}, ["'max_output_tokens'", "-1", "-5"]),
        ({"top_logprobs": 21}, ["'top_logprobs'", "20", "21"]),
        ({"tools": [{"type": "function"}]}, ["'tools[0].name'", "missing"]),
        ({"tools": ["f"]}, ["'tools[0]'", "an object"]),
        ({"tools": [TOOL], "tool_choice": "always"}, ["'tool_choice'", "'required'", "always"]),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, ["'tool_choice.name'", "'f'"]),
        ({"text": {"format": {"type": "xml"}}}, ["'text.format.type'", "'json_schema'", "xml"]),
        ({"text": {"format": {"type": "json_schema"}}}, ["'text.format.schema'", "missing"]),
        ({"reasoning": {"effort": "huge"}}, ["'reasoning.effort'", "'high'", "huge"]),
        ({"metadata": {"a": 1}}, ["'metadata", "a string"]),
        ({"truncation": "auto"}, ["'truncation'", "'disabled'", "auto"]),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(body: Any, words: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        convert(**body)
    assert caught.value.status == 400
    assert [w for w in words if w not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"background": True},
        {"conversation": "conv_1"},
        {"prompt": {"id": "p"}},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]},
    ],
    ids=str,
)
def test_what_this_server_can_not_do(body: Any) -> None:
    with pytest.raises(NotSupported):
        convert(**body)


def test_an_error_names_the_item_of_this_request() -> None:
    request = ResponsesRequest(input=[{"role": "robot", "content": "x"}])
    with pytest.raises(CorralError, match=r"'input\[0\].role'"):
        chat_request(request, input_items(request), [{"role": "user", "content": "before"}])
