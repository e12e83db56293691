"""BpeTokenizer: BPE over bytes (GPT-2 and most models since) or characters (Gemma 4), by `tokenizers`."""

from __future__ import annotations

import os

from tokenizers import Regex
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.pre_tokenizers import PreTokenizer as Splitter

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.tokenizer.byte_level import BYTE_ALPHABET
from corral.tokenizer.pretokenizers import PreTokenizer
from corral.tokenizer.tokenizer import Tokenizer
from corral.tokenizer.vocabulary import SPACE, Vocabulary

_MERGES = "tokenizer.ggml.merges"

# Characters. Oniguruma gives up, and takes the thread with it, when one match needs ten million steps back,
# which a run of white space of that length does.
_MAX_TEXT = 2_000_000


class BpeTokenizer(Tokenizer):
    """See Tokenizer."""

    def __init__(
        self, vocabulary: Vocabulary, gguf: GGUFFile, *, lstrip: frozenset[int], rstrip: frozenset[int]
    ) -> None:
        super().__init__(vocabulary, lstrip=lstrip, rstrip=rstrip)
        # A call encodes one text, in the thread that asks; a pool would only stand beside the engine's.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._dropped = len(vocabulary) if _lacks_bytes(vocabulary) else None
        self._encoder = Encoder(_model(vocabulary, gguf, self._dropped))
        self._encoder.pre_tokenizer = splitter(vocabulary.rules)

    def _encode_parts(self, parts: list[str | int]) -> list[int]:
        parts = [cut for part in parts for cut in _cut(part)]
        texts = [part for part in parts if isinstance(part, str)]
        if not self.vocabulary.rules.byte_level:
            texts = [text.replace(" ", SPACE) for text in texts]
        # The batch method releases the GIL and computes no offsets, the one for a single text does neither.
        encodings = iter(self._encoder.encode_batch_fast(texts, add_special_tokens=False))
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += next(encodings).ids
        return ids if self._dropped is None else [id for id in ids if id != self._dropped]


def _cut(part: str | int) -> list[str | int]:
    """A text of absurd length in slices."""
    if isinstance(part, int) or len(part) <= _MAX_TEXT:
        return [part]
    return [part[start : start + _MAX_TEXT] for start in range(0, len(part), _MAX_TEXT)]


def splitter(rules: PreTokenizer) -> Splitter:
    """What `tokenizers` calls a pre-tokenizer, for a row of the table."""
    steps: list[Splitter] = [Split(Regex(pattern), "isolated") for pattern in rules.patterns]
    if rules.byte_level:
        steps.append(ByteLevel(add_prefix_space=False, use_regex=False))
    return Sequence(steps)


def _lacks_bytes(vocabulary: Vocabulary) -> bool:
    """Whether there are bytes without a token. They are dropped from text, as llama.cpp does."""
    if vocabulary.rules.byte_level:
        return any(char.encode() not in vocabulary.ids for char in BYTE_ALPHABET)
    return any(b"<0x%02X>" % byte not in vocabulary.ids for byte in range(256))


def _model(vocabulary: Vocabulary, gguf: GGUFFile, dropped: int | None) -> BPE:
    """Vocabulary and merges. What has no token becomes `dropped`, so that its neighbours don't merge."""
    ids = {text.decode("utf-8", "backslashreplace"): id for text, id in vocabulary.ids.items()}
    merges = []
    for line in gguf.raw_strings(_MERGES):
        merge = line.decode("utf-8", "backslashreplace")
        # The first of a pair is never empty, so a space at the very front belongs to it.
        space = merge.find(" ", 1)
        merges.append((merge[:space], merge[space + 1 :]))
    unknown = None
    if dropped is not None:
        unknown = "\0"
        while unknown in ids:
            unknown += "\0"
        ids[unknown] = dropped

    def build(merges: list[tuple[str, str]]) -> BPE:
        return BPE(
            ids,
            merges,
            unk_token=unknown,
            ignore_merges=vocabulary.rules.ignore_merges,
            byte_fallback=not vocabulary.rules.byte_level,
        )

    try:
        return build(merges)
    except Exception as error:  # tokenizers has no class of its own
        usable = [(a, b) for a, b in merges if a in ids and b in ids and a + b in ids]
        if len(usable) == len(merges):
            raise ModelFileError(vocabulary.path, _MERGES, str(error), "pairs of tokens") from None
    vocabulary.warn(f"{len(merges) - len(usable)} of {len(merges)} merges name tokens that are not there")
    return build(usable)
