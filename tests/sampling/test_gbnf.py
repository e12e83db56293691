# ruff: noqa: E501  (messages)
"""llama.cpp's grammars: what they mean, by a matcher that tries everything, and where a bad one is wrong."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import pytest

from corral.errors import RequestError
from corral.sampling import lexemes
from corral.sampling.constraint import Grammars
from corral.sampling.gbnf import (
    LAST,
    Choice,
    GrammarError,
    Node,
    OneOf,
    Repeat,
    Rule,
    Sequence,
    Text,
    parse,
)
from corral.sampling.lexemes import MOST_PLACES, to_lark

BYTES = 256
GRAMMARS = Grammars([*(bytes([i]) for i in range(BYTES)), b"<end>"], (BYTES,), (BYTES,))


def accepts(grammar: str, text: str) -> bool:
    """Of one byte a token."""
    matcher, tokens = GRAMMARS.compile_now("gbnf", grammar), []
    for byte in text.encode():
        if not int(matcher.allowed(len(tokens), tokens)[byte // 32]) >> (byte % 32) & 1:
            return False
        matcher.accept(byte)
        tokens.append(byte)
    return matcher.is_accepting


def ends(rules: dict[str, Node], node: Node, text: str, at: int, depth: int = 0) -> set[int]:
    """Where what `node` matches from `at` on may end."""
    if depth > 60:
        return set()

    def go(one: Node, start: int) -> set[int]:
        return ends(rules, one, text, start, depth + 1)

    match node:
        case Text(word):
            return {at + len(word)} if text.startswith(word, at) else set()
        case OneOf(ranges, negated):
            inside = at < len(text) and any(a <= ord(text[at]) <= b for a, b in ranges)
            return {at + 1} if at < len(text) and inside != negated else set()
        case Rule(name):
            return go(rules[name], at)
        case Sequence(nodes):
            places = {at}
            for one in nodes:
                places = {end for place in places for end in go(one, place)}
            return places
        case Choice(nodes):
            return {end for one in nodes for end in go(one, at)}
        case Repeat(one, least, most):
            found, places = set(), {at}
            for n in range(len(text) + 2 + least):
                found |= places if n >= least else set()
                if n == most:
                    break
                places = {end for place in places for end in go(one, place)}
            return found


ARITHMETIC = r"""
root  ::= (expr "=" term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= num | "(" ws expr ws ")"
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""


@pytest.mark.parametrize(
    ("grammar", "yes", "no"),
    [
        (ARITHMETIC, ["1+2=3\n", "1 +( 2)=3\n4=4\n\n"], ["1+2=3", "1+=3\n"]),
        ('root ::= word rest\nword ::= [a-z]+\nrest ::= "b" | "(" rest ")"', ["aab", "a(b)"], ["a", "b"]),
        (r'root ::= "\u0041\x42\U00000043é\t"', ["ABCé\t"], ["ABC"]),
        (r'root ::= [\u0041-\u0043é\]^-]+', ["CBA", "é]-^"], ["D", "\\"]),
        (r"root ::= [^\x00-\x1f]", ["a", "é", "\x7f"], ["\n", ""]),
        ("root ::= .{2}", ["a\n", "é€"], ["a"]),
        ('root ::= "a"{,2} "b"{2} "c"{1,}', ["bbc", "aabbccc"], ["aaabbc", "bbb"]),
        ('root ::= "a" | # either\n  start\nstart ::= ( "b" # or\n | "c" )+', ["a", "bc"], ["ab"]),
        ('root ::= fooBar foo_bar foo-bar\nfooBar ::= "a"\nfoo_bar ::= "b"\nfoo-bar ::= "c"', ["abc"], ["a"]),
        ('root ::= "a" |', ["", "a"], ["b"]),
        ('root ::= ""', [""], ["a"]),
        ('root ::= ("a"?)* "b"', ["b", "aab"], ["a"]),
        (r'root ::= "/[" [/&~-]+ "]/" "\"\\"', ['/[&~-/]/"\\'], ["/[]/"]),
    ],
)  # fmt: skip
def test_what_a_grammar_allows(grammar: str, yes: list[str], no: list[str]) -> None:
    rules = parse(grammar)
    for text in yes + no:
        assert (len(text) in ends(rules, Rule("root"), text, 0)) == (text in yes), text
        assert accepts(grammar, text) == (text in yes), text


def node(rng: random.Random, names: list[str], depth: int) -> str:
    kind = rng.randrange(8 if depth else 3)
    if kind == 0:
        return f'"{"".join(rng.choices("ab", k=rng.randint(1, 3)))}"'
    if kind == 1:
        return rng.choice(["[ab]", "[^b(]", "[b-c]"])
    if kind == 2:
        return rng.choice(names) if names else '"a"'
    parts = [node(rng, names, depth - 1) for _ in range(rng.randint(1, 3))]
    if kind in (3, 4):
        return "(" + " ".join(parts) + ")"
    if kind == 5:
        return "(" + " | ".join(parts) + ")"
    return f"({parts[0]}){rng.choice(['*', '+', '?', '{2}', '{1,2}'])}"


@pytest.mark.parametrize("rounds", [0, lexemes.MOST_ROUNDS])
@pytest.mark.parametrize("seed", range(60))
def test_any_grammar_means_what_it_says(seed: int, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random rules, one of them recursive, on every short text."""
    monkeypatch.setattr(lexemes, "MOST_ROUNDS", rounds)
    GRAMMARS._compiled.clear()
    rng = random.Random(seed)
    rules = [f"x ::= {node(rng, [], 2)}", f"y ::= {node(rng, ['x'], 2)}"]
    rules += [f'z ::= {node(rng, ["x", "y"], 1)} | "(" z ")"', f"root ::= {node(rng, ['x', 'y', 'z'], 3)} z"]
    grammar = "\n".join(rules)
    try:
        GRAMMARS.compile_now("gbnf", grammar)
    except RequestError as error:
        assert "too complex" in str(error)  # noqa: PT017
        return
    parsed = parse(grammar)
    for text in texts():
        assert accepts(grammar, text) == (len(text) in ends(parsed, Rule("root"), text, 0)), (grammar, text)


def texts() -> Iterator[str]:
    for length in range(5):
        yield from map("".join, product("ab", repeat=length))
    yield from ("(a)", "(b)", "(ab)", "a(a)", "b(ba)", "((b))", "ab(a)", "ac", "(c)")


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("", "there is no rule 'root', expected one for the whole text"),
        ('x ::= "a"', "there is no rule 'root', expected one for the whole text"),
        ('root ::= "a" foo\nbar ::= baz', "line 1, column 14: there is no rule 'foo'"),
        ("root ::= (", "line 1, column 11: expected ')' for the '(' of line 1, column 10, got the end"),
        ('root ::= "a"\nb ::= "x', "line 2, column 9: expected '\"' for the one of line 2, column 7, got the end"),
        ("root ::= [a", "line 1, column 12: expected ']' for the '[' of line 1, column 10, got the end"),
        ("root ::= [z-a]", "line 1, column 11: the range 'z-a' ends before it begins"),
        ("root ::= []", "line 1, column 11: expected a character of the set, got ']'"),
        ('root = "a"', "line 1, column 6: expected '::=' behind the name 'root', got '= \"a\"'"),
        ('root ::= "a"\n\n  ) x', "line 3, column 3: expected the name of a rule, got ') x'"),
        ('root ::= "a" )', "line 1, column 14: expected a text, a set of characters, a rule's name, '(' or the end of the line, got ')'"),
        ("root ::= *", "line 1, column 10: expected something to repeat before '*', got '*'"),
        ('root ::= "a"{2,1}', "line 1, column 13: {2,1} can't be, expected numbers up to 1000000, the second not below the first"),
        ('root ::= "a"{x}', "line 1, column 13: expected {m}, {m,}, {m,n} or {,n}, got '{x}'"),
        (r'root ::= "\q"', r"line 1, column 11: '\\q' is no escape, expected \n, \r, \t, \\, \", \[, \], \xHH, \uHHHH or \UHHHHHHHH"),
        (r'root ::= "\ud800"', "line 1, column 11: 0xd800 is no character"),
        ("root ::= <think>", "line 1, column 10: tokens in a grammar are not supported, expected their text"),
    ],
)  # fmt: skip
def test_a_bad_grammar_says_where(grammar: str, message: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse(grammar)
    assert str(caught.value) == message
    with pytest.raises(RequestError, match=re.escape(f"the grammar is not valid: {message}"[:490])):
        GRAMMARS.compile_now("gbnf", grammar)


def test_strings_stay_lexemes() -> None:
    """What makes masks fast: a text in quotes is one lexeme."""
    grammar = r"""
root   ::= "{" ws string ":" ws value "}" ws
value  ::= root | string | "true"
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" ["\\bfnrt])* "\"" ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
    assert re.search(r'^r\d: .*"true"', to_lark(parse(grammar)), re.MULTILINE)
    assert not re.search(r'^r\d: "\\""', to_lark(parse(grammar)), re.MULTILINE)


@contextmanager
def quick() -> Iterator[None]:
    """Of this thread's CPU time, so that a busy machine adds none; what is not linear takes minutes."""
    started = time.thread_time()
    yield
    assert time.thread_time() - started < 20


@quick()
def test_large_grammars_take_no_time() -> None:
    words = " | ".join(f'"w{i}" [a-z]* x' for i in range(MOST_PLACES))
    to_lark(parse(f"root ::= {words}\nx ::= [a-z] | root"))
    many = " ".join("[a-z]*" for _ in range(MOST_PLACES - 5))
    to_lark(parse(f"root ::= x | root x\nx ::= {many}"))


def test_any_character_is_any() -> None:
    assert parse("root ::= .")["root"] == OneOf((), negated=True)
    assert parse(r"root ::= [\U0010FFFF]")["root"] == OneOf(((LAST, LAST),))


@quick()
def test_a_long_chain_of_rules_takes_no_time() -> None:
    chain = [f'r{i} ::= "a" r{i + 1} | "b"' for i in range(8000)]
    rules = parse("\n".join(["root ::= r0", *reversed(chain), 'r8000 ::= "(" root ")"']))
    to_lark(rules)
