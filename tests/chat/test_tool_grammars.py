"""The grammars of call syntaxes, as llguidance takes them: over bytes and the marker tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import llguidance
import pytest
from formats import BY_NAME, EXAMPLES, M3, WHOLE, Example, tools

from corral.chat.reply_format import ReplyFormat
from corral.chat.thinking import THINKING, Thinking
from corral.chat.tool_formats import tool_format
from corral.chat.tools import Tools, read_tools

EOS = 256


class Vocabulary:
    """A token a byte, the end, and control tokens."""

    eos_token_id = EOS
    bos_token_id = None

    def __init__(self, control: Sequence[str]) -> None:
        self.control = {text: EOS + 1 + i for i, text in enumerate(control)}
        self.tokens = [
            *(bytes([i]) for i in range(256)),
            b"\xff<eos>",
            *(b"\xff" + c.encode() for c in control),
        ]
        self.special_token_ids = list(range(EOS, len(self.tokens)))

    def __call__(self, text: Any) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)

    def ids(self, text: str) -> list[int]:
        """The text's tokens, control tokens recognised."""
        if not self.control:
            return list(text.encode())
        parts = re.split("(" + "|".join(map(re.escape, self.control)) + ")", text)
        return [i for p in parts for i in ([self.control[p]] if p in self.control else p.encode())]


def takes(
    format: ReplyFormat, text: str, control: bool, *, choice: Any = "auto", parallel: bool | None = None,
    opened: bool = False, given: Tools | None = None, tokens: Sequence[str] = (),
) -> str:  # fmt: skip
    """What the text is to the grammar: "whole", a "beginning", or "wrong".

    `control`: the markers are control tokens; `tokens`: these are.
    """
    markers = [m for m in dict.fromkeys(format.markers(tools=True)) if m] if control else []
    vocabulary = Vocabulary(tokens or markers)
    lark = format.grammar(given or tools(choice, parallel), vocabulary.control.get, opened=opened)
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(vocabulary))
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_lark(lark))
    assert not matcher.is_error(), f"{matcher.get_error()}\n{lark}"
    ids = vocabulary.ids(text)
    taken = matcher.try_consume_tokens(ids)
    if taken < len(ids):
        return "wrong"
    return "whole" if matcher.is_accepting() else "beginning"


SHAPES = (
    "hermes",
    "minicpm-5",
    "hy3",
    "apertus",
    "qwen3-coder",
    "glm-4.5",
    "gemma-4",
    "lfm2",
    "harmony",
    "generic",
)
"""Formats that make different use of a schema."""

every = pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name)
kinds = pytest.mark.parametrize("control", [False, True], ids=["text", "control"])


def plain(example: Example) -> str:
    """An answer without a call."""
    return {
        "functionary-v3.2": "all\nHello, {1} [x] <b>.",
        "harmony": "<|channel|>final<|message|>Hello, {1} [x] <b>.",
        "solar-open": "<|content|>Hello, {1} [x] <b>.",
        "muse": " to=user<|message|>Hello, {1} [x] <b>.",
    }.get(example.name, "Hello, {1} [x] <b>.")


@every
@kinds
def test_calls_and_answers_are_taken(example: Example, control: bool) -> None:
    format = ReplyFormat(tool_format(example.template))
    for choice in ("auto", "required"):
        assert takes(format, example.text, control, choice=choice) == "whole"
        if example.several:
            assert takes(format, example.several, control, choice=choice) == "whole"
    assert takes(format, plain(example), control) == "whole"


@every
@kinds
def test_a_required_call_is_forced(example: Example, control: bool) -> None:
    format = ReplyFormat(tool_format(example.template))
    assert takes(format, plain(example), control, choice="required") == "wrong"
    assert takes(format, "", control, choice="required") == "beginning"
    named = {"type": "function", "function": {"name": "search"}}
    assert takes(format, example.text, control, choice=named) == "wrong"


@every
@kinds
def test_names_and_arguments_are_those_of_the_tools(example: Example, control: bool) -> None:
    format = ReplyFormat(tool_format(example.template))
    for wrong in (example.text.replace("get_weather", "get_whatever"), example.text.replace("3", "[")):
        assert takes(format, wrong, control, choice="required") == "wrong"


