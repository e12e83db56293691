"""Tools and reasoning through /v1/chat/completions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import pytest
from fake_engine import READY, FakeEngine, FakeTokenizer, fake_state

from corral.engine.messages import ErrorInfo, Output, Status, Submit, Timings

URL = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
HERMES = (
    "{% for t in tools or [] %}<tool_call>{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
THINKING = HERMES + "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
SHY = HERMES + "{% if enable_thinking %}<think>\n{% else %}</think>{% endif %}"
"""Reasons only when it is told to, as Gemma 4."""
CALL = ["<tool_", 'call>\n{"name": "get_we', 'ather", "arguments": {"city"', ': "Paris"}}\n</tool_call>']


def deltas(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    frames = [json.loads(f[6:]) for f in response.text.split("\n\n") if f.startswith("data: {")]
    return [{k: v for k, v in f["choices"][0].items() if k in ("delta", "finish_reason")} for f in frames]


async def post(state: Any, connected: Any, **request: Any) -> httpx.Response:
    async with connected(state) as client:
        response: httpx.Response = await client.post(URL, json={"messages": HI, **request})
        return response


def prompt_of(submit: Submit) -> str:
    return "".join(map(chr, submit.prompt[1:]))


async def test_a_call(connected: Any) -> None:
    engine = FakeEngine(["Let me see. ", *CALL])
    response = await post(fake_state(engine, HERMES), connected, tools=[TOOL])
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"].pop("tool_calls")
    assert choice["message"] == {"role": "assistant", "content": "Let me see."}
    assert len(call.pop("id")) == 9
    assert call == {
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    (submit,) = engine.submits
    assert submit.constraint is not None
    assert submit.constraint.kind == "lark"
    assert prompt_of(submit).startswith('<tool_call>{"type": "function", "function": {"name": "get_weather"')


async def test_a_call_alone_has_null_content(connected: Any) -> None:
    response = await post(fake_state(FakeEngine(CALL), HERMES), connected, tools=[TOOL])
    assert response.json()["choices"][0]["message"]["content"] is None


async def test_a_call_in_a_stream(connected: Any) -> None:
    response = await post(fake_state(FakeEngine(CALL), HERMES), connected, tools=[TOOL], stream=True)
    got = deltas(response)
    assert got[0]["delta"] == {"role": "assistant", "content": None}
    (begin,) = got[1]["delta"]["tool_calls"]
    assert begin.pop("id")
    assert begin == {"index": 0, "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    pieces = [d["delta"]["tool_calls"][0] for d in got[2:-1]]
    assert [p["index"] for p in pieces] == [0] * len(pieces)
    assert [p["function"]["arguments"] for p in pieces] == ['{"city"', ': "Paris"}']
    assert got[-1] == {"delta": {}, "finish_reason": "tool_calls"}


async def test_a_call_cut_short_says_length(connected: Any) -> None:
    words = [*CALL[:3], Output(id="", finish_reason="length", stop_type="limit", timings=Timings())]
    response = await post(fake_state(FakeEngine(words), HERMES), connected, tools=[TOOL])
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city"'


@pytest.mark.parametrize("choice", ["none", None])
async def test_without_tools_a_call_is_content(connected: Any, choice: str | None) -> None:
    engine = FakeEngine(CALL)
    request: dict[str, Any] = {"tools": [TOOL], "tool_choice": "none"} if choice else {}
    response = await post(fake_state(engine, HERMES), connected, **request)
    assert response.json()["choices"][0]["message"]["content"] == "".join(CALL)
    assert response.json()["choices"][0]["finish_reason"] == "stop"
    assert engine.submits[0].constraint is None


async def test_raw_replies_on_request(connected: Any) -> None:
    for config, request in (({"skip_chat_parsing": True}, {}), ({}, {"parse_tool_calls": False})):
        state = fake_state(FakeEngine(CALL), HERMES, **config)
        response = await post(state, connected, tools=[TOOL], **request)
        assert response.json()["choices"][0]["message"]["content"] == "".join(CALL)


async def test_a_template_without_tools_gets_instructions(connected: Any) -> None:
    engine = FakeEngine(['{"name": "get_weather", "arguments": {}}'])
    engine.status = Status(state="ready", ready=msgspec.structs.replace(READY, n_ctx=4096))
    talk = [
        *HI,
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "42"},
    ]  # fmt: skip
    response = await post(fake_state(engine), connected, tools=[TOOL], messages=talk)
    assert response.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "get_weather"
    prompt = prompt_of(engine.submits[0])
    assert prompt.startswith("<|im_start|>system\nYou can call these functions:")
    assert '"get_weather"' in prompt
    assert '<|im_start|>assistant\n{"name": "f", "arguments": {}}<|im_end|>' in prompt
    assert "42" in prompt


def calls(value: Any) -> dict[str, Any]:
    return {"messages": [*HI, {"role": "assistant", "tool_calls": value}]}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    """OpenAI's choice among some of the tools."""
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"tools": [1]}, "Field 'tools[0]': expected an object, got 1"),
        ({"tools": [{"type": "web"}]}, "Field 'tools[0].type'"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "Field 'tools[0].function.name'"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]}, "parameters'"),
        ({"tools": [{"type": "function", "function": {"name": "a", "description": 1}}]}, "description'"),
        ({"tools": [TOOL] * 513}, "at most 512 tools"),
        ({"tools": [TOOL], "tool_choice": "perhaps"}, "Field 'tool_choice'"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}}, "no tool is called 'x'"),
        ({"tool_choice": "required"}, "needs 'tools'"),
        ({"tools": [TOOL], "tool_choice": allowed("auto")}, "Field 'tool_choice'"),
        ({"tools": [TOOL], "tool_choice": allowed("never", "get_weather")}, "Field 'tool_choice'"),
        ({"tools": [TOOL], "tool_choice": allowed("auto", "x")}, "no tool is called 'x'"),
        ({"tool_choice": allowed("auto", "x")}, "needs 'tools'"),
        ({"tools": [TOOL], "logprobs": True, "stream": True}, "Field 'logprobs'"),
        ({"reasoning_format": "apart"}, "Field 'reasoning_format': expected one of none, deepseek"),
        ({"reasoning_budget_tokens": -2}, "Field 'reasoning_budget_tokens'"),
        (calls(1), "messages[1].tool_calls': expected an array, got the number 1"),
        (calls([1]), "messages[1].tool_calls[0].function': expected an object"),
        (calls([{"function": {"name": 1}}]), "messages[1].tool_calls[0].function.name'"),
        (calls([{"function": {"name": "f", "arguments": []}}]), "function.arguments': expected a string"),
        (calls([{"id": 1, "function": {"name": "f"}}]), "messages[1].tool_calls[0].id'"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": 5}]}, "tool_call_id'"),
    ],
)  # fmt: skip
async def test_mistakes_are_named(connected: Any, request_: dict[str, Any], message: str) -> None:
    engine = FakeEngine()
    response = await post(fake_state(engine, HERMES), connected, **request_)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert engine.submits == []


