"""Every call syntax: recognised, read however its text is cut, whole, cut short and broken."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from formats import BY_NAME, EXAMPLES, M3, PARIS, PARTS, WHOLE, ZURICH, A, Example, read, tools

from corral.chat.reply_format import ReplyFormat
from corral.chat.tool_formats import FORMATS, GENERIC, tool_format
from corral.chat.tools import read_tools

IDS = {"kimi-k2": "functions.get_weather:0", "solar-open": "a1b2c3d4e5"}
"""Where they are part of the text."""

every = pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name)


def format_of(example: Example) -> ReplyFormat:
    return ReplyFormat(tool_format(example.template))


def test_every_format_has_an_example() -> None:
    assert {e.name for e in EXAMPLES} == {f.name for f in (*FORMATS, GENERIC)}


@every
def test_it_is_recognised_in_a_template(example: Example) -> None:
    assert tool_format(example.template).name == example.name


@every
def test_a_call_is_read(example: Example) -> None:
    got = read(format_of(example), [example.text], tools())
    assert got.parsed == [PARIS]
    assert got.content == got.reasoning == ""
    assert got.ids == [IDS.get(example.name, "id0")]


@every
def test_several_calls_are_read(example: Example) -> None:
    if example.several:
        got = read(format_of(example), [example.several], tools())
        assert got.parsed == [PARIS, ZURICH]
        assert got.content == ""


@every
def test_the_cuts_make_no_difference(example: Example) -> None:
    for text in filter(None, (example.text, example.several)):
        whole = read(format_of(example), [text], tools())
        assert read(format_of(example), list(text), tools()) == whole
        for cut in range(len(text) + 1):
            assert read(format_of(example), [text[:cut], text[cut:]], tools()) == whole


@every
def test_text_before_a_call_is_content(example: Example) -> None:
    if example.name in WHOLE:
        return  # their calls are all of a reply, or a part of its own
    got = read(format_of(example), list(f" I look, [a] <b> it up.\n\n{example.text}\n"), tools())
    assert got.parsed == [PARIS]
    assert got.content == " I look, [a] <b> it up."


@every
def test_a_reply_cut_short_loses_nothing(example: Example) -> None:
    """Its call is the beginning of the whole one, or else all of the text is content."""
    whole = read(format_of(example), [example.text], tools()).calls[0]
    for cut in range(1, len(example.text)):
        text = example.text[:cut]
        got = read(format_of(example), [text], tools())
        if got.calls:
            assert len(got.calls) == 1
            name, arguments = got.calls[0]
            assert name == whole[0]
            assert whole[1].startswith(arguments)
            assert got.content == "", text
        elif example.name not in PARTS:
            assert got.content == text.rstrip() or got.content == text


@every
def test_a_second_call_cut_short_loses_nothing(example: Example) -> None:
    """Of each reply, all words are in the calls or in the content."""
    for cut in range(len(example.text), len(example.several)):
        got = read(format_of(example), [example.several[:cut]], tools())
        begun = example.several[len(example.text) : cut]
        if "sear" in begun:
            assert "sear" in got.content + "".join(name for name, _ in got.calls), begun


@every
def test_another_end_than_the_syntaxs_is_content(example: Example) -> None:
    got = read(format_of(example), [example.text, " and that was it"], tools())
    assert got.parsed == [PARIS]
    assert got.content.strip() == "and that was it"


BROKEN = {
    "hermes": [
        "<tool_call>\nget_weather(Paris)\n</tool_call>",
        '<tool_call>{"arguments": {"city": "x"}}</tool_call>',
        '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
        "<tool_call></tool_call>",
        '<tool_call>{"name": "get_weather" "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
    ],
    "mistral": ["[TOOL_CALLS]", "[TOOL_CALLS][1]", "[TOOL_CALLS] hello\n"],
    "mistral-args": ["[TOOL_CALLS][ARGS]{}", "[TOOL_CALLS]f[ARGS] x"],
    "llama-3": ['{"name": "nobody", "parameters": {}}', '{"a": 1}', "[1, 2]", "{}", "```json\n{}\n```"],
    "generic": ['{"name": "nobody", "arguments": {}}', "```python\nprint(1)\n```"],
    "functionary-v3.1": ["<function=", "<function=f", "<function=>{}", "<function=f> no"],
    "functionary-v3.2": ["hello", "nobody\n{}"],
    "gigachat-3": ["<|message_sep|>\n\nfunction call<|role_sep|>\nno", "<|message_sep|>\n\nfunction call"],
    "gigachat-3.1": ["<|function_call|>no", "<|function_call|>[1]"],
    "minicpm-5": ['<function name="', '<function name="f', '<function name="">', '<function name="f\n">'],
    "hy3": [
        "<tool_calls:opensource>",
        "<tool_calls:opensource>no</tool_calls:opensource>",
        "<tool_calls:opensource>\n<tool_call:opensource>f<tool_sep:opensource>no",
    ],
    "solar-open": [
        "<|tool_calls|>",
        "<|tool_calls|><|tool_call:begin|>1<|tool_call:name|>f<|tool_call:args|>no<|tool_call:end|>",
        "<|tool_calls|><|tool_call:begin|>1<|tool_call:name|><|tool_call:args|>{}",
    ],
    "muse": [" to=f", " to=f<|message|>no", " to=f<|message|><atem:function_calls>no"],
    "minimax-m3": [f"{M3}<tool_call>", f"{M3}<tool_call>no", f'{M3}<tool_call>{M3}<invoke name="f'],
    "glm-4.5": ["<tool_call>", "<tool_call>\n</tool_call>", "<tool_call>a\nb</tool_call>"],
    "qwen3-coder": ["<tool_call>\n<function=>\n", "<tool_call>x</tool_call>"],
    "deepseek-v3": [
        "<｜tool▁calls▁begin｜>x",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\nno",
    ],
    "kimi-k3": [
        "<|open|>tools<|sep|>no",
        '<|open|>tools<|sep|><|open|>call tool="f',
        '<|open|>tools<|sep|><|open|>call tool=""<|sep|>',
    ],
    "kimi-k2": ["<|tool_calls_section_begin|>x", "<|tool_calls_section_begin|><|tool_call_begin|>f:0"],
    "functiongemma": ["<start_function_call>x", "<start_function_call>call:f no"],
    "lfm2": [
        "<|tool_call_start|>[f(1)]<|tool_call_end|>",
        "<|tool_call_start|>[f(a=open('x'))]<|tool_call_end|>",
        "<|tool_call_start|>[f(a={1})]<|tool_call_end|>",
        "<|tool_call_start|>[f(a=1e999)]<|tool_call_end|>",
        "<|tool_call_start|>" + "(" * 5000 + "<|tool_call_end|>",
    ],
    "pythonic": ["[1]", "[f(a=1)]", "[x](y)", "[get_weather(", "[get_weather(1)]", "[get_weather(a=b)]"],
    "olmo-3": ["<function_calls>\nno\n</function_calls>", "<function_calls>"],
    "command-r": ["Action:\n```json\nno```"],
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in BROKEN.items() for t in texts])
def test_what_is_no_call_is_content(name: str, text: str) -> None:
    format = next(f for f in (*FORMATS, GENERIC) if f.name == name)
    got = read(ReplyFormat(format), list(text), tools())
    assert got.calls == []
    assert got.content == text


@pytest.mark.parametrize(
    ("text", "arguments", "content"),
    [
        (
            '<tool_call>{"name": "get_weather", "arguments": {"city": "x",,}}</tool_call>',
            '{"city": "x",',
            ",}}",
        ),
        (
            '<tool_call>{"name": "get_weather", "arguments": {"a": 1} oh</tool_call>',
            '{"a": 1}',
            "oh</tool_call>",
        ),
    ],
)
def test_arguments_that_break_off_leave_the_rest_as_content(text: str, arguments: str, content: str) -> None:
    got = read(ReplyFormat(tool_format("<tool_call>")), list(text), tools())
    assert got.calls == [("get_weather", arguments)]
    assert got.content.startswith(content)


@pytest.mark.parametrize(
    "text",
    [
        '{"arguments": {"city": "Paris", "days": 3}, "name": "get_weather"}',
        '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris", "days": 3}}',
        '{"id": 7, "function": "get_weather", "args": {"city": "Paris", "days": 3}, "x": null}',
        '{"name":"get_weather","arguments":"{\\"city\\": \\"Paris\\", \\"days\\": 3}"}',
    ],
)
def test_the_ways_to_say_a_call_in_json(text: str) -> None:
    for format in (ReplyFormat(tool_format("<tool_call>")), ReplyFormat()):
        wrapped = f"<tool_call>{text}</tool_call>" if format.tools is not GENERIC else text
        assert read(format, list(wrapped), tools()).parsed == [PARIS]


@pytest.mark.parametrize("arguments", ["null", '""', "{}"])
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    text = f'<tool_call>{{"name": "search", "arguments": {arguments}}}</tool_call>'
    assert read(ReplyFormat(tool_format("<tool_call>")), [text], tools()).calls == [("search", "{}")]
    text = '<tool_call>{"name": "search"}</tool_call>'
    assert read(ReplyFormat(tool_format("<tool_call>")), [text], tools()).calls == [("search", "{}")]


def test_a_fenced_call_is_read() -> None:
    for fence in ("json", "tool_code", "tool_call", ""):
        text = f'```{fence}\n{{"name": "get_weather", "arguments": {A}}}\n```'
        got = read(ReplyFormat(), list(text), tools())
        assert (got.parsed, got.content) == ([PARIS], "")


def test_llamas_python_tag() -> None:
    llama = ReplyFormat(tool_format('<|start_header_id|>"parameters"'))
    text = f'<|python_tag|>{{"name": "get_weather", "parameters": {A}}}'
    assert read(llama, list(text), tools()).parsed == [PARIS]
    assert read(llama, ["<|python_tag|>print(1)"], tools()).content == "print(1)"


def test_arguments_are_streamed() -> None:
    for example in EXAMPLES:
        name = example.name
        if name in ("lfm2", "olmo-3", "pythonic"):
            continue  # Python's text is no JSON until it has ended
        parser = format_of(example).parser(tools(), opened=False)
        deltas = [parser.feed(c) for c in example.text]
        assert sum(map(bool, deltas)) > 8, name


def test_parameters_take_the_types_of_the_schema() -> None:
    from corral.chat.tool_formats.parameters import as_json

    for text, types, expected in [
        ("3", {"integer"}, "3"),
        ("3", set(), "3"),
        ("3", {"string", "null"}, '"3"'),
        ("null", {"string", "null"}, "null"),
        ("True", {"boolean"}, "true"),
        ("None", set(), "null"),
        ("NaN", {"number"}, '"NaN"'),
        ("[1, 2]", {"array"}, "[1, 2]"),
        ("{'a': 1}", {"object"}, "\"{'a': 1}\""),
        ("x", {"integer"}, '"x"'),
        ("9" * 5000, {"integer"}, '"' + "9" * 5000 + '"'),
        ("[" * 100000, {"array"}, '"' + "[" * 100000 + '"'),
    ]:
        assert as_json(text, types) == expected


def test_line_breaks_in_the_strings_of_a_pythonic_call() -> None:
    lfm = ReplyFormat(tool_format("<|tool_call_start|>"))
    text = "<|tool_call_start|>[search(query='a \"b\"\nc')]<|tool_call_end|>"
    assert read(lfm, list(text), tools()).parsed == [("search", {"query": 'a "b"\nc'})]
    text = "<|tool_call_start|>[\n  search(query='a'),\n  search(query='b')\n]<|tool_call_end|>"
    assert read(lfm, list(text), tools()).parsed == [("search", {"query": "a"}), ("search", {"query": "b"})]


def test_no_two_calls_have_one_id() -> None:
    for name in ("kimi-k2", "solar-open"):
        example = BY_NAME[name]
        text = example.several.replace("search:1", "search:0").replace("f6g7h8i9j0", "a1b2c3d4e5")
        text = text.replace("functions.search:0", "functions.get_weather:0")
        got = read(format_of(example), [text], tools())
        assert got.ids == [IDS[name], "id0"]


def test_a_bare_list_of_calls() -> None:
    bare = format_of(BY_NAME["pythonic"])
    for text, calls, content in [
        ("[search(query='[a] (b]', exact=True)] so", [("search", {"query": "[a] (b]", "exact": True})], "so"),
        ("[search(query=['x', ['y']])]", [("search", {"query": ["x", ["y"]]})], ""),
        ("[search(query='a'), nobody()]", [("search", {"query": "a"}), ("nobody", {})], ""),
        ("[nobody(query='a')]", [], "[nobody(query='a')]"),
        ("I say [search(query='a')]", [], "I say [search(query='a')]"),
        ("[search(" + "]" * 1000, [], "[search(" + "]" * 1000),
    ]:
        for pieces in ([text], list(text)):
            got = read(bare, pieces, tools())
            assert (got.parsed, got.content) == (calls, content)
    assert read(bare, ["[search(query='a')]"], None).content == "[search(query='a')]"


@pytest.mark.parametrize("inside", ["a:[}<}", "a:[1}", "a:[,]", "a:}", "a:,b:1}", "a:[[}]", ":1}", "a:{}]"])
def test_a_broken_value_of_gemmas_ends(inside: str) -> None:
    text = f"<|tool_call>call:search{{{inside}<tool_call|> and more"
    got = read(ReplyFormat(tool_format("<|tool_call>")), list(text), tools())
    assert got.content.endswith("and more")


def test_what_follows_a_broken_marker_is_not_lost() -> None:
    text = (
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_\n" + "and a long story. " * 9
    )
    got = read(ReplyFormat(tool_format("<arg_key><arg_value>")), list(text), tools())
    assert got.calls == [("get_weather", '{"city": "Paris"')]
    assert got.content.endswith("and a long story. ")


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to three pieces of it left out, said twice, or something else put in."""
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(text) + 1)
        j = min(len(text), i + rng.randint(1, 6))
        new = "".join(rng.choices('{}[]"\\:,<>|/\n ab1é｜▁', k=rng.randint(1, 3)))
        text = text[:i] + rng.choice(["", text[i:j] * 2, new + text[i:j]]) + text[j:]
    return text


