"""Utf8Stream: bytes that arrive in pieces -> text that is never broken."""

from __future__ import annotations

import codecs

_Decoder = codecs.getincrementaldecoder("utf-8")


class Utf8Stream:
    """Decodes UTF-8 as it arrives: a character is given out when its last byte is there.

    However the bytes are cut, all that `feed` and `flush` return joins to `data.decode("utf-8", "replace")`.
    """

    def __init__(self) -> None:
        self._decoder = _Decoder("replace")

    def feed(self, data: bytes) -> str:
        """The text that is complete with `data`; bytes that can't be UTF-8 become U+FFFD at once."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The end of the data: U+FFFD if a character was left incomplete. The stream can be used again."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