async def test_tools_need_jinja(connected: Any) -> None:
    response = await post(fake_state(template=HERMES, jinja=False), connected, tools=[TOOL])
    assert response.status_code == 400
    assert "--jinja" in response.json()["error"]["message"]


THOUGHT = ["Hm", ", hm.", "\n</thi", "nk>\n\nHel", "lo"]


@pytest.mark.parametrize(
    ("format", "content", "reasoning"),
    [
        (None, "Hello", "Hm, hm."),
        ("auto", "Hello", "Hm, hm."),
        ("deepseek", "Hello", "Hm, hm."),
        ("none", "Hm, hm.\n</think>\n\nHello", None),
        ("deepseek-legacy", "Hm, hm.\n</think>\n\nHello", "Hm, hm."),
    ],
)
async def test_where_reasoning_goes(
    connected: Any, format: str | None, content: str, reasoning: str | None
) -> None:
    for config, request in (({}, {"reasoning_format": format}), ({"reasoning_format": format or "auto"}, {})):
        state = fake_state(FakeEngine(THOUGHT), THINKING, **config)
        message = (await post(state, connected, **request)).json()["choices"][0]["message"]
        assert message["content"] == content
        assert message.get("reasoning_content") == reasoning


async def test_reasoning_in_a_stream(connected: Any) -> None:
    got = deltas(await post(fake_state(FakeEngine(THOUGHT), THINKING), connected, stream=True))
    assert [d["delta"] for d in got[1:-1]] == [
        {"reasoning_content": "Hm"}, {"reasoning_content": ", hm."}, {"content": "Hel"}, {"content": "lo"},
    ]  # fmt: skip