@every
def test_whatever_is_broken_it_ends_and_the_cuts_make_no_difference(example: Example) -> None:
    rng = random.Random(1)
    for _ in range(150):
        text = mutated(rng.choice([example.text, example.several or example.text]) + " end", rng)
        whole = read(format_of(example), [text], tools())
        assert read(format_of(example), list(text), tools()) == whole, text


NESTED = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {
            "type": "object",
            "properties": {
                "o": {
                    "type": "object",
                    "properties": {"s": {"type": "string"}, "n": {"type": "number"}, "l": {"type": "array"}},
                },
                "l": {"type": "array", "items": {"type": "string"}},
                "m": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                "any": {},
            },
        },
    },
}
NESTED_CASES: list[tuple[str, dict[str, Any]]] = [
    ("<o>@<s>5@</s>@<n>5@</n>@<l>@</l>@</o>", {"o": {"s": "5", "n": 5, "l": []}}),
    ("<o>@</o>", {"o": {}}),
    ("<l>@<item>5@</item>@<item>true@</item>@</l>", {"l": ["5", "true"]}),
    ("<m>@<item>@<item>5@</item>@</item>@<item>@</item>@</m>", {"m": [[5], []]}),
    ("<any>@<a>5@</a>@<b> x @</b>@</any>", {"any": {"a": 5, "b": " x "}}),
    ("<any>@<item>@<k>v@</k>@</item>@</any>", {"any": [{"k": "v"}]}),
    ("<any>[1, {}]@</any>", {"any": [1, {}]}),
    ("<any>@</any>", {"any": ""}),
]


