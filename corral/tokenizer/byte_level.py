"""The GPT-2 byte alphabet: 256 printable characters that stand for the 256 bytes in byte-level vocabularies.

Bytes that are printable in Latin-1 stand for themselves; the other 68 are U+0100 and on, in ascending order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(256) if byte not in set(_PRINTABLE))

# byte -> its character
BYTE_ALPHABET = "".join(
    chr(byte) if byte in set(_PRINTABLE) else chr(0x100 + _OTHERS.index(byte)) for byte in range(256)
)

# ordinal of a character -> ordinal of its byte
_TO_BYTE = {ord(char): byte for byte, char in enumerate(BYTE_ALPHABET)}


def decode_byte_level(texts: Sequence[bytes]) -> list[bytes]:
    """Token texts (UTF-8) -> the bytes they stand for; what is not of the alphabet stands for itself."""
    try:
        return _decode_all([text.decode() for text in texts])
    except UnicodeError:
        return [_decode_one(text) for text in texts]


def _decode_all(texts: list[str]) -> list[bytes]:
    # One translation of everything is ten times faster than one for each token; a character is a byte.
    everything = "".join(texts).translate(_TO_BYTE).encode("latin-1")
    bounds = pairwise(accumulate(map(len, texts), initial=0))
    return [everything[start:end] for start, end in bounds]


def _decode_one(text: bytes) -> bytes:
    try:
        return text.decode().translate(_TO_BYTE).encode("latin-1")
    except UnicodeError:
        chars = text.decode("utf-8", "surrogateescape")
        return b"".join(_byte_or_itself(char) for char in chars)


def _byte_or_itself(char: str) -> bytes:
    byte = _TO_BYTE.get(ord(char))
    return char.encode("utf-8", "surrogateescape") if byte is None else bytes([byte])
