"""Grammars over a vocabulary of all bytes, some words and some control tokens."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import NotSupported, RequestError
from corral.sampling.chain import Chain
from corral.sampling.constraint import MOST_BYTES, MOST_COMPILED, Grammars, Matcher
from corral.sampling.params import SamplingParams

WORDS = [
    b"{",
    b'{"',
    b'":',
    b'": ',
    b"name",
    b"na",
    b"me",
    b"true",
    b"false",
    b'", "',
    b"}}",
    b"12",
    "é".encode(),
]
PIECES = [*(bytes([i]) for i in range(256)), *WORDS, b"<call>", b"<|ctl|>", b"<|end|>", b"<|stop|>"]
CALL, CONTROL, END, STOP = range(256 + len(WORDS), len(PIECES))
EOG = (END, STOP)
GRAMMARS = Grammars(PIECES, (CONTROL, END, STOP), EOG)


def allowed(matcher: Matcher, tokens: list[int]) -> set[int]:
    mask = matcher.allowed(len(tokens), tokens)
    return {token for token in range(len(PIECES)) if int(mask[token // 32]) >> (token % 32) & 1}


def matches(kind: str, grammar: str, text: bytes, longest: bool = False) -> bool:
    """Whether the text, spelled in single bytes or in the longest tokens, is allowed and complete."""
    matcher, tokens, rest = GRAMMARS.compile_now(kind, grammar), [], text
    while rest:
        choices = [i for i, piece in enumerate(PIECES[:CONTROL]) if rest.startswith(piece)]
        token = max(choices, key=lambda i: len(PIECES[i])) if longest else rest[0]
        if token not in allowed(matcher, tokens):
            return False
        matcher.accept(token)
        tokens.append(token)
        rest = rest[len(PIECES[token]) :]
    return matcher.is_accepting


SCHEMA = json.dumps(
    {"type": "object", "properties": {"name": {"type": "boolean"}, "n": {"type": "integer"}},
     "required": ["name"], "additionalProperties": False}
)  # fmt: skip


@pytest.mark.parametrize("longest", [False, True])
@pytest.mark.parametrize(
    ("kind", "grammar", "yes", "no"),
    [
        (
            "json_schema",
            SCHEMA,
            ['{"name": true}', '{"name":false, "n": 12}', '{\n  "name": true\n}'],
            ["", "{}", '{"name": 1}', '{"n": 1, "name": true}', '{"name": true', '{"name":    true}', "[]"],
        ),
        (
            "json_schema",
            '{"properties": {"format": {"const": {"format": "x"}}, '
            '"b": {"items": {"type": "string", "format": "x"}}, '
            '"c": {"type": "string", "format": "odd one"}}, "required": ["format"]}',
            ['{"format": {"format": "x"}, "b": ["any"], "c": ""}', '{"format": {"format": "x"}}'],
            [
                '{"format": {}}',
                '{"format": {"format": "x"}, "b": [1]}',
                '{"format": {"format": "x"}, "c": 1}',
            ],
        ),
        ("json_schema", '{"type": "string", "format": "date"}', ['"2026-01-02"'], ['"x"']),
        ("json_schema", "{}", ["1", '"é"', '{"a": [null]}'], ["", "nul"]),
        ("json_schema", "true", ["[]"], ["x"]),
        ("gbnf", 'root ::= "a" [0-9]{2,3} ("x" | "é")?', ["a12", "a123x", "a12é"], ["a1", "b12", "a1234"]),
        ("gbnf", '# a list\nroot ::= item+\nitem ::= "- " [^\\n]+ "\\n"', ["- b\n- c\n"], ["- b"]),
        ("regex", "[a-z]+@[a-z]+\\.com", ["me@name.com"], ["me@name.org", "@.com", "me@name.com "]),
        ("regex", "a/b|c", ["a/b", "c"], ["a"]),
        ("lark", 'start: "a" b?\nb: /[0-9]+/', ["a", "a12"], ["12"]),
        ("lark", '%llguidance {}\nstart: "<call>" %json {"type": "integer"}', ["<call>12"], ["<call>"]),
    ],
)
def test_what_is_allowed(kind: str, grammar: str, yes: list[str], no: list[str], longest: bool) -> None:
    assert [text for text in yes if not matches(kind, grammar, text.encode(), longest)] == []
    assert [text for text in no if matches(kind, grammar, text.encode(), longest)] == []


@pytest.mark.parametrize(
    ("kind", "grammar", "message"),
    [
        ("json_schema", '{"type": "objekt"}', "the JSON schema is not valid: Invalid type: objekt"),
        (
            "json_schema",
            '{"properties": {"a/b": {"items": {"type": "objekt"}}}}',
            "the JSON schema is not valid: Invalid type: objekt (at #/properties/a~1b/items)",
        ),
        (
            "json_schema",
            '{"$defs": {"q": {"not": {}}}, "anyOf": [{"type": "string"}, {"$ref": "#/$defs/q"}]}',
            "(at #/$defs/q)",
        ),
        (
            "json_schema",
            '{"$defs": {"q": {"type": "string"}}, "anyOf": [{"$ref": "#/$defs/q"}, {"uniqueItems": true}]}',
            "(at #/anyOf/1)",
        ),
        ("json_schema", '{"anyOf": [{"$ref": "#/no"}]}', "Pointer '/no' does not exist (at #/anyOf/0)"),
        ("json_schema", '{"$ref": "#/no"}', "the JSON schema is not valid: Pointer '/no' does not exist"),
        ("json_schema", '{"type": "string", "if": {}}', 'Unimplemented keys: ["if"]'),
        ("json_schema", '{"type": "string", "pattern": "("}', "the JSON schema is not valid: "),
        ("json_schema", "false", "the JSON schema is not valid: "),
        ("json_schema", '{"a": ', "the JSON schema is not valid: Expecting value: line 1 column 7"),
        ("json_schema", "[1]", "the JSON schema is [1], expected an object or a boolean"),
        ("json_schema", "[" * 100_000, "the JSON schema is not valid: "),
        ("json_schema", '{"items":' * 300 + "{}" + "}" * 300, "recursion limit exceeded"),
        ("gbnf", 'root ::= "a" (', "the grammar is not valid: "),
        ("gbnf", 'root ::= "a"\nx = 1', "line 2"),
        ("gbnf", "root ::= nothing", "nothing"),
        ("gbnf", "", "the grammar is not valid: "),
        ("regex", "(a", "unclosed group"),
        ("lark", 'a: "x"', "no start rule"),
        ("lark", 'start: "a"\n  b', "the Lark grammar is not valid: 2(4): Expected token"),
        ("lark", "start: <|nosuch|>", 'unknown special token: "<|nosuch|>"'),
        ("lark", "start: start", "it allows no text"),
        ("regex", "a" * (MOST_BYTES + 1), f"has {MOST_BYTES + 1} bytes, expected at most {MOST_BYTES}"),
    ],
)
def test_what_is_wrong_is_named(kind: str, grammar: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)) as caught:
        GRAMMARS.compile_now(kind, grammar)
    assert len(str(caught.value)) < 600
    assert kind == "lark" or "llguidance" not in str(caught.value)


def test_the_end_is_allowed_where_the_text_is_complete() -> None:
    matcher = GRAMMARS.compile_now("regex", "a+b?")
    assert allowed(matcher, []) == {ord("a")}
    assert allowed(matcher, [97]) == {ord("a"), ord("b"), END, STOP}
    assert not matcher.is_complete
    assert allowed(matcher, [97, 98]) == {END, STOP}
    assert matcher.is_complete


def test_what_is_forced_may_be_spelled_in_any_way() -> None:
    matcher = GRAMMARS.compile_now("regex", "name")
    spellings = {PIECES[token] for token in allowed(matcher, [])}
    assert spellings == {b"n", b"na", b"name"}


def test_control_tokens_are_no_text() -> None:
    matcher = GRAMMARS.compile_now("lark", "start: /(?s:.*)/")
    assert {CONTROL, CALL, END} & allowed(matcher, []) == {CALL, END}
    assert not matches("regex", ".*", b"<|ctl|") or CONTROL not in allowed(
        GRAMMARS.compile_now("regex", "<\\|ctl\\|>"), []
    )


@pytest.mark.parametrize("name", ["<|ctl|>", f"<[{CONTROL}]>"])
def test_a_control_token_that_is_named(name: str) -> None:
    matcher = GRAMMARS.compile_now("lark", f'start: {name} "x" <|stop|>')
    assert allowed(matcher, []) == {CONTROL}
    assert allowed(matcher, [CONTROL]) == {ord("x")}
    assert allowed(matcher, [CONTROL, ord("x")]) == {STOP}


def test_a_place_may_be_asked_for_again() -> None:
    """After a preemption, or where guesses were wrong; tokens may come without having been asked for."""
    tokens = list(b'{"name": true, "n": 1')
    once = GRAMMARS.compile_now("json_schema", SCHEMA)
    sets = []
    for length in range(len(tokens) + 1):
        sets.append(allowed(once, tokens[:length]))
    other = GRAMMARS.compile_now("json_schema", SCHEMA)
    for length in (5, 0, 9, 9, 8, len(tokens), 3, 4):
        assert allowed(other, tokens[:length]) == sets[length]


def test_the_prompt_is_no_part_of_the_text() -> None:
    matcher = GRAMMARS.compile_now("regex", "ab")
    matcher.begin(3)
    assert allowed(matcher, [7, 8, 9]) == {ord("a")}
    assert allowed(matcher, [7, 8, 9, ord("a")]) == {ord("b")}


def test_a_grammar_is_compiled_once_and_its_matchers_are_independent() -> None:
    grammars = Grammars(PIECES, (CONTROL, END, STOP), EOG)
    one, two = grammars.compile_now("regex", "ab"), grammars.compile_now("regex", "ab")
    assert len(grammars._compiled) == 1
    one.accept(ord("a"))
    assert allowed(two, []) == {ord("a")}
    for i in range(MOST_COMPILED + 5):
        grammars.compile_now("regex", f"x{i}")
    assert len(grammars._compiled) == MOST_COMPILED
    assert ("regex", "ab") not in grammars._compiled


def test_a_model_without_an_end() -> None:
    with pytest.raises(NotSupported, match="no token that ends a text"):
        Grammars(PIECES, (), ()).compile_now("regex", "a")


def test_a_text_that_the_limits_do_not_let_be_followed() -> None:
    """Not a text that is wrong: an error."""
    matcher = GRAMMARS.compile_now("lark", 'start: e\ne: e e | e e e | "a"')

    def follow() -> None:
        for length in range(2000):
            matcher.allowed(length, [ord("a")] * length)

    with pytest.raises(RequestError, match=r"too complex to follow .*max is 1000"):
        follow()


def write(chain: Chain, seed: int, most: int, edit: float = 0.0) -> tuple[bytes, bool]:
    """A text of random logits, and whether it ended by itself."""
    rng = np.random.default_rng(seed)
    tokens = [1, 2]
    for _ in range(most):
        row = (rng.standard_normal(len(PIECES)) * 3).astype(np.float32)
        row[list(b' \n"}')] += edit  # so that strings and objects end some time
        tokens.append(chain.sample(row, tokens))
        if tokens[-1] in EOG or chain.is_complete:
            return b"".join(PIECES[t] for t in tokens[2:] if t not in EOG), True
    return b"".join(PIECES[t] for t in tokens[2:]), False


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "ages": {"type": "array", "items": {"enum": [1, "two", None]}},
    },
    "required": ["name", "ages"],
    "additionalProperties": False,
}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    params=st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 0.8, 3.0]),
        top_k=st.sampled_from([0, 40, 1]),
        xtc_probability=st.sampled_from([0.0, 1.0]),
        typical_p=st.sampled_from([1.0, 0.5]),
        mirostat=st.sampled_from([0, 0, 1, 2]),
        min_keep=st.sampled_from([0, 90]),
        ignore_eos=st.booleans(),
        logit_bias=st.sampled_from([{}, {END: -math.inf}, {ord("z"): 30.0}]),
    ),
)
def test_a_text_is_valid_or_cut_off(seed: int, params: SamplingParams) -> None:
    chain = Chain(params, seed, EOG, PIECES, GRAMMARS.compile_now("json_schema", json.dumps(PERSON)), 2)
    text, ended = write(chain, seed, 300, edit=4.0)
    if ended:
        value = json.loads(text)
        assert sorted(value) == ["ages", "name"]
        assert isinstance(value["name"], str)
        assert all(age in (1, "two", None) for age in value["ages"])


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_a_text_that_may_end_but_need_not(ignore_eos: bool) -> None:
    """Where only the end is left but banned, it ends all the same."""
    params = SamplingParams(ignore_eos=ignore_eos, logit_bias={ord("b"): -math.inf}, temperature=0)
    chain = Chain(params, 0, EOG, PIECES, GRAMMARS.compile_now("regex", "ab?"), 2)
    assert write(chain, 0, 9) == (b"a", True)


def test_a_bias_against_all_that_is_allowed() -> None:
    params = SamplingParams(logit_bias={ord("a"): -math.inf})
    chain = Chain(params, 0, EOG, PIECES, GRAMMARS.compile_now("regex", "ab?"), 2)
    with pytest.raises(RequestError, match="bans every token that the grammar allows"):
        write(chain, 0, 9)


def test_places_count_on_when_the_context_shifts() -> None:
    chain = Chain(SamplingParams(), 7, EOG, PIECES, GRAMMARS.compile_now("regex", "[ab]{6}"), 4)
    other = Chain(SamplingParams(), 7, EOG, PIECES, GRAMMARS.compile_now("regex", "[ab]{6}"), 4)
    rows = np.random.default_rng(0).standard_normal((6, len(PIECES))).astype(np.float32)
    tokens, shifted = [1, 2, 3, 4], [1, 2, 3, 4]
    for i, row in enumerate(rows):
        tokens.append(chain.sample(row, tokens))
        shifted.append(other.sample(row, shifted))
        assert tokens[-1] == shifted[-1]
        if i == 2:
            del shifted[1:4]
            other.shift(3)
    assert chain.is_complete
    assert other.is_complete
