"""WordPieceTokenizer: BERT's. A word is cut, from its beginning, into the longest pieces there are.

The file spells a piece that begins a word with `▁` in front, and one that goes on with nothing.
"""

from __future__ import annotations

import os
import re

from tokenizers import Tokenizer as Encoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.tokenizer.token_type import TokenType
from corral.tokenizer.tokenizer import Tokenizer
from corral.tokenizer.vocabulary import SPACE, Vocabulary

_KEY = "tokenizer.ggml.normalizer."
_GOES_ON = "##"
# Characters. The library tries every length, from the whole word down: for a long one that is slow.
_LONG_WORD = 100
_LONG = re.compile(rf"\S{{{_LONG_WORD + 1}}}")


class WordPieceTokenizer(Tokenizer):
    """See Tokenizer."""

    def __init__(
        self, vocabulary: Vocabulary, gguf: GGUFFile, *, lstrip: frozenset[int], rstrip: frozenset[int]
    ) -> None:
        super().__init__(vocabulary, lstrip=lstrip, rstrip=rstrip)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if vocabulary.special.unk is None:
            raise ModelFileError(vocabulary.path, "tokenizer.ggml.unknown_token_id", "missing", "a token id")
        self._unknown = vocabulary.special.unk
        special = set(vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED))
        self._pieces = {
            _spelled(text.decode("utf-8", "replace")): id
            for text, id in vocabulary.ids.items()
            if id not in special
        }
        self._longest = max(map(len, self._pieces), default=0)
        unknown = "[UNK]"
        while unknown in self._pieces:
            unknown += "]"
        pieces = {**self._pieces, unknown: self._unknown}
        lowercase = gguf.get(_KEY + "lowercase", bool, True)
        self._normalizer = BertNormalizer(
            clean_text=True,
            handle_chinese_chars=True,
            strip_accents=gguf.get(_KEY + "strip_accents", bool, lowercase),
            lowercase=lowercase,
        )
        self._splitter = BertPreTokenizer()
        self._encoder = Encoder(WordPiece(pieces, unk_token=unknown, max_input_chars_per_word=1 << 30))
        self._encoder.normalizer = self._normalizer
        self._encoder.pre_tokenizer = self._splitter

    @property
    def longest(self) -> int:
        """There is no bound (white space is no token, an unknown word is one); texts have fewer."""
        return 1000

    def _encode_parts(self, parts: list[str | int]) -> list[int]:
        texts = [part for part in parts if isinstance(part, str)]
        if any(map(_LONG.search, texts)):
            encoded = iter([self._encode_slowly(text) for text in texts])
        else:
            batch = self._encoder.encode_batch_fast(texts, add_special_tokens=False)
            encoded = iter([encoding.ids for encoding in batch])
        return [id for part in parts for id in ([part] if isinstance(part, int) else next(encoded))]

    def _encode_slowly(self, text: str) -> list[int]:
        """The same, in time that is linear in the length of a word."""
        words = self._splitter.pre_tokenize_str(self._normalizer.normalize_str(text))
        return [id for word, _ in words for id in self._word(word)]

    def _word(self, word: str) -> list[int]:
        """The ids of its pieces; the unknown token if it is not made of pieces."""
        ids: list[int] = []
        at = 0
        while at < len(word):
            prefix = _GOES_ON if at else ""
            for end in range(min(len(word), at + self._longest), at, -1):
                if (id := self._pieces.get(prefix + word[at:end])) is not None:
                    ids.append(id)
                    at = end
                    break
            else:
                return [self._unknown]
        return ids


def _spelled(text: str) -> str:
    """`▁word` -> word, `ing` -> ##ing."""
    return text[1:] if text.startswith(SPACE) else _GOES_ON + text
