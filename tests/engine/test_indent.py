"""LeastIndent."""

from __future__ import annotations

import itertools

import pytest

from corral.engine.indent import LeastIndent


def shown(pieces: list[str], least: int) -> tuple[str, bool]:
    indent = LeastIndent(least)
    text = "".join(map(indent.feed, pieces))
    return text + indent.finish(), indent.is_short


@pytest.mark.parametrize(
    ("text", "least", "expected"),
    [
        ("a\n  b\n c", 2, "a\n  b\n"),
        ("a\nb", 1, "a\n"),
        ("a\n\tb\n\t\tc\nd", 1, "a\n\tb\n\t\tc\n"),
        ("a\n  b\n\n \n  c\nd", 2, "a\n  b\n\n \n  c\n"),  # empty lines
        ("\n  b\nc", 2, "\n  b\n"),
        ("a\n  b", 2, None),
        ("a\n ", 2, None),
        ("a\nb", 0, None),
        ("", 3, None),
    ],
)
def test_the_text_ends_before_a_short_line(text: str, least: int, expected: str | None) -> None:
    """However it is cut. None: all of it is shown."""
    result = (text, False) if expected is None else (expected, True)
    for first, second in itertools.combinations_with_replacement(range(len(text) + 1), 2):
        assert shown([text[:first], text[first:second], text[second:]], least) == result


def test_nothing_is_held_back_but_the_spaces_that_a_line_begins_with() -> None:
    indent = LeastIndent(2)
    assert [indent.feed(c) for c in "a b\n  c d"] == ["a", " ", "b", "\n", "", "", "  c", " ", "d"]
