"""The names and letters of the samplers, and the order they run in: what a flag or a request may say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LETTERS = {
    "penalties": "e",
    "dry": "d",
    "top_n_sigma": "s",
    "top_k": "k",
    "typ_p": "y",
    "top_p": "p",
    "min_p": "m",
    "xtc": "x",
    "temperature": "t",
    "adaptive_p": "a",
}
"""Of each name its letter."""

DEFAULT_ORDER = tuple(name for name in LETTERS if name != "adaptive_p")

_NAMES = {
    **{name.replace("_", between): name for name in LETTERS for between in ("_", "-", "")},
    "nucleus": "top_p",
    "temp": "temperature",
    "typ": "typ_p",
}
_BY_LETTER = {letter: name for name, letter in LETTERS.items()}


def from_names(words: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """The samplers of these names, however they are spelled, and the words that name none."""
    return _look_up(_NAMES, [word.strip().lower() for word in words])


def from_letters(letters: str) -> tuple[tuple[str, ...], list[str]]:
    """The samplers of these letters, and the letters that stand for none."""
    return _look_up(_BY_LETTER, letters)


def _look_up(names: dict[str, str], words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    return tuple(names[word] for word in words if word in names), [w for w in words if w not in names]
