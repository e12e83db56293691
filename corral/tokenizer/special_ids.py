"""Which tokens have a role: begin and end of text, end of a turn, fill-in-the-middle.

A file names some of them by id; the rest are known by their text, as many files name only `bos` and `eos`.
The lists of texts are those that llama.cpp recognises (src/llama-vocab.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from corral.gguf.reader import GGUFFile
from corral.tokenizer.token_type import TokenType


@dataclass(frozen=True)
class SpecialIds:
    """Token ids with a role, None where the model has none."""

    bos: int | None = None
    eos: int | None = None
    eot: int | None = None
    eom: int | None = None
    unk: int | None = None
    sep: int | None = None
    pad: int | None = None
    mask: int | None = None
    fim_pre: int | None = None
    fim_suf: int | None = None
    fim_mid: int | None = None
    fim_pad: int | None = None
    fim_rep: int | None = None
    fim_sep: int | None = None


# what files of a kind of vocabulary mean that do not say it
_OF_MODEL = {
    "llama": SpecialIds(bos=1, eos=2, unk=0),
    "bert": SpecialIds(bos=101, unk=100, sep=102, pad=0, mask=103),
}

# role -> the metadata keys that name it, the last one present wins
_KEYS: dict[str, tuple[str, ...]] = {
    **{field.name: (f"{field.name}_token_id",) for field in fields(SpecialIds)},
    "bos": ("cls_token_id", "bos_token_id"),
    "unk": ("unknown_token_id",),
    "sep": ("seperator_token_id",),  # so spelled in the format
    "pad": ("padding_token_id",),
    "fim_pre": ("fim_pre_token_id", "prefix_token_id"),
    "fim_suf": ("fim_suf_token_id", "suffix_token_id"),
    "fim_mid": ("fim_mid_token_id", "middle_token_id"),
}

# role -> the texts it is known by if no key names it, the first one in the vocabulary wins
_TEXTS: dict[str, tuple[str, ...]] = {
    "eot": (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<｜end▁of▁sentence｜>",
        "<end_of_utterance>",
    ),
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}

# A generation that reaches one of these has ended, whatever its id.
_ENDS = (
    *_TEXTS["eot"],
    *_TEXTS["eom"],
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
)
# This one is also an HTML tag. It ends a generation where it, or <s>, is a control token.
_END_OR_TAG, _BEGIN_OR_TAG = "</s>", "<s>"
_END_ROLES = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")

# gpt-oss: parts of a message that a client must see.
_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
# With both of a pair in the vocabulary <|end|> ends a message, not a generation (o200k_harmony, solar-open).
_END_OF_MESSAGE = (("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>"), ("<|call|>", "<|flush|>"))


def find_special_ids(
    gguf: GGUFFile, ids: Mapping[bytes, int], types: bytes, warn: Callable[[str], None]
) -> tuple[SpecialIds, frozenset[int], bytes]:
    """Roles by key and by text, the ids that end a generation, and `types` (one byte a token) mended.

    ids: token text -> id. A marker that the file calls ordinary text becomes a control token, with a warning.
    """
    mended = bytearray(types)

    def by_text(text: str) -> int | None:
        return ids.get(text.encode())

    def make_control(id: int, text: str) -> None:
        if mended[id] == TokenType.NORMAL:
            warn(f"token {id} {text!r} is marked as ordinary text; it is used as a control token")
        mended[id] = TokenType.CONTROL

    special = _OF_MODEL.get(gguf.require("tokenizer.ggml.model", str), SpecialIds())
    for role, keys in _KEYS.items():
        found = getattr(special, role)
        if found is not None and found >= len(types):
            found = None
        for key in keys:
            id = gguf.get(f"tokenizer.ggml.{key}", int, None)
            if id is None:
                continue
            if 0 <= id < len(types):
                found = id
            else:
                warn(f"tokenizer.ggml.{key} is {id}, expected 0 to {len(types) - 1}; it is ignored")
        if found is None:
            for text in _TEXTS.get(role, ()):
                if (found := by_text(text)) is not None:
                    make_control(found, text)
                    break
        special = replace(special, **{role: found})

    ends = {id for role in _END_ROLES if (id := getattr(special, role)) is not None}
    for text in _ENDS:
        if (id := by_text(text)) is not None:
            make_control(id, text)
            ends.add(id)
    marks = [by_text(_END_OR_TAG), by_text(_BEGIN_OR_TAG)]
    if marks[0] is not None and any(id is not None and mended[id] == TokenType.CONTROL for id in marks):
        make_control(marks[0], _END_OR_TAG)
        ends.add(marks[0])

    for text in _SHOWN:
        if (id := by_text(text)) is not None:
            mended[id] = TokenType.USER_DEFINED
    end = by_text("<|end|>")
    if (
        end is not None
        and end in ends
        and any(by_text(a) in ends and by_text(b) in ends for a, b in _END_OF_MESSAGE)
    ):
        ends.remove(end)
        mended[end] = TokenType.USER_DEFINED
    return special, frozenset(ends), bytes(mended)
