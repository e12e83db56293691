"""Tokenizer: text to token ids and back, with the ids llama.cpp gives for the same file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from corral.gguf.reader import GGUFFile
from corral.tokenizer.special_ids import SpecialIds
from corral.tokenizer.special_tokens import SpecialTokens
from corral.tokenizer.token_type import TokenType
from corral.tokenizer.vocabulary import Model, Vocabulary


class Tokenizer(ABC):
    """A vocabulary with an encoder. Immutable after construction: every method may be called from any thread.

    The long part of `encode` runs without the GIL, so in a thread it does not hold up an event loop.
    """

    def __init__(self, vocabulary: Vocabulary, *, lstrip: frozenset[int], rstrip: frozenset[int]) -> None:
        self.vocabulary = vocabulary

        def special(*types: TokenType) -> SpecialTokens:
            texts = {vocabulary.token_text(id): id for id in vocabulary.of_type(*types)}
            return SpecialTokens(texts, lstrip, rstrip)

        roles = vocabulary.special
        begin, end = vocabulary.add_bos, roles.eos if vocabulary.add_eos else None
        if vocabulary.kind is Model.WORDPIECE:  # [CLS] text [SEP], whatever the file says
            begin, end = True, roles.sep
        self._before = [roles.bos] if begin and roles.bos is not None else []
        self._behind = [] if end is None else [end]
        self._always_special = special(TokenType.USER_DEFINED)
        self._special = special(TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNKNOWN)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of `text`.

        add_special: put BOS before and EOS behind, as far as the file asks for it (`add_bos`, `add_eos`);
        the tokens of a WordPiece model, [CLS] and [SEP], in any case
        parse_special: recognise control tokens spelled out in the text; user-defined ones always are
        A lone surrogate counts as U+FFFD.
        """
        special = self._special if parse_special else self._always_special
        ids = self._encode_parts(special.split(_scalar_values(text)))
        return [*self._before, *ids, *self._behind] if add_special else ids

    @abstractmethod
    def _encode_parts(self, parts: list[str | int]) -> list[int]:
        """Ids of a text cut at its special tokens: every str in `parts` becomes ids, every int stays."""

    def decode(self, ids: Sequence[int], *, special: bool = False) -> bytes:
        """The bytes of `ids`; control and unknown tokens only if `special`. IndexError names a wrong id."""
        return self.vocabulary.decode(ids, special=special)

    def piece(self, id: int, *, special: bool = False) -> bytes:
        """The bytes of one token, which need not be whole characters."""
        return self.vocabulary.piece(id, special=special)

    def token_bytes_table(self, *, special: bool = False) -> list[bytes]:
        """`piece` of every token, index = id. Shared: not to be changed."""
        return self.vocabulary.token_bytes_table(special=special)

    def token_text(self, id: int) -> str:
        """The token as spelled in the file, as `▁the` or `Ġthe`."""
        return self.vocabulary.token_text(id)

    def token_type(self, id: int) -> TokenType:
        return self.vocabulary.token_type(id)

    def is_control(self, id: int) -> bool:
        return self.vocabulary.is_control(id)

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @property
    def model(self) -> str:
        """`tokenizer.ggml.model`: "llama" (SPM), "gpt2" (BPE of bytes), "gemma4" (of characters), "bert"."""
        return self.vocabulary.model

    @property
    def pre(self) -> str:
        """`tokenizer.ggml.pre`, "" if the file has none."""
        return self.vocabulary.pre

    @property
    def special(self) -> SpecialIds:
        """The ids with a role, fill-in-the-middle ones included."""
        return self.vocabulary.special

    @property
    def bos_id(self) -> int | None:
        return self.special.bos

    @property
    def eos_id(self) -> int | None:
        return self.special.eos

    @property
    def unk_id(self) -> int | None:
        return self.special.unk

    @property
    def eog_ids(self) -> frozenset[int]:
        """The ids that end a generation."""
        return self.vocabulary.eog_ids

    @property
    def add_bos(self) -> bool:
        return self.vocabulary.add_bos

    @property
    def add_eos(self) -> bool:
        return self.vocabulary.add_eos

    @property
    def add_sep(self) -> bool:
        """Whether a separator belongs between two texts."""
        return self.vocabulary.add_sep

    @property
    def longest(self) -> int:
        """Most characters that one token can stand for (white space around control tokens aside)."""
        return self.vocabulary.longest

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the vocabulary, a sentence each; already logged."""
        return self.vocabulary.warnings


def load_tokenizer(gguf: GGUFFile) -> Tokenizer:
    """The tokenizer of a model or vocabulary-only file. ModelFileError if it can't be used."""
    # Here, because they are Tokenizers, and because only one of the two libraries is needed.
    from corral.tokenizer.bpe import BpeTokenizer
    from corral.tokenizer.spm import SpmTokenizer
    from corral.tokenizer.wordpiece import WordPieceTokenizer

    vocabulary = Vocabulary(gguf)
    lstrip, rstrip = _stripping(gguf, vocabulary)
    if vocabulary.kind is Model.SPM:
        return SpmTokenizer(vocabulary, lstrip=lstrip, rstrip=rstrip)
    if vocabulary.kind is Model.WORDPIECE:
        return WordPieceTokenizer(vocabulary, gguf, lstrip=lstrip, rstrip=rstrip)
    return BpeTokenizer(vocabulary, gguf, lstrip=lstrip, rstrip=rstrip)


def _stripping(gguf: GGUFFile, vocabulary: Vocabulary) -> tuple[frozenset[int], frozenset[int]]:
    """Tokens that swallow white space before and after them. Files don't say it; the model's name does."""
    name = gguf.get("general.name", str, "").lower()
    architecture = gguf.get("general.architecture", str, "")
    mask = None
    if vocabulary.pre in ("jina-v2-de", "jina-v2-es", "jina-v2-code") or architecture in (
        "nomic-bert-moe",
        "jina-bert-v3",
    ):
        mask = vocabulary.ids.get(b"<mask>")
    elif "phi-3" in name or "phi3" in name:
        keep = {vocabulary.ids.get(text) for text in (b"<unk>", b"<s>", b"<|endoftext|>")}
        special = vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
        return frozenset(), frozenset(special) - keep
    elif "modern-bert" in name:
        mask = vocabulary.ids.get(b"[MASK]")
    return frozenset() if mask is None else frozenset((mask,)), frozenset()


def _scalar_values(text: str) -> str:
    """`text` without surrogates: pairs joined, lone ones replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