@every
@kinds
def test_one_call_where_they_are_not_parallel(example: Example, control: bool) -> None:
    format = ReplyFormat(tool_format(example.template))
    assert takes(format, example.text, control, choice="required", parallel=False) == "whole"
    if example.several:
        assert takes(format, example.several, control, choice="required", parallel=False) == "wrong"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("lfm2", "<|tool_call_start|>[get_weather()]<|tool_call_end|>", "wrong"),
        ("lfm2", "<|tool_call_start|>[get_weather(days=3)]<|tool_call_end|>", "wrong"),
        ("lfm2", "<|tool_call_start|>[get_weather(city='x')]<|tool_call_end|>", "wrong"),
        ("lfm2", '<|tool_call_start|>[get_weather(city="x")]<|tool_call_end|>', "whole"),
        ("functiongemma", "<start_function_call>call:get_weather{}<end_function_call>", "wrong"),
        (
            "functiongemma",
            "<start_function_call>call:get_weather{city:<escape>x<escape>,days:<escape>3<escape>}"
            "<end_function_call>",
            "wrong",
        ),
        (
            "functiongemma",
            "<start_function_call>call:get_weather{city:<escape>x<escape>}<end_function_call>",
            "whole",
        ),
    ],
)
def test_parameters_have_their_types_and_the_required_ones_are_there(
    name: str, text: str, expected: str
) -> None:
    assert takes(ReplyFormat(tool_format(BY_NAME[name].template)), text, True, choice="required") == expected


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("deepseek-v3.2", ["｜DSML｜"]),
        ("gigachat-3.5", ["｜GCML｜"]),
        ("gigachat-3", ["<|message_sep|>", "<|role_sep|>"]),
        ("gigachat-3", ["<|role_sep|>"]),
        ("minicpm-5", ["<function", "</function>", "<param", "</param>"]),
        ("minimax-m3", ["]<]minimax[>["]),
    ],
)
def test_tokens_inside_of_markers(name: str, tokens: Sequence[str]) -> None:
    example = BY_NAME[name]
    format = ReplyFormat(tool_format(example.template))
    markup = example.several.replace("Paris", "</b> <i>") if name != "minicpm-5" else example.several
    for choice in ("auto", "required"):
        for text in (example.text, example.several, markup):
            assert takes(format, text, False, choice=choice, tokens=tokens) == "whole"
    assert takes(format, f"a < b </c>\n\n{example.text}", False, tokens=tokens) == "whole"
    assert takes(format, example.text.replace("get_", "got_"), False, tokens=tokens) == "wrong"


def test_a_list_that_is_no_call() -> None:
    format = ReplyFormat(tool_format(BY_NAME["pythonic"].template))
    for text in ("[1, 2]", "[get_whatever(1)]", "[get_weather]", "[]", "[get_weather (or not)", "["):
        assert takes(format, text, False) == ("wrong" if text == "[get_weather (or not)" else "whole"), text


@every
@kinds
def test_text_before_a_call(example: Example, control: bool) -> None:
    if example.name in WHOLE:
        return
    format = ReplyFormat(tool_format(example.template))
    assert takes(format, f"Let me see.\n\n{example.text}", control) == "whole"
    wrong = example.text.replace("get_weather", "get_whatever")
    assert takes(format, f"Let me see.\n\n{wrong}", control) == "wrong"


@kinds
@pytest.mark.parametrize("thinking", THINKING, ids=lambda t: t.start)
def test_reasoning_comes_first(thinking: Thinking, control: bool) -> None:
    format = ReplyFormat(tool_format("<tool_call>"), thinking)
    call = next(e for e in EXAMPLES if e.name == "hermes").text
    thought = f"{thinking.start}\nHm, a <b>.\n{thinking.end}\n\n"
    for choice in ("auto", "required"):
        assert takes(format, thought + call, control, choice=choice) == "whole"
        assert takes(format, call, control, choice=choice) == "whole"
        opened = thought.removeprefix(thinking.start) + call
        assert takes(format, opened, control, choice=choice, opened=True) == "whole"
    assert takes(format, thought + "Hi", control) == "whole"
    assert takes(format, thought + "Hi", control, choice="required") == "wrong"
    assert takes(format, thought.removeprefix(thinking.start) + "Hi", control, opened=True) == "whole"


