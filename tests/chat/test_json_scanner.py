"""JSON that arrives in pieces: the scanner agrees with json.loads."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.chat.json_scanner import JsonScanner

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e300, 1e300) | st.text(max_size=8),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=4), v, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(values, st.sampled_from([None, 1]), st.integers(0, 3))
def test_a_value_is_followed_to_its_end(value: object, indent: int | None, cut: int) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=bool(cut % 2))
    scanner = JsonScanner()
    pieces = [text[i : i + 1 + cut] for i in range(0, len(text), 1 + cut)]
    assert sum(scanner.take(p) for p in pieces) == len(text)
    assert scanner.complete or not isinstance(value, (str, list, dict))
    assert scanner.end()
    behind = JsonScanner()
    assert behind.take(text + "} x") == len(text)
    assert behind.complete


@given(values, st.data())
def test_whatever_is_no_json_is_broken_or_not_complete(value: object, data: st.DataObject) -> None:
    text = json.dumps(value)
    place = data.draw(st.integers(0, len(text)))
    changed = text[:place] + data.draw(st.sampled_from(list('"{}[]:,x0-. \\e\n'))) + text[place + 1 :]
    scanner = JsonScanner()
    taken = scanner.take(changed)
    complete = scanner.end() and not changed[taken:].strip()
    try:
        json.loads(changed, parse_constant=lambda _: 1 / 0)
        valid = not changed[:1].isspace()  # white space before the value is not the scanner's
    except (ValueError, ZeroDivisionError):
        valid = False
    assert complete == valid


@pytest.mark.parametrize(
    "text",
    ["nul", "tru", "01", "1.", "-", "1e", '"\\x"', '"\\u12g4"', "[1,]", '{"a":1,}', "{1:2}", "nan", '"\n"'],
)
def test_what_json_does_not_allow(text: str) -> None:
    scanner = JsonScanner()
    scanner.take(text)
    assert not scanner.end()
