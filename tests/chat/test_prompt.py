"""Conversations to prompts, for templates of different abilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.chat.builtin import CHATML
from corral.chat.capabilities import Capabilities
from corral.chat.prompt import ChatPrompter
from corral.chat.template import TemplateError, TemplateSource, choose_template
from corral.chat.tools import read_tools
from corral.errors import NotSupported, RequestError

INST = """\
{{ bos_token }}{% for m in messages %}
{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}
{%- elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}
{%- else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"""
"""As of the first Mistral and Llama 2 files: no system role, strict turns."""

PARTS = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
)
"""Takes content in parts only."""

NAMED = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<reply>{% endif %}"
)


def prompter(source: str, **kwargs: Any) -> ChatPrompter:
    return ChatPrompter.of(TemplateSource(source, "test"), bos_token="<s>", eos_token="</s>", **kwargs)


def say(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("source", "capabilities"),
    [
        (CHATML, Capabilities(tool_role=True)),
        (NAMED, Capabilities(tool_role=True)),
        (INST, Capabilities(system=False, late_system=False, lone_system=False, alternation=True)),
        (PARTS, Capabilities(typed_content=True, tool_role=True)),
        ("{{ raise_exception('never') }}", Capabilities(system=False, late_system=False, lone_system=False)),
        ("{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}", None),
    ],
    ids=["chatml", "named", "inst", "parts", "refuses all", "hangs"],
)
def test_the_probe_finds_what_a_template_takes(source: str, capabilities: Capabilities | None) -> None:
    found = prompter(source).capabilities
    if capabilities is not None:
        assert found == capabilities
    assert found.describe()


SYSTEM_CASES: list[tuple[str, list[dict[str, Any]], str]] = [
    (NAMED, [say("system", "S"), say("user", "U")], "<system>S<user>U<reply>"),
    (NAMED, [say("developer", "S"), say("user", "U")], "<system>S<user>U<reply>"),
    (NAMED, [say("user", None)], "<user><reply>"),
    (NAMED, [say("user", "U"), {"role": "assistant"}, say("user", "V")], "<user>U<assistant><user>V<reply>"),
    (
        NAMED,
        [say("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])],
        "<user>a\nb<reply>",
    ),
    (INST, [say("system", "S"), say("user", "U")], "<s>[INST] S\nU [/INST]"),
    (INST, [say("system", "S")], "<s>[INST] S [/INST]"),
    (
        INST,
        [say("system", "S"), say("user", "U"), say("assistant", "A"), say("user", "V")],
        "<s>[INST] S\nU [/INST] A</s>[INST] V [/INST]",
    ),
    (PARTS, [say("system", "S"), say("user", "U")], "<system>S<user>U"),
    # a trailing assistant message is the beginning of the reply
    (NAMED, [say("user", "U"), say("assistant", "A")], "<user>U<reply>A"),
    (PARTS, [say("user", "U"), say("assistant", "A")], "<user>UA"),
    (INST, [say("user", "U"), say("assistant", "A")], "<s>[INST] U [/INST]A"),
    (NAMED, [say("assistant", "A")], "<reply>A"),
    (INST, [say("assistant", "A")], "<s>[INST]  [/INST]A"),
    # turns that a strict template has no place for
    (INST, [say("assistant", "A"), say("user", "U")], "<s>[INST]  [/INST] A</s>[INST] U [/INST]"),
    (
        INST,
        [say("user", "U"), say("assistant", "A"), say("assistant", "B"), say("user", "V")],
        "<s>[INST] U [/INST] A\n\nB</s>[INST] V [/INST]",
    ),
    (INST, [say("user", "U"), say("assistant", None), say("user", "V")], "<s>[INST] U\n\nV [/INST]"),
]


@pytest.mark.parametrize(("source", "messages", "prompt"), SYSTEM_CASES)
def test_messages_are_said_the_way_the_template_takes_them(
    source: str, messages: list[dict[str, Any]], prompt: str
) -> None:
    assert prompter(source).prompt(messages) == prompt


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "Field 'messages': expected at least one message"),
        (["hi"], r"Field 'messages\[0\]': expected an object, got a string"),
        ([{"content": "x"}], r"Field 'messages\[0\].role': expected a string, got null"),
        ([{"role": 1, "content": "x"}], r"Field 'messages\[0\].role': expected a string, got the number 1"),
        ([{"role": "user"}], r"Field 'messages\[0\].content': missing"),
        ([say("user", 5)], r"Field 'messages\[0\].content': expected a string, null or an array"),
        ([say("user", [{"type": "table"}])], r"unsupported content\[\].type: .*'table'"),
        ([say("user", ["x"])], r"unsupported content\[\].type"),
        ([say("user", [{"type": "text", "text": 1}])], r"content\[0\].text': expected a string"),
        (
            [say("user", "U"), say("assistant", "A"), say("assistant", "B")],
            "Cannot have 2 or more assistant messages at the end of the list",
        ),
    ],
)
def test_what_is_wrong_with_the_messages_is_named(messages: list[Any], reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        prompter(CHATML).prompt(messages)
    assert caught.value.status == 400


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "input_video"])
def test_media_are_not_supported(kind: str) -> None:
    with pytest.raises(NotSupported, match=rf"'messages\[0\].content\[0\].type': '{kind}': .* text only"):
        prompter(CHATML).prompt([say("user", [{"type": kind}])])


def test_the_older_form_of_calls_is_said_too() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    reply = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}}
    result = {"role": "function", "name": "f", "content": "R"}
    assert prompter(source).prompt([say("user", "U"), reply, result, say("user", "V")]) == (
        '<user>U<assistant>{"name": "f", "arguments": {"a": 1}}<tool>R<user>V'
    )


def test_a_refusal_of_the_template_is_the_clients_mistake() -> None:
    with pytest.raises(TemplateError, match=r"line 5 .* \[user, critic\]: only user and assistant"):
        prompter(INST).prompt([say("user", "U"), say("critic", "C")])


@pytest.mark.parametrize(
    ("flags", "prompt"),
    [
        ({}, "<user>U<reply>A"),
        ({"continue_final_message": True}, "<user>U<reply>A"),
        ({"continue_final_message": False}, "<user>U<assistant>A<reply>"),
        ({"add_generation_prompt": True}, "<user>U<assistant>A<reply>"),
        ({"continue_final_message": False, "add_generation_prompt": False}, "<user>U<assistant>A"),
    ],
)
def test_whether_a_trailing_assistant_message_is_continued(flags: dict[str, bool], prompt: str) -> None:
    assert prompter(NAMED).prompt([say("user", "U"), say("assistant", "A")], **flags) == prompt


def test_contradicting_flags_are_refused() -> None:
    with pytest.raises(RequestError, match="add_generation_prompt and continue_final_message"):
        prompter(NAMED).prompt([say("user", "U")], add_generation_prompt=True, continue_final_message=True)
    with pytest.raises(RequestError, match="not an assistant's"):
        prompter(NAMED).prompt([say("user", "U")], continue_final_message=True)


def test_what_the_tokenizer_adds_itself_is_not_there_twice() -> None:
    messages = [say("user", "U"), say("assistant", "A")]
    flags = {"continue_final_message": False, "add_generation_prompt": False}
    assert prompter(INST).prompt(messages, **flags) == "<s>[INST] U [/INST] A</s>"
    assert prompter(INST, add_bos=True).prompt(messages, **flags) == "[INST] U [/INST] A</s>"
    assert prompter(INST, add_eos=True).prompt(messages, **flags) == "<s>[INST] U [/INST] A"
    assert prompter("{{ bos_token }}<s>x", add_bos=True).prompt(messages, **flags) == "<s>x"  # one, not all


@pytest.mark.model
def test_the_template_of_smollm2(smollm2_path: Path) -> None:
    from corral.gguf.reader import GGUFFile

    with GGUFFile.open(smollm2_path) as file:
        source = choose_template(file.metadata)
    assert source.origin == "the model file"
    found = ChatPrompter.of(source, bos_token="<|im_start|>", eos_token="<|im_end|>")
    assert found.capabilities.system
    assert found.prompt([say("system", "S"), say("user", "U")]) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )
    alone = found.prompt([say("user", "U")])
    assert alone.startswith("<|im_start|>system\nYou are a helpful AI assistant")


@pytest.mark.model
def test_gemma3_has_no_template_or_one_that_names_the_model_role(gemma3_path: Path) -> None:
    from corral.gguf.reader import GGUFFile

    with GGUFFile.open(gemma3_path) as file:
        source = choose_template(file.metadata)
    prompt = ChatPrompter.of(source, bos_token="<bos>", add_bos=True).prompt(
        [say("system", "S"), say("user", "U")]
    )
    assert not prompt.startswith("<bos>")
    assert prompt.index("S") < prompt.index("U")


def test_a_template_that_stumbles_over_a_schema_gets_a_plainer_one() -> None:
    source = (
        "{% for t in tools or [] %}{{ t.function.name }}("
        "{% for k, p in t.function.parameters.properties.items() %}{{ k + ': ' + p.type + p.description }};"
        "{% endfor %}){% endfor %}<tool_call>" + NAMED
    )
    schema = {
        "properties": {
            "a": {"type": "integer", "description": " how many"},
            "b": {"anyOf": [{"type": "null"}, {"type": "array", "items": True}]},
            "c": {"$ref": "#/$defs/c"},
            "d": {"type": ["null", "boolean"]},
            "e": {"enum": ["x"]},
            "f": True,
        }
    }
    functions = [{"name": "f", "parameters": schema}, {"name": "g"}, {"name": "h", "parameters": {}}]
    tools = read_tools([{"type": "function", "function": f} for f in functions], "auto", None)
    made = prompter(source)
    assert made.format.tools.name == "hermes"
    assert made.prompt([say("user", "U")], tools=tools) == (
        "f(a: integer how many;b: array;c: object;d: boolean;e: string;f: string;)g()h()"
        "<tool_call><user>U<reply>"
    )
    with pytest.raises(TemplateError, match="why not"):
        prompter(
            source + "{% if messages[0].content == 'no' %}{{ raise_exception('why not') }}{% endif %}"
        ).prompt([say("user", "no")], tools=tools)


@pytest.mark.parametrize(
    "shown",
    ["message.thinking", "message.reasoning", "message['thought']", "message.reasoning_content", "message.x"],
)
def test_earlier_reasoning_is_called_what_the_template_calls_it(shown: str) -> None:
    source = f"{{% for message in messages %}}{{{{ message.content }}}}<{{{{ {shown} }}}}>{{% endfor %}}"
    earlier = {**say("assistant", "A"), "reasoning_content": "R"}
    expected = "A<>V<>" if shown == "message.x" else "A<R>V<>"
    assert prompter(source).prompt([earlier, say("user", "V")]) == expected