def test_calls_mentioned_in_reasoning_are_not_enforced() -> None:
    format = ReplyFormat(tool_format("<tool_call>"), THINKING[-1])
    assert takes(format, "<think>I write <tool_call>x</tool_call></think>Hi", False) == "whole"


def test_the_markers_around_an_answer() -> None:
    format = ReplyFormat(
        tool_format("<|START_ACTION|>"), THINKING[1], ("<|START_RESPONSE|>", "<|END_RESPONSE|>")
    )
    text = "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>Hi<|END_RESPONSE|>"
    assert takes(format, text, True) == "whole"
    assert takes(format, text, False) == "whole"


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "number"}}},
        {"type": "object", "properties": {"a": {"enum": ["x", 'y"</']}, "ü é": {"type": ["string", "null"]}}},
        {"type": "object", "properties": {"a": {"not": {}}, "b": {"uniqueItems": True, "type": "array"}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}},
        {"type": "object", "properties": {"a": True, "b": {"anyOf": [{"type": "string"}, {"type": "null"}]}}},
        {"properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}},
    ],
)
@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.name in SHAPES], ids=lambda e: e.name)
def test_schemas_of_all_sorts_make_a_grammar(example: Example, schema: dict[str, Any]) -> None:
    given = read_tools(
        [{"type": "function", "function": {"name": "f-1.x", "parameters": schema}}], "auto", True
    )
    assert given is not None
    lark = ReplyFormat(tool_format(example.template)).grammar(given, lambda _: None, opened=False)
    error = llguidance.LLMatcher.validate_grammar(llguidance.LLMatcher.grammar_from_lark(lark))
    assert not error or error.startswith("WARNING"), f"{error}\n{lark}"


def test_members_that_a_schema_does_not_have_are_not_made_up() -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"type": "object", "properties": {}}, "{}", "whole"),
        ({"type": "object", "properties": {}}, '{"a": 1}', "wrong"),
        ({"type": "object"}, '{"a": 1}', "whole"),
        ({"type": "object", "properties": {}, "required": ["a"]}, '{"a": 1}', "whole"),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1, "b": 2}', "wrong"),
        (
            {"properties": {"a": {"type": "integer"}}, "additionalProperties": True},
            '{"a": 1, "b": 2}',
            "whole",
        ),
        (
            {"properties": {"l": {"type": "array", "items": {"properties": {"a": {}}}}}},
            '{"l": [{"a": 1, "b": 2}]}',
            "wrong",
        ),
        (
            {"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]},
            '{"a": 1, "b": 2}',
            "whole",
        ),
    ]
    for parameters, text, expected in cases:
        schema = {"type": "object", **parameters}
        given = read_tools(
            [{"type": "function", "function": {"name": "f", "parameters": schema}}], "required", False
        )
        call = f'<tool_call>{{"name": "f", "arguments": {text}}}</tool_call>'
        assert takes(ReplyFormat(tool_format("<tool_call>")), call, False, given=given) == expected, text


def test_tags_inside_of_tags_have_their_types() -> None:
    inner = {
        "type": "object",
        "properties": {"s": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["s"],
    }
    schema = {"type": "object", "properties": {"o": inner, "l": {"type": "array", "items": inner}}}
    given = read_tools([{"type": "function", "function": {"name": "f", "parameters": schema}}], "auto", True)
    format = ReplyFormat(tool_format(BY_NAME["minimax-m3"].template))
    for inside, expected in [
        ("@<o>@<s>x@</s>@<n>5@</n>@</o>", "whole"),
        ("@<l>@<item>@<s>x@</s>@</item>@<item>@<s>y@</s>@</item>@</l>", "whole"),
        ("@<l>@</l>", "whole"),
        ("", "whole"),
        ("@<o>@<n>5@</n>@</o>", "wrong"),
        ("@<o>@<s>x@</s>@<n>x@</n>@</o>", "wrong"),
        ("@<l>x@</l>", "wrong"),
        ("@<x>x@</x>", "wrong"),
    ]:
        text = f'@<tool_call>@<invoke name="f">{inside}@</invoke>@</tool_call>'.replace("@", M3)
        for tokens in ([], [M3]):
            assert takes(format, text, False, given=given, tokens=tokens) == expected, inside
