"""SpmTokenizer: SentencePiece BPE (Llama 1 and 2, Mistral, Phi-3, Gemma): pieces merge by score.

The merging is sentencepiece's, on a model proto made of the GGUF vocabulary with every normalisation off;
what no piece covers becomes byte tokens. Special tokens are cut out before, the space in front is put by us.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sentencepiece import SentencePieceProcessor

from corral.errors import ModelFileError
from corral.tokenizer.token_type import TokenType
from corral.tokenizer.tokenizer import Tokenizer
from corral.tokenizer.vocabulary import Vocabulary

_BYTE_TEXTS = {b"<0x%02X>" % byte: byte for byte in range(256)}


class SpmTokenizer(Tokenizer):
    """See Tokenizer. Time is linear in the text but for the heap; a megabyte takes a fraction of a second."""

    def __init__(self, vocabulary: Vocabulary, *, lstrip: frozenset[int], rstrip: frozenset[int]) -> None:
        super().__init__(vocabulary, lstrip=lstrip, rstrip=rstrip)
        self._processor = SentencePieceProcessor()
        self._missing_bytes = [text for text in _BYTE_TEXTS if text not in vocabulary.ids]
        try:
            self._processor.LoadFromSerializedProto(_model_proto(vocabulary, self._missing_bytes))
        except RuntimeError as error:
            raise ModelFileError(
                vocabulary.path, "tokenizer.ggml.tokens", str(error), "a vocabulary sentencepiece can load"
            ) from None

    def _encode_parts(self, parts: list[str | int]) -> list[int]:
        ids: list[int] = []
        after_special = True
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            else:
                prefix = " " if self.vocabulary.add_space_prefix and after_special else ""
                ids += self._processor.Encode(prefix + part)
            after_special = isinstance(part, int)
        return self._without_missing_bytes(ids) if self._missing_bytes else ids

    def _without_missing_bytes(self, ids: list[int]) -> list[int]:
        """Ids past the vocabulary are bytes without a `<0x..>` token: the byte's own, or unknown, or none."""
        n, known = len(self.vocabulary), self.vocabulary.ids
        stand_ins = (known.get(bytes([_BYTE_TEXTS[text]]), self.unk_id) for text in self._missing_bytes)
        instead = dict(enumerate(stand_ins, start=n))
        mapped = (instead.get(id) if id >= n else id for id in ids)
        return [id for id in mapped if id is not None]


def _model_proto(vocabulary: Vocabulary, missing_bytes: Iterable[bytes]) -> bytes:
    """A serialized sentencepiece.ModelProto (sentencepiece_model.proto) whose piece i is token i.

    `missing_bytes` follow the vocabulary, as byte fallback takes all 256; then an unknown piece, if need be.
    """
    texts, types = vocabulary.texts.copy(), _piece_types(vocabulary)
    if len(vocabulary.ids) < len(texts):
        for id, text in enumerate(texts):
            if vocabulary.ids[text] != id:  # the last of several that are spelled alike counts
                texts[id], types[id] = _unmatched(id), TokenType.CONTROL
    for text in missing_bytes:
        texts.append(text)
        types.append(TokenType.BYTE)
    if TokenType.UNKNOWN not in types:
        texts.append(_unmatched(len(texts)))
        types.append(TokenType.UNKNOWN)
    scores = np.zeros(len(texts), "<f4")
    scores[: len(vocabulary)] = vocabulary.scores
    # 3: model_type = BPE; 35: byte_fallback
    trainer = b"\x18\x02" + b"\x98\x02\x01"
    # 3: no add_dummy_prefix; 4: no remove_extra_whitespaces; 5: escape_whitespaces
    normalizer = b"\x18\x00" + b"\x20\x00" + b"\x28\x01"
    return b"".join((*_pieces(texts, scores, types), _field(2, trainer), _field(3, normalizer)))


def _unmatched(id: int) -> bytes:
    """A name that occurs in no text, as it is no UTF-8."""
    return b"\xff%d" % id


def _piece_types(vocabulary: Vocabulary) -> list[int]:
    """Of each piece: NORMAL if it may come out of a merge, CONTROL if not; one is UNKNOWN, 256 are BYTE."""
    types = [int(TokenType.NORMAL)] * len(vocabulary)
    for id in vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN):
        types[id] = TokenType.CONTROL
    for text in _BYTE_TEXTS:
        if text in vocabulary.ids:
            types[vocabulary.ids[text]] = TokenType.BYTE
    unknown = vocabulary.special.unk
    if unknown is not None and types[unknown] == TokenType.CONTROL:
        types[unknown] = TokenType.UNKNOWN
    return types


def _pieces(texts: list[bytes], scores: np.ndarray, types: list[int]) -> list[bytes]:
    """Field 1 for each piece: 1: piece (string), 2: score (float), 3: type (enum)."""
    tails = np.empty(len(texts), [("score_tag", "u1"), ("score", "<f4"), ("type_tag", "u1"), ("type", "u1")])
    tails["score_tag"], tails["score"] = 0x15, scores
    tails["type_tag"], tails["type"] = 0x18, types
    lengths = list(map(len, texts))
    heads: dict[int, bytes] = {}
    for length in set(lengths):
        inner = b"\x0a" + _varint(length)
        heads[length] = b"\x0a" + _varint(len(inner) + length + tails.itemsize) + inner
    ends = tails.view(f"V{tails.itemsize}").tolist()
    return [heads[length] + text + end for length, text, end in zip(lengths, texts, ends, strict=True)]


def _field(number: int, message: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(message)) + message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
