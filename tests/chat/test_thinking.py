"""Reasoning between markers, and where it goes."""

from __future__ import annotations

import pytest
from formats import BY_NAME, PARIS, read, tools
from hypothesis import given
from hypothesis import strategies as st
from test_tool_grammars import takes

from corral.chat.reply_format import ReplyFormat
from corral.chat.thinking import THINKING, Thinking, thinking_of
from corral.chat.tool_formats import tool_format

THINK = THINKING[-1]
FORMAT = ReplyFormat(thinking=THINK)
every = pytest.mark.parametrize("thinking", THINKING, ids=lambda t: t.start)


@every
def test_it_is_found_in_a_template(thinking: Thinking) -> None:
    assert thinking_of(f"... {thinking.start} ... {thinking.end}") == thinking
    assert thinking_of("nothing of the kind") is None


@every
def test_an_end_without_a_beginning_is_no_content(thinking: Thinking) -> None:
    format = ReplyFormat(thinking=thinking)
    assert read(format, list(f"{thinking.end}\n\nYes"), None).content == "Yes"
    assert read(format, list(f"Yes {thinking.end}"), None).content == f"Yes {thinking.end}"


@every
@pytest.mark.parametrize("opened", [False, True])
def test_reasoning_is_apart_however_it_is_cut(thinking: Thinking, opened: bool) -> None:
    text = f"{'' if opened else thinking.start}\n First, <a>.\n\nThen [b]. \n{thinking.end}\n\n Yes.\n"
    format = ReplyFormat(thinking=thinking)
    for cut in range(len(text) + 1):
        got = read(format, [text[:cut], text[cut:]], None, opened=opened)
        assert (got.reasoning, got.content) == ("First, <a>.\n\nThen [b].", "Yes.\n")
    assert read(format, list(text), None, opened=opened) == got


CASES: list[tuple[str, bool, str, str]] = [
    ("Yes", False, "", "Yes"),
    ("  Yes ", False, "", "  Yes "),
    ("", False, "", ""),
    ("<thin", False, "", "<thin"),
    ("<think>Hm", False, "Hm", ""),
    ("<think>Hm</th", False, "Hm</th", ""),
    ("<think>\n\n</think>\n\nYes", False, "", "Yes"),
    ("\n<think>a</think>b", False, "a", "b"),
    ("a <think>b</think>", False, "", "a <think>b</think>"),
    ("<think>a</think>b<think>c</think>", False, "a", "b<think>c</think>"),
    ("Hm", True, "Hm", ""),
    ("</think>Yes", True, "", "Yes"),
]


@pytest.mark.parametrize(("text", "opened", "reasoning", "content"), CASES)
def test_what_is_reasoning(text: str, opened: bool, reasoning: str, content: str) -> None:
    for pieces in ([text], list(text)):
        got = read(FORMAT, pieces, None, opened=opened)
        assert (got.reasoning, got.content) == (reasoning, content)


@given(st.text("<think/>ab \n", max_size=40), st.booleans())
def test_inside_the_content_nothing_is_changed(text: str, opened: bool) -> None:
    got = read(FORMAT, list(text), None, opened=opened, thoughts="inside")
    assert got.content == text
    assert got.reasoning == ""


@given(st.text("<think/>ab \n", max_size=40), st.booleans())
def test_nothing_but_markers_and_white_space_is_lost(text: str, opened: bool) -> None:
    got = read(FORMAT, list(text), None, opened=opened)
    said = got.reasoning + got.content
    for marker in ("<think>", "</think>"):
        said = said.replace(marker, "")
        text = text.replace(marker, "")
    assert "".join(said.split()) == "".join(text.split())


def test_both_ways_at_once() -> None:
    text = "<think>\nHm.\n</think>\n\nYes"
    got = read(FORMAT, list(text), None, thoughts="both")
    assert (got.reasoning, got.content) == ("Hm.", text)


