"""Templates that do their worst, and that ordinary ones are not disturbed."""

from __future__ import annotations

import time

import pytest

from corral.chat.template import ChatTemplate, TemplateError, TemplateSource
from corral.errors import OptionError

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def render(source: str, seconds: float = 5.0, **variables: object) -> str:
    return ChatTemplate(TemplateSource(source, "test")).render(
        MESSAGES, kwargs=variables, max_seconds=seconds
    )


def hundred_times(begin: str, step: str, end: str = "") -> str:
    """`n.a` begins as one expression and becomes another a hundred times."""
    loop = f"{{% for i in range(100) %}}{{% set n.a = {step} %}}{{% endfor %}}"
    return f"{{% set n = namespace(a={begin}) %}}{loop}{end}"


NESTED = hundred_times("[1]", "[n.a, n.a]")
TWINS = (
    "{% set n = namespace(a=[1], b=[1]) %}"
    "{% for i in range(100) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}"
)
LONG = "{% set a = 'a' * 1000000 %}"

HOSTILE = {
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "recursive loop": "{% for i in range(9) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "endless macro": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "doubling macro": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "repeat": "{{ 'a' * 10**9 }}",
    "repeat from the right": "{{ 10**9 * 'a' }}",
    "repeat a list": "{{ [1] * 10**9 }}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "growing product": "{% set n = namespace(a=3) %}"
    "{% for i in range(99) %}{% set n.a = n.a * n.a %}{% endfor %}{{ n.a }}",
    "doubling with +": hundred_times("'ab'", "n.a + n.a"),
    "doubling with ~": hundred_times("'ab'", "n.a ~ n.a"),
    "doubling with set": "{% set n = namespace(a='ab') %}{% for i in range(99) %}"
    "{% set t %}{{ n.a }}{{ n.a }}{% endset %}{% set n.a = t %}{% endfor %}",
    "nested, printed": NESTED + "{{ n.a }}",
    "nested, as JSON": NESTED + "{{ n.a | tojson }}",
    "nested, as text": NESTED + "{{ n.a ~ '' }}",
    "nested, formatted": NESTED + "{{ '%s' % n.a }}",
    "nested, joined": NESTED + "{{ n.a | join }}",
    "nested, as a key": hundred_times("(1,)", "(n.a, n.a)") + "{% set d = {n.a: 1} %}",
    "twins, compared": TWINS + "{{ n.a == n.b }}",
    "twins, looked for": TWINS + "{{ n.a in [n.b] }}",
    "twins, tested": TWINS + "{{ n.a is eq(n.b) }}",
    "itself in itself": "{% set n = namespace() %}{% set n.a = n %}{{ n }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "indent": "{{ 'a\n' | indent(1000000000) }}",
    "tojson indent": "{{ [1] | tojson(indent=1000000000) }}",
    "format width": "{{ '%1000000000d' % 1 }}",
    "format precision": "{{ '%.1000000000f' % 1 }}",
    "format star": "{{ '%*d' | format(1000000000, 1) }}",
    "format by name": "{{ '%(abcdefghijkl)1000000000d' % {'abcdefghijkl': 1} }}",
    "str.format width": "{{ '{:1000000000}'.format(1) }}",
    "str.format nested": "{{ '{:{}}'.format(1, 1000000000) }}",
    "strftime": "{{ strftime_now('%1000000000d') }}",
    "str.replace": LONG + "{{ a.replace('a', a) }}",
    "replace": LONG + "{{ a | replace('a', a) }}",
    "str.join": LONG + "{{ a.join(range(99999) | map('string')) }}",
    "join": LONG + "{{ range(99999) | map('string') | join(a) }}",
    "strip": LONG + "{{ a.strip('b' * 1000000) }}",
    "bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
    "range": "{{ range(10**9) | list }}",
    "much output": "{% for i in range(99999) %}" + "x" * 10000 + "{% endfor %}",
    "much output, kept": "{% set t %}{% for i in range(99999) %}" + "x" * 10000 + "{% endfor %}{% endset %}",
    "many strings": LONG + "{% set n = namespace(a=[]) %}"
    "{% for i in range(99999) %}{% set n.a = n.a + [a ~ i] %}{% endfor %}",
    "many slices": LONG + "{% set n = namespace(a=[]) %}"
    "{% for i in range(99999) %}{% set n.a = n.a + [a[i:]] %}{% endfor %}",
    "sum of lists": "{% set a = [[1] * 1000] * 1000 %}{{ a | sum(start=[]) }}",
    "Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "Python by attr": "{{ '' | attr('__class__') }}{{ ('' | attr('__class__')).mro() }}",
    "changing the input": "{{ messages.clear() }}",
    "include": "{% include 'secrets' %}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_template_is_stopped(source: str) -> None:
    began = time.monotonic()
    with pytest.raises(TemplateError):
        render(source, seconds=0.1)
    assert time.monotonic() - began < 1.0
    assert MESSAGES[0] == {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    "source",
    ["{{" + "(" * 5000 + ")" * 5000 + "}}", "{% if x %}" * 5000, "{{ x", "{% frobnicate %}", "x" * (2 << 20)],
    ids=["parentheses", "ifs", "open", "unknown tag", "long"],
)
def test_a_source_that_is_no_template_is_an_option_error(source: str) -> None:
    with pytest.raises(OptionError, match="test"):
        ChatTemplate(TemplateSource(source, "test"))


ORDINARY = {
    "{% for m in messages %}{{ m.role }}{% if not loop.last %},{% endif %}{% endfor %}": "user,assistant",
    "{% for m in messages %}{{ loop.index0 }}/{{ loop.length }} {% endfor %}": "0/2 1/2 ",
    "{% for m in messages if m.role == 'user' %}{{ loop.length }}{{ m['content'] }}{% endfor %}": "1hi",
    "{% for m in messages[1:] %}{{ m.content }}{% endfor %}": "ho",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% endfor %}": "ho",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}": "role=user;content=hi;",
    "{% for i in [1, [2, [3]]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}": "123",
    "{{ messages | map(attribute='content') | join('+') }}": "hi+ho",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}": "1",
    "{{ (messages | last).content | upper }}": "HO",
    "{{ {'a': '<ü>', 'b': [1, none, true]} | tojson }}": '{"a": "<ü>", "b": [1, null, true]}',
    "{{ {'b': 1} | tojson(indent=2) }}": '{\n  "b": 1\n}',
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') ~ f(1) ~ none }}": "<a><1>None",
    "{% set n = namespace(x=0) %}{% for i in range(5) %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}": "10",
    "{{ 'abc'[::-1] }}{{ 'a,b'.split(',')[1] }}{{ ' x '.strip() }}": "cbabx",
    "{{ '%s-%03d' % ('a', 7) }} {{ '{}:{:>3}'.format(1, 2) }} {{ '%.2f' | format(1.5) }}": "a-007 1:  2 1.50",
    "{{ 'a b'.replace(' ', '_') }}{{ 'x' | replace('x', 'y') }}": "a_by",
    "{{ 'hi' in messages[0].content }} {{ 'role' in messages[0] }} {{ 'x' not in ['y'] }}": "True True True",
    "{{ 7 // 2 }} {{ 2 ** 10 }} {{ 7 % 4 }} {{ -3 + 1.5 }}": "3 1024 3 -1.5",
    "{% generation %}{{ messages[1].content }}{% endgeneration %}": "ho",
    "{{ missing is defined }}{{ missing }}{{ bos_token }}": "False",
    "{% macro f() %}[{{ caller(1) }}]{% endmacro %}{% call(x) f() %}{{ x }}{% endcall %}": "[1]",
    "{{ 'a\nb' | indent(2) }}": "a\n  b",
    "{{ strftime_now('%Y') | int > 2000 }}": "True",
    "  {% if true %}\nx\n  {% endif %}\ny": "x\ny",
}


@pytest.mark.parametrize(("source", "expected"), ORDINARY.items())
def test_an_ordinary_template_renders_as_in_jinja2(source: str, expected: str) -> None:
    assert render(source) == expected


def test_a_long_conversation_is_not_mistaken_for_an_attack() -> None:
    messages = [{"role": "user", "content": "word " * 200}] * 2000
    source = (
        "{% set n = namespace(t='') %}{% for m in messages %}"
        "{{ m.role | trim }}: {{ m.content | trim | replace('word', 'w') }}{{ m.content.split('d')[0] }}"
        "{% endfor %}"
    )
    began = time.monotonic()
    text = ChatTemplate(TemplateSource(source, "test")).render(messages)
    assert text.startswith("user: w w w")
    assert time.monotonic() - began < 2.0