@pytest.mark.parametrize(("text", "expected"), NESTED_CASES)
def test_tags_inside_of_tags(text: str, expected: dict[str, Any]) -> None:
    given = read_tools([NESTED], "auto", True)
    whole = f'@<tool_call>\n@<invoke name="f">@{text}@</invoke>\n@</tool_call>'.replace("@", M3)
    got = read(format_of(BY_NAME["minimax-m3"]), list(whole), given)
    assert (got.parsed, got.content) == ([("f", expected)], "")
    for cut in range(len(whole) if "any" not in text else 0):  # whether it was a string, the end says
        got = read(format_of(BY_NAME["minimax-m3"]), [whole[:cut]], given)
        assert not got.calls or json.dumps(expected).startswith(got.calls[0][1])


@pytest.mark.parametrize("inside", ["<a", "<a>", "</a>", "<a>@</b>", "<>1@</>", "<a>@<b>1@</a>", "<a>1", "x"])
def test_broken_tags_end(inside: str) -> None:
    text = f'@<tool_call>@<invoke name="f">@{inside}@</invoke>@</tool_call> and more'.replace("@", M3)
    got = read(format_of(BY_NAME["minimax-m3"]), list(text), tools())
    assert got.content.endswith("and more")


def test_tags_without_end() -> None:
    text = f'{M3}<tool_call>{M3}<invoke name="f">' + f"{M3}<a>" * 5000
    assert len(read(format_of(BY_NAME["minimax-m3"]), [text], tools()).calls) == 1


@pytest.mark.parametrize(
    "name", ["hermes", "granite", "nemotron-mini", "lfm2", "olmo-3", "kimi-k2", "generic"]
)
@pytest.mark.parametrize("calls", [[PARIS], [PARIS, ZURICH]], ids=["one", "two"])
def test_calls_that_are_written_are_read(name: str, calls: list[tuple[str, Any]]) -> None:
    """For templates that show the text of a reply only."""
    format = format_of(BY_NAME[name])
    text = format.tools.write([(function, json.dumps(arguments)) for function, arguments in calls])
    assert read(format, [text], tools()).parsed == calls
