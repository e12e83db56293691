"""Text: whole characters, no part of a stop string, and the same whatever the cuts."""

from __future__ import annotations

import itertools
import random

import pytest

from corral.engine.output import TextStream, TextTables


def stream_of(pieces: list[bytes], stop: list[str]) -> TextStream:
    return TextStream(TextTables(text=pieces, special=pieces, eog=frozenset()), stop)


def shown(pieces: list[bytes], stop: list[str]) -> tuple[list[str], str]:
    """What each token gives, the rest at the end, and the stop string that was found."""
    stream = stream_of(pieces, stop)
    texts = []
    for token in range(len(pieces)):
        texts.append(stream.feed(token))
        if stream.stopping_word:
            break
    return [*texts, stream.finish()], stream.stopping_word


def twin(text: str, stop: list[str]) -> tuple[str, str]:
    """Looks at every beginning of the text, shortest first, for one that ends with a stop string."""
    for end in range(len(text) + 1):
        found = [word for word in stop if word and text[:end].endswith(word)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, ""


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one two three", ["two"], ("one ", "two")),
        ("one two three", ["four"], ("one two three", "")),
        ("one two", [], ("one two", "")),
        ("one two", [""], ("one two", "")),
        ("aab", ["ab"], ("a", "ab")),
        ("aabaabaaab", ["aabaaa"], ("aab", "aabaaa")),
        ("xyz", ["yz", "z"], ("x", "yz")),  # complete at once: the longer
        ("abcd", ["abcd", "bc"], ("a", "bc")),  # complete first
        ("stop", ["stop"], ("", "stop")),
        ("ends with a beginning: sto", ["stop"], ("ends with a beginning: sto", "")),
        ("häß€lich 😀!", ["€l"], ("häß", "€l")),
        ("ha 😀😀😀 ha", ["😀😀 "], ("ha 😀", "😀😀 ")),
        ("\n\nUser:", ["\nUser:"], ("\n", "\nUser:")),
    ],
)
def test_cut_at_every_byte(text: str, stop: list[str], expected: tuple[str, str]) -> None:
    assert twin(text, stop) == expected
    data = text.encode()
    for first, second in itertools.combinations_with_replacement(range(len(data) + 1), 2):
        pieces = [data[:first], data[first:second], data[second:]]
        texts, word = shown(pieces, stop)
        assert ("".join(texts), word) == expected
    texts, word = shown([bytes([byte]) for byte in data], stop)
    assert ("".join(texts), word) == expected


@pytest.mark.parametrize("seed", range(50))
def test_random_text_and_stop_strings(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        text = "".join(rng.choices("ab😀", k=rng.randint(0, 20)))
        stop = ["".join(rng.choices("ab😀", k=rng.randint(0, 5))) for _ in range(rng.randint(0, 3))]
        data = text.encode()
        cuts = sorted(rng.choices(range(len(data) + 1), k=6))
        pieces = [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]
        texts, word = shown(pieces, stop)
        expected, expected_word = twin(text, stop)
        assert ("".join(texts), word) == (expected, expected_word)
        # nothing shown early had to be taken back, and nothing was held back without need
        sofar = ""
        for piece_text, piece in zip(texts, itertools.accumulate(pieces), strict=False):
            sofar += piece_text
            assert expected.startswith(sofar)
            known = piece.decode(errors="ignore")
            open_ends = [length for s in stop for length in range(1, len(s)) if known.endswith(s[:length])]
            if not twin(known, stop)[1]:
                assert sofar == known[: len(known) - max(open_ends, default=0)]


def test_a_character_is_shown_when_it_is_whole() -> None:
    texts, _ = shown([b"a\xf0\x9f", b"\x98", b"\x80b"], [])
    assert texts == ["a", "", "😀b", ""]


def test_an_unfinished_character_at_the_end_is_left_out() -> None:
    texts, _ = shown([b"a\xf0\x9f"], ["stop"])
    assert texts == ["a", ""]
    texts, _ = shown([b"st\xf0\x9f"], ["stop"])
    assert texts == ["", "st"]
    texts, _ = shown([b"a\xffb\xc3"], [])  # what is no UTF-8 in the middle is shown as such
    assert texts == ["a�b", ""]


def test_text_after_the_stop_string_is_dropped() -> None:
    stream = stream_of([b"a stop b", b"c"], ["stop"])
    assert (stream.feed(0), stream.feed(1), stream.finish()) == ("a ", "", "")


def test_control_tokens_are_shown_on_request_only() -> None:
    tables = TextTables(text=[b"a", b""], special=[b"a", b"<end>"], eog=frozenset({1}))
    for special, text, piece in ((False, "a", b""), (True, "a<end>", b"<end>")):
        stream = TextStream(tables, special=special)
        assert stream.feed(0) + stream.feed(1) == text
        assert stream.piece(1) == piece


def test_long_stop_strings_take_no_time() -> None:
    """A hostile one: every position of the text is the beginning of it."""
    stream = stream_of([b"a" * 50], ["a" * 20_000 + "b"])
    assert [stream.feed(0) for _ in range(400)] == [""] * 400
    assert stream.feed(0) + stream.finish() == "a" * 50 * 401