async def test_whether_to_reason(connected: Any) -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
        ({}, {}, True),
        ({}, {"enable_thinking": False}, False),
        ({}, {"reasoning_effort": "none"}, False),
        ({}, {"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"reasoning": "off"}, {}, False),
        ({"reasoning": "off"}, {"enable_thinking": True}, True),
        ({"reasoning": "on"}, {}, True),
        ({"reasoning_budget": 0}, {}, False),
        ({}, {"thinking_budget_tokens": 0}, False),
    ]
    for config, request, reasons in cases:
        for template in (THINKING, SHY):
            engine = FakeEngine()
            await post(fake_state(engine, template, **config), connected, **request)
            assert prompt_of(engine.submits[0]).endswith("<think>\n") == reasons, (config, request)


@pytest.mark.parametrize("end", ["<think>\n\n</think>\n\n", "</think>"])
async def test_a_call_is_not_behind_more_reasoning_where_the_prompt_has_ended_it(
    connected: Any, end: str
) -> None:
    for template, thinks in ((f"{HERMES}{end}", False), (f"{HERMES}{{# {end} #}}", True)):
        engine = FakeEngine()
        await post(fake_state(engine, template), connected, tools=[TOOL], tool_choice="required")
        assert engine.submits[0].constraint is not None
        assert ("think" in engine.submits[0].constraint.text) == thinks


@pytest.mark.parametrize(
    "condition",
    [
        "thinking is not defined or thinking",
        "reasoning is not defined or reasoning",
        "thinking_mode != 'disabled'",
        "thinking_budget != 0",
    ],
)
async def test_other_names_of_whether_to_reason(connected: Any, condition: str) -> None:
    template = HERMES + f"{{% if {condition} %}}<think>\n{{% endif %}}"
    for request, reasons in [
        ({}, True),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": False}, False),
        ({"reasoning_effort": "none"}, False),
        ({"thinking_budget_tokens": 0}, False),
        ({"enable_thinking": False, "chat_template_kwargs": {condition.split()[0]: "mine"}}, True),
    ]:
        engine = FakeEngine()
        await post(fake_state(engine, template), connected, **request)
        assert prompt_of(engine.submits[0]).endswith("<think>\n") == reasons, request


async def test_a_budget_of_none_closes_what_the_template_opens(connected: Any) -> None:
    engine = FakeEngine()
    state = fake_state(engine, HERMES + "<think>\n", reasoning_budget_message="Enough.")
    response = await post(state, connected, reasoning_budget_tokens=0)
    assert prompt_of(engine.submits[0]).endswith("<think>\nEnough.\n</think>\n\n")
    assert response.json()["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}


class Thinker(FakeEngine):
    """Thinks without end; when made to stop it answers."""

    async def generate(self, submit: Submit) -> Any:
        again = "</think>" in prompt_of(submit)
        self.words = ["Hel", "lo"] if again else ["a "] * 100
        async for output in super().generate(submit):
            yield output


async def test_a_budget_ends_the_reasoning(connected: Any) -> None:
    engine = Thinker()
    request = {"reasoning_budget_tokens": 5, "reasoning_budget_message": " Enough.", "max_tokens": 60}
    body = (await post(fake_state(engine, THINKING), connected, **request)).json()
    (choice,) = body["choices"]
    assert choice["message"]["reasoning_content"] == "a a a a a  Enough."
    assert choice["message"]["content"] == "Hello"
    assert choice["finish_reason"] == "stop"
    ending = " Enough.\n</think>\n\n"
    first, second = engine.submits
    assert engine.cancelled == [first.id]
    assert second.prompt == [*first.prompt, 0, 1, 2, 3, 4, *map(ord, ending)]
    assert second.max_tokens == 60 - 5 - len(ending)
    assert body["usage"]["completion_tokens"] == 5 + len(ending) + 2
    assert body["usage"]["prompt_tokens"] == len(first.prompt)


async def test_a_budget_leaves_shorter_reasoning_alone(connected: Any) -> None:
    engine = FakeEngine(THOUGHT)
    state = fake_state(engine, THINKING, reasoning_budget=50)
    message = (await post(state, connected)).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm, hm.", "Hello")
    assert len(engine.submits) == 1


async def test_no_room_behind_the_budget_is_a_length(connected: Any) -> None:
    class Full(Thinker):
        async def generate(self, submit: Submit) -> Any:
            if "</think>" in prompt_of(submit):
                error = ErrorInfo(400, "exceed_context_size_error", "full")
                yield Output(id=submit.id, finish_reason="error", error=error)
                return
            async for output in super().generate(submit):
                yield output

    body = (await post(fake_state(Full(), THINKING), connected, reasoning_budget_tokens=5)).json()
    assert body["choices"][0]["finish_reason"] == "length"


async def test_earlier_reasoning_may_be_kept_from_the_template(connected: Any) -> None:
    template = HERMES + "{{ messages[1].reasoning_content }}"
    talk = [*HI, {"role": "assistant", "content": "a", "reasoning_content": "#"}, *HI]
    for keep in (True, False):
        engine = FakeEngine()
        await post(fake_state(engine, template, reasoning_preserve=keep), connected, messages=talk)
        assert prompt_of(engine.submits[0]).endswith("#") == keep


async def test_control_tokens_are_seen_by_the_parser_and_not_by_the_client(connected: Any) -> None:
    """Where a marker is a control token, all of them come as text; the one that ends the reply is cut off."""

    class Tokenizer(FakeTokenizer):
        def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
            return [2] if text in ("<tool_call>", "</s>") else super().encode(text, add_special=add_special)

        def decode(self, ids: Sequence[int], *, special: bool = False) -> bytes:
            return b"</s>" if ids == [2] and special else super().decode(ids, special=special)

    last = Output(id="", text="ye</s>", tokens=[2], finish_reason="stop", stop_type="eos", timings=Timings())
    for offered, special, content in (([TOOL], True, "Goodbye"), ([], False, "Goodbye</s>")):
        engine = FakeEngine(["Goodb", last])
        state = fake_state(engine, HERMES)
        assert state.model is not None
        state.model = dataclasses.replace(state.model, tokenizer=Tokenizer())
        response = await post(state, connected, tools=offered)
        assert response.json()["choices"][0]["message"]["content"] == content
        (submit,) = engine.submits
        assert submit.special == special
        if submit.constraint:
            assert "<[2]>" in submit.constraint.text
