"""What real families' templates make of conversations. `python test_families.py` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES, Family
from formats import BY_NAME, PARIS, gather, read, tools

from corral.chat.prompt import ChatPrompter, instructions
from corral.chat.template import TemplateSource
from corral.errors import RequestError

GOLDEN = Path(__file__).with_name("families.json")


def say(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


TALK = [say("developer", "S"), say("user", "U"), say("assistant", "A"), say("user", "V")]
LATE = [*TALK[:3], say("system", "T"), say("user", "V")]
TWICE = [say("system", "S"), say("system", "T"), say("user", "U"), say("user", "V")]
CALLS = [
    say("user", "U"),
    say("assistant", None, tool_calls=[call("call_1", "get_weather", '{"city": "Paris"}')]),
    say("tool", "sunny", tool_call_id="call_1"),
]
SEVERAL = [
    say("user", "U"),
    say(
        "assistant",
        "Wait.",
        tool_calls=[
            call("call_1", "get_weather", '{"city": "Paris"}'), call("call_2", "search", '{"query": "Q"}')
        ],
    ),
    say("tool", "sunny", tool_call_id="call_1"),
    say("tool", "found", tool_call_id="call_2"),
]  # fmt: skip
PREFILL = [*TALK[:3]]
GREETING = [say("assistant", "A"), say("user", "U")]
TWO_REPLIES = [say("user", "U"), say("assistant", "A"), say("assistant", "B"), say("user", "V")]
SILENCE = [say("user", "U"), say("assistant", None), say("user", "V")]
INTERRUPTED = [*CALLS, say("user", "V")]
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "talk": (TALK, False),
    "a later system message": (LATE, False),
    "two of each": (TWICE, False),
    "calls": (CALLS, True),
    "several calls": (SEVERAL, True),
    "a reply to go on with": (PREFILL, False),
    "the assistant begins": (GREETING, False),
    "two replies": (TWO_REPLIES, False),
    "a reply of nothing": (SILENCE, False),
    "a word behind a result": (INTERRUPTED, True),
    "a system message alone": ([say("system", "S")], False),
    "nothing but a reply to go on with": ([say("assistant", "A")], False),
}


SHORT = {
    json.dumps(tools().described()): "TOOLS",
    instructions(tools()): "INSTRUCTIONS",
}
"""Long texts, and what stands for them in the golden file."""


def prompter(family: Family) -> ChatPrompter:
    return ChatPrompter.of(
        TemplateSource(family.template, "test"), bos_token="<s>", eos_token="</s>", add_bos=True
    )


def described(family: Family) -> dict[str, Any]:
    made = prompter(family)
    prompts = {}
    for name, (messages, with_tools) in CONVERSATIONS.items():
        text = made.prompt(messages, tools=tools() if with_tools else None)
        for long, short in SHORT.items():
            text = text.replace(long, short)
        prompts[name] = text
    return {"takes": [k for k, v in vars(made.capabilities).items() if v], "prompts": prompts}


every = pytest.mark.parametrize("name", FAMILIES)


@every
def test_the_prompts(name: str) -> None:
    assert described(FAMILIES[name]) == json.loads(GOLDEN.read_text("utf-8"))[name]


@every
def test_nothing_is_lost_on_the_way(name: str) -> None:
    made = prompter(FAMILIES[name])
    for messages, with_tools in CONVERSATIONS.values():
        prompt = made.prompt(messages, tools=tools() if with_tools else None)
        for word in ("get_weather", "search", "Wait.", "Paris", "sunny", "found") if with_tools else ():
            if word in str(messages):
                assert word in prompt
        at = -1
        for message in messages:
            if message["content"] is not None and not with_tools:
                at = prompt.find(message["content"], at + 1)
                assert at >= 0, (message, prompt)
        assert "<s>" not in prompt


@every
def test_the_syntax_is_found_and_read(name: str) -> None:
    family = FAMILIES[name]
    format = prompter(family).format
    assert format.tools.name == family.format
    assert (format.thinking.start if format.thinking else "") == family.thinking
    example = BY_NAME[family.format]
    thought = ""
    if format.tools.reasoning_end:
        thought = f"{format.tools.reasoning_start}Hm.{format.tools.reasoning_end_before_calls}"
    elif format.thinking:
        thought = f"{format.thinking.start}\nHm.\n{format.thinking.end}\n\n"
    got = read(format, list(thought + example.text), tools())
    assert got.parsed == [PARIS]
    assert got.reasoning == ("Hm." if thought else "")
    assert got.content == ""


@every
def test_reasoning_is_known_to_be_open(name: str) -> None:
    family = FAMILIES[name]
    for switch in (True, False):
        variables = {"enable_thinking": switch, "thinking": switch}
        prompt = prompter(family).render([say("user", "U")], kwargs=variables)
        assert prompt.opened == (bool(family.thinking) and prompt.text.rstrip().endswith(family.thinking))
        if prompt.opened:
            made = prompter(family).format
            got = read(made, list(f"Hm.\n{made.thinking and made.thinking.end}\n\nYes"), None, opened=True)
            assert (got.reasoning, got.content) == ("Hm.", "Yes")


@every
def test_arguments_that_are_no_object(name: str) -> None:
    """As of a reply that was cut off: they are shown as they are, or named."""
    made = prompter(FAMILIES[name])
    for arguments in ('{"city": "Par', "[1]"):
        broken = say("assistant", None, tool_calls=[call("call_1", "get_weather", arguments)])
        messages = [CALLS[0], broken, CALLS[2]]
        if made.capabilities.object_arguments:
            with pytest.raises(
                RequestError, match=r"'messages\[1\].tool_calls\[0\].function.arguments': exp"
            ):
                made.prompt(messages, tools=tools())
        else:
            prompt = made.prompt(messages, tools=tools())
            assert "Par" in prompt or "[1]" in prompt


@every
def test_a_reply_that_is_gone_on_with_is_an_answer(name: str) -> None:
    made = prompter(FAMILIES[name])
    prompt = made.render(PREFILL)
    assert prompt.text.endswith("A")
    parser = made.format.parser(None, opened=prompt.opened, answering=prompt.answering)
    got = gather([*parser.feed(" and"), *parser.feed(" B"), *parser.finish()])
    assert (got.content.strip(), got.reasoning) == ("and B", "")


def test_there_are_many_families() -> None:
    assert len(FAMILIES) >= 30


if __name__ == "__main__":
    text = json.dumps({n: described(f) for n, f in FAMILIES.items()}, ensure_ascii=False, indent=1)
    GOLDEN.write_text(text + "\n", "utf-8")