def test_calls_in_reasoning_are_reasoning() -> None:
    call = BY_NAME["hermes"].text
    format = ReplyFormat(tool_format("<tool_call>"), THINK)
    got = read(format, list(f"<think>I write {call}.</think>\n\n{call}"), tools())
    assert got.parsed == [PARIS]
    assert got.reasoning == f"I write {call}."


def test_the_markers_of_an_answer_are_not_in_it() -> None:
    format = ReplyFormat(
        tool_format("<|START_ACTION|>"), THINKING[1], ("<|START_RESPONSE|>", "<|END_RESPONSE|>")
    )
    text = "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>Hi, <b>!<|END_RESPONSE|>"
    for pieces in ([text], list(text)):
        got = read(format, pieces, None)
        assert (got.reasoning, got.content) == ("a", "Hi, <b>!")


HARMONY = ReplyFormat(tool_format("<|start|><|channel|><|message|>"))
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
HARMONIES: list[tuple[str, str, str, int]] = [
    (THOUGHT + "<|channel|>final<|message|>Yes<|return|>", "Hm.", "Yes", 0),
    ("<|channel|>final<|message|>Yes", "", "Yes", 0),
    (THOUGHT + THOUGHT + "<|channel|>final<|message|>Yes", "Hm.Hm.", "Yes", 0),
    (THOUGHT + "<|channel|>commentary<|message|>I call.<|end|><|start|>assistant" + BY_NAME["harmony"].text,
     "Hm.", "I call.", 1),
    (" to=functions.search<|channel|>commentary json<|message|>{}<|call|>", "", "", 1),
    (THOUGHT + " to=functions.search<|channel|>analysis <|constrain|>json<|message|>{}", "Hm.", "", 1),
    ("Yes", "", "Yes", 0),
    ("<|channel|>analysis<|message|>Hm", "Hm", "", 0),
    ("<|channel|>final<|message|>", "", "", 0),
    ("<|channel|>final", "", "<|channel|>final", 0),
    ("<|channel|>commentary to=functions.search<|message|>no json<|call|>", "",
     "to=functions.search<|message|>no json<|call|>", 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        ("<|START_RESPONSE|>", "<|START_RESPONSE|>"),
        ("<|START_ACTION|>...<|START_TEXT|>", "<|START_TEXT|>"),
        ("thoughts between <think></think> and your response between <response></response>", "<response>"),
        ("<think></think> {{ '<response>' + result + '</response>' }}", ""),  # of a tool
    ],
)
def test_the_markers_of_an_answer_are_found_in_a_template(template: str, answer: str) -> None:
    found = ReplyFormat.of(template, knows_tools=True).answer
    assert (found[0] if found else "") == answer


MUSE_CALL = BY_NAME["muse"].text
SOLAR = ReplyFormat(tool_format(BY_NAME["solar-open"].template))
MUSE = ReplyFormat(tool_format(BY_NAME["muse"].template))
PARTS: list[tuple[ReplyFormat, str, str, str, int]] = [
    (SOLAR, "<|think|>Hm.<|end|><|begin|>assistant<|content|>Yes<|end|>", "Hm.", "Yes", 0),
    (SOLAR, "<|think|>Hm.<|end|><|begin|>assistant" + BY_NAME["solar-open"].several, "Hm.", "", 2),
    (SOLAR, "<|content|> I call.<|end|><|begin|>assistant" + BY_NAME["solar-open"].text, "", "I call.", 1),
    (SOLAR, "<|think|>Hm", "Hm", "", 0),
    (SOLAR, "<|content|>", "", "", 0),
    (SOLAR, "Yes", "", "Yes", 0),
    (MUSE, " to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Yes<|eot|>", "Hm.", "Yes", 0),
    (MUSE, " to=self<|message|>Hm.<|eom|><|start|>assistant" + BY_NAME["muse"].several, "Hm.", "", 2),
    (MUSE, f" to=user<|message|>I call.<|eom|><|start|>assistant{MUSE_CALL}<|eot|>", "", "I call.", 1),
    (MUSE, "<|message|>Yes", "", "Yes", 0),
    (MUSE, " to=self<|message|>Hm", "Hm", "", 0),
    (MUSE, "Yes", "", "Yes", 0),
]


