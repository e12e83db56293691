"""Utf8Stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.tokenizer.stream import Utf8Stream

# Bytes at the edges of what UTF-8 allows come up often.
_EDGES = st.sampled_from(
    [bytes([byte]) for byte in (0x61, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0, 0xED, 0xEF)]
    + [bytes([byte]) for byte in (0xF0, 0xF4, 0xF5, 0xFF)]
    + [char.encode() for char in "é€😀"]
)
_DATA = st.lists(_EDGES | st.binary(max_size=3), max_size=12)


@given(_DATA)
def test_any_cut_gives_the_whole(pieces: list[bytes]) -> None:
    stream = Utf8Stream()
    text = "".join(stream.feed(piece) for piece in pieces) + stream.flush()
    assert text == b"".join(pieces).decode("utf-8", "replace")


@given(_DATA)
def test_byte_by_byte_gives_the_whole(pieces: list[bytes]) -> None:
    stream, data = Utf8Stream(), b"".join(pieces)
    assert "".join(stream.feed(bytes([byte])) for byte in data) + stream.flush() == data.decode(
        "utf-8", "replace"
    )


def test_a_character_comes_with_its_last_byte() -> None:
    stream = Utf8Stream()
    assert [stream.feed(bytes([byte])) for byte in "😀".encode()] == ["", "", "", "😀"]


@pytest.mark.parametrize(
    ("data", "text", "held"),
    [
        (b"a\xe2\x82", "a", True),
        (b"\xf0", "", True),
        (b"\xff", "\ufffd", False),
        (b"\xc3a", "\ufffda", False),
        (b"ok", "ok", False),
    ],
)
def test_the_beginning_of_a_character_is_held_until_flush(data: bytes, text: str, held: bool) -> None:
    stream = Utf8Stream()
    assert stream.feed(data) == text
    assert stream.flush() == "\ufffd" * held
    assert stream.flush() == ""


def test_usable_after_flush() -> None:
    stream = Utf8Stream()
    stream.feed(b"\xe2\x82")
    stream.flush()
    assert stream.feed("€".encode()) == "€"
