"""Vocabulary: the tokens of a GGUF file, what each one is, and the bytes it stands for. No encoding here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import IntEnum
from functools import cached_property

import numpy as np

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.tokenizer.byte_level import decode_byte_level
from corral.tokenizer.pretokenizers import PreTokenizer, find_pre_tokenizer
from corral.tokenizer.special_ids import SpecialIds, find_special_ids
from corral.tokenizer.token_type import TokenType

log = logging.getLogger(__name__)

SPACE = "▁"  # U+2581, how SPM-style vocabularies spell a space


class Model(IntEnum):
    """How text becomes tokens: by the scores of pieces, by a list of merges, or by the longest that fits."""

    SPM = 0
    BPE = 1
    WORDPIECE = 2


_MODELS = {"llama": Model.SPM, "gpt2": Model.BPE, "gemma4": Model.BPE, "bert": Model.WORDPIECE}
_KEY = "tokenizer.ggml."
SEPARATED = ("jina-v1-en", "jina-v2-code", "roberta-bpe")
"""Pre-tokenizers of encoders: a pair of texts has a separator between them."""


class Vocabulary:
    """Tokens 0..n-1 with text, type, score and bytes, the ids with a role, and the rules for BOS and EOS.

    Cheap to make: the engine uses it alone to turn ids into bytes, the Tokenizer adds the encoder.

    model: `tokenizer.ggml.model` as in the file; kind: what it means
    pre: `tokenizer.ggml.pre`; rules: its row in the table of pre-tokenizers (the default one for SPM)
    texts: the tokens as spelled in the file, UTF-8 bytes; never empty
    scores: float32 [n], higher merges first (SPM)
    special: ids of bos, eos, ... or None; eog_ids: those that end a generation
    """

    def __init__(self, gguf: GGUFFile) -> None:
        self.path = gguf.path
        self.model = gguf.require(_KEY + "model", str)
        if self.model not in _MODELS:
            raise ModelFileError(self.path, _KEY + "model", repr(self.model), f"one of {', '.join(_MODELS)}")
        self.kind = _MODELS[self.model]
        self.pre = "gemma4" if self.model == "gemma4" else gguf.get(_KEY + "pre", str, "")
        self._warnings: list[str] = []
        self.rules = self._pre_tokenizer()
        self.texts = [
            text or b"[EMPTY_%d]" % index for index, text in enumerate(gguf.raw_strings(_KEY + "tokens"))
        ]
        if not self.texts:
            raise ModelFileError(self.path, _KEY + "tokens", "empty", "at least one token")
        self.ids = {text: index for index, text in enumerate(self.texts)}
        if len(self.ids) < len(self.texts):
            again = len(self.texts) - len(self.ids)
            self.warn(f"{again} token texts appear more than once; the last of each is used")
        self.scores = self._per_token(gguf, "scores", 0).astype(np.float32)
        types = self._per_token(gguf, "token_type", TokenType.NORMAL).astype(np.int64)
        self._types = np.where((types < 0) | (types > max(TokenType)), 0, types).astype(np.uint8).tobytes()
        self.special: SpecialIds
        self.special, self.eog_ids, self._types = find_special_ids(gguf, self.ids, self._types, self.warn)
        spm = self.kind is Model.SPM
        self.add_space_prefix = gguf.get(_KEY + "add_space_prefix", bool, spm)
        wordpiece = self.kind is Model.WORDPIECE
        begins = spm or wordpiece or self.rules.add_bos
        self.add_bos = self._adds(gguf, "bos", self.special.bos, default=begins)
        self.add_eos = self._adds(gguf, "eos", self.special.eos, default=False)
        self.add_sep = self._adds(gguf, "sep", self.special.sep, default=wordpiece or self.pre in SEPARATED)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd in the file, a sentence each; they are logged too."""
        return tuple(self._warnings)

    def warn(self, message: str) -> None:
        self._warnings.append(message)
        log.warning("%s: %s", self.path, message)

    def token_type(self, id: int) -> TokenType:
        """The type the file gives token `id`, mended where a well-known marker has a wrong one."""
        return TokenType(self._types[_checked(id, len(self))])

    def is_control(self, id: int) -> bool:
        return self.token_type(id) is TokenType.CONTROL

    def token_text(self, id: int) -> str:
        """The token as spelled in the file (`▁the`, `Ġthe`, `<|im_end|>`), U+FFFD for what is no UTF-8."""
        return self.texts[_checked(id, len(self))].decode("utf-8", "replace")

    def piece(self, id: int, *, special: bool = False) -> bytes:
        """The bytes token `id` stands for in text; empty for control and unknown tokens unless `special`."""
        return self.token_bytes_table(special=special)[_checked(id, len(self))]

    def decode(self, ids: Sequence[int], *, special: bool = False) -> bytes:
        """The pieces of `ids`, one after the other. IndexError names an id outside the vocabulary."""
        table = self.token_bytes_table(special=special)
        return b"".join(table[_checked(id, len(table))] for id in ids)

    def token_bytes_table(self, *, special: bool = False) -> list[bytes]:
        """`piece` of every token, index = id. Shared: not to be changed."""
        return self._pieces if special else self._text_pieces

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token as spelled in the file: no fewer than the text that it stands for."""
        return max(map(len, self.texts))

    def of_type(self, *types: TokenType) -> list[int]:
        """The ids of these types, ascending."""
        return np.flatnonzero(np.isin(np.frombuffer(self._types, np.uint8), types)).tolist()

    @cached_property
    def _text_pieces(self) -> list[bytes]:
        pieces = self._pieces.copy()
        for id in self.of_type(TokenType.CONTROL, TokenType.UNKNOWN):
            pieces[id] = b""
        return pieces

    @cached_property
    def _pieces(self) -> list[bytes]:
        pieces = self.texts.copy()
        for id in self.of_type(TokenType.UNDEFINED, TokenType.UNUSED):
            pieces[id] = b""
        for id in self.of_type(TokenType.BYTE):
            pieces[id] = _byte_of(self.texts[id])
        normal = self.of_type(TokenType.NORMAL)
        spelled = [self.texts[id] for id in normal]
        if self.rules.byte_level and self.kind is Model.BPE:
            decoded = decode_byte_level(spelled)
        else:
            mark = SPACE.encode()
            decoded = [text.replace(mark, b" ") for text in spelled]
        for id, piece in zip(normal, decoded, strict=True):
            pieces[id] = piece
        return pieces

    def _pre_tokenizer(self) -> PreTokenizer:
        rules, problem = find_pre_tokenizer(self.pre)
        if problem and self.kind is Model.BPE:
            self.warn(problem)
        return rules

    def _per_token(self, gguf: GGUFFile, name: str, default: int) -> np.ndarray:
        values = gguf.get(_KEY + name, np.ndarray, None)
        if values is None:
            return np.full(len(self.texts), default)
        if len(values) < len(self.texts):
            expected = f"{len(self.texts)}, one for each token"
            raise ModelFileError(self.path, f"length of {_KEY}{name}", len(values), expected)
        return values[: len(self.texts)]

    def _adds(self, gguf: GGUFFile, name: str, id: int | None, *, default: bool) -> bool:
        key = f"{_KEY}add_{name}_token"
        adds = gguf.get(key, bool, default)
        if name == "bos" and self.rules.needs_bos and not adds:
            self.warn(f"{key} is false, but this model needs a BOS token; it is added")
            adds = True
        if adds and id is None:
            self.warn(f"{key} is true, but the file names no {name.upper()} token; none is added")
            adds = False
        return adds


def _checked(id: int, n: int) -> int:
    if not 0 <= id < n:
        raise IndexError(f"token id is {id}, expected 0 to {n - 1}")
    return id


def _byte_of(text: bytes) -> bytes:
    """`<0x0A>` -> b"\\n"; a BYTE token of another spelling stands for itself."""
    try:
        return bytes.fromhex(text[3:5].decode()) if text[:3] == b"<0x" and len(text) == 6 else text
    except ValueError:
        return text