@pytest.mark.parametrize(("format", "text", "reasoning", "content", "calls"), PARTS)
def test_parts_that_say_what_they_are(
    format: ReplyFormat, text: str, reasoning: str, content: str, calls: int
) -> None:
    for pieces in ([text], list(text)):
        got = read(format, pieces, tools())
        assert (got.reasoning, got.content, len(got.calls)) == (reasoning, content, calls)
    if not calls:
        assert read(format, list(text), None) == read(format, [text], tools())


K3 = ReplyFormat(tool_format(BY_NAME["kimi-k3"].template), thinking_of(BY_NAME["kimi-k3"].template))
K3_ANSWER = "<|open|>response<|sep|>Yes, <b>.<|close|>response<|sep|>"
K3_END = "<|close|>message<|sep|>"


@pytest.mark.parametrize("opened", [False, True])
def test_tags_around_everything(opened: bool) -> None:
    tokens = ["<|open|>", "<|close|>", "<|sep|>"]
    thought = f"{'' if opened else '<|open|>think<|sep|>'}Hm.<|close|>think<|sep|>"
    call = BY_NAME["kimi-k3"].several
    for text, content, calls in [
        (f"{thought}{K3_ANSWER}{K3_END}", "Yes, <b>.", 0),
        (f"{thought}{K3_ANSWER}{call}{K3_END}", "Yes, <b>.", 2),
        (f"{thought}<|open|>response<|sep|><|close|>response<|sep|>{call}{K3_END}", "", 2),
        (f"{thought}{call}", "", 2),
    ]:
        for pieces in ([text], list(text)):
            got = read(K3, pieces, tools(), opened=opened)
            assert (got.reasoning, got.content, len(got.calls)) == ("Hm.", content, calls)
        assert takes(K3, text, False, opened=opened, tokens=tokens) == "whole"
        forced = takes(K3, text, False, opened=opened, tokens=tokens, choice="required")
        assert forced == ("whole" if calls and not content else "wrong")
    alone = read(K3, list(f"{thought}{K3_ANSWER}{K3_END}"), None, opened=opened)
    assert (alone.reasoning, alone.content) == ("Hm.", "Yes, <b>.")
    assert read(K3, ["Yes<|close|>response<|sep|>" + K3_END], None).content == "Yes"  # the prompt opened it


def test_arguments_as_one_block() -> None:
    call = '<|open|>call tool="f&amp;g" index="1"<|sep|><|open|>json type="object"<|sep|>{"a": "<|x|>"}'
    text = f"<|open|>tools<|sep|>{call}<|close|>json<|sep|><|close|>call<|sep|><|close|>tools<|sep|>"
    assert read(K3, list(text), tools()).parsed == [("f&g", {"a": "<|x|>"})]


@pytest.mark.parametrize("name", ["harmony", "solar-open", "muse"])
@pytest.mark.parametrize("control", [False, True])
def test_reasoning_of_parts_is_in_the_grammar(name: str, control: bool) -> None:
    format = ReplyFormat(tool_format(BY_NAME[name].template))
    syntax = format.tools
    thought = f"{syntax.reasoning_start}Hm, <b>."
    call = thought + syntax.reasoning_end_before_calls + BY_NAME[name].text
    assert takes(format, call, control, choice="required") == "whole"
    assert takes(format, call, control) == "whole"
    assert takes(format, f"{thought}{syntax.reasoning_end}Yes", control) == "whole"
    assert takes(format, f"{thought}{syntax.reasoning_end}Yes", control, choice="required") == "wrong"


@pytest.mark.parametrize(("text", "reasoning", "content", "calls"), HARMONIES)
def test_harmony(text: str, reasoning: str, content: str, calls: int) -> None:
    for pieces in ([text], list(text)):
        got = read(HARMONY, pieces, tools())
        assert (got.reasoning, len(got.calls)) == (reasoning, calls)
        assert got.content.endswith(content)
        assert content or not got.content
