r"""The table of pre-tokenizers: `tokenizer.ggml.pre` -> how text is cut into words before the merges.

A pre-tokenizer is a list of regular expressions (Oniguruma), each applied to every piece the ones before
left: a match becomes a piece, and so does what lies between matches. Nothing is dropped: the pieces join to
the text.

The expressions are those of each model's own tokenizer.json, the ones it was trained with. llama.cpp
approximates some, so there some words come out in other tokens: it does not tell upper from lower case beyond
ASCII (gpt-4o, llama4, tekken, youtu, tiny_aya) or at all (kimi-k2), hides white space beyond ASCII from
expressions that list ranges (deepseek-llm, deepseek-coder), and joins digits to what is before them (afmoe,
tiny_aya).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PreTokenizer:
    """How one family of byte-level (or, with `byte_level` off, SPM-style) BPE vocabularies cuts text.

    patterns: applied in order, see above
    byte_level: words are spelled in the GPT-2 byte alphabet; otherwise in UTF-8 with U+2581 for a space
    ignore_merges: a word that is a token as a whole is that token, whatever the merges would make of it
    add_bos: whether BOS is added if the file does not say; needs_bos: even if the file says no
    """

    patterns: tuple[str, ...]
    byte_level: bool = True
    ignore_merges: bool = False
    add_bos: bool = False
    needs_bos: bool = False


# English contractions; spelled out, because (?i:s) would also match U+017F, the long s.
_CONTRACTION = r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])"
_SPACES = r"\s+(?!\S)|\s+"
_LINES = r"\s*[\r\n]+|" + _SPACES
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*|"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+|"

# gpt-2's own; a last |\s+ is left out, as what lies between matches is a piece anyway.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA3 = _CONTRACTION + "|" + _WORD + r"\p{N}{1,3}|" + _PUNCTUATION + _LINES
_QWEN2 = _CONTRACTION + "|" + _WORD + r"\p{N}|" + _PUNCTUATION + _LINES
_QWEN35 = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _LINES

# Words that break at a lower-case letter before an upper-case one.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased_words(upper: str, lower: str, suffix: str) -> str:
    first = r"[^\r\n\p{L}\p{N}]?"
    return f"{first}{upper}*{lower}+{suffix}|{first}{upper}+{lower}*{suffix}|"


_CASED = _cased_words(_UPPER, _LOWER, "")
_CASED_CONTRACTED = _cased_words(_UPPER, _LOWER, f"(?:{_CONTRACTION})?")
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _LINES
_GPT4O = _CASED_CONTRACTED + r"\p{N}{1,3}|" + _SLASHED

_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_ASCII_PUNCTUATED = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
)
_DEEPSEEK3 = (r"\p{N}{1,3}", _CJK, _ASCII_PUNCTUATED + r"[\r\n]*|" + _LINES)
# Letters of the cased scripts, as deepseek-llm lists them.
_DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5À-ÖØ-öø-ƺƼ-ƿ\u01c4-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-\u03f5Ϸ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼ\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149ⅎ"
    "ↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿ\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_DEEPSEEK_CJK = "[一-龥ࠀ-一가-퟿]+"

# Digits in threes counted from the right. Bounded, because an unbounded look-ahead takes quadratic time:
# of a number of more than 300 digits only the last 300 are aligned.
_THREES = r"(?:\p{N}{3}){1,100}(?!\p{N})"

_SCRIPTS_WITHOUT_SPACES = "[一-鿿㐀-䶿\uf900-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+"
_SENTENCE_WORDS = r" ?[^(\s|.,!?…。，、।۔،)]+"
_LINE_RUNS = r"[^\n]+|\n+"

# Names that mean the same have a line together.
_TABLE: tuple[tuple[tuple[str, ...], PreTokenizer], ...] = (
    (
        ("default",),
        PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    ),
    (
        (
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ),
        PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True),
    ),
    (("dbrx", "smaug-bpe", "chatglm-bpe"), PreTokenizer((_LLAMA3,))),
    (("glm4", "glm5"), PreTokenizer((_LLAMA3,), ignore_merges=True)),
    (
        (
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ),
        PreTokenizer((_QWEN2,)),
    ),
    (("qwen35",), PreTokenizer((_QWEN35,))),
    (
        (
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ),
        PreTokenizer((_GPT2,)),
    ),
    (
        (
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ),
        PreTokenizer((r"\p{N}", _GPT2)),
    ),
    (("falcon",), PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"))),
    (("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), PreTokenizer((_GPT4O,))),
    (("granite-embed-multi-97m",), PreTokenizer((_GPT4O,), ignore_merges=True)),
    (
        ("tekken",),
        PreTokenizer((_CASED + r"\p{N}|" + _SLASHED,), ignore_merges=True, add_bos=True),
    ),
    (
        ("kimi-k2",),
        PreTokenizer(
            (
                r"\p{Han}+|"
                + _cased_words(
                    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
                    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
                    f"(?:{_CONTRACTION})?",
                )
                + r"\p{N}{1,3}|"
                + _PUNCTUATION
                + _LINES,
            )
        ),
    ),
    (
        ("youtu",),
        PreTokenizer(
            (
                "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK,
                _CASED_CONTRACTED + r"\p{N}|" + _SLASHED,
            ),
            ignore_merges=True,
        ),
    ),
    (
        ("tiny_aya", "cohere2moe"),
        PreTokenizer((r"\d{1,3}(?=(?:\d{3}){0,100}\b)", _GPT4O)),
    ),
    (
        ("deepseek-llm",),
        PreTokenizer(
            (
                r"[\r\n]",
                rf"\s?[{_DEEPSEEK_LETTERS}]+",
                r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
                r"\s+$",
                _DEEPSEEK_CJK,
                r"\p{N}+",
            )
        ),
    ),
    (
        ("deepseek-coder",),
        PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}")),
    ),
    (("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), PreTokenizer(_DEEPSEEK3)),
    (
        ("spark2_5",),
        PreTokenizer((r"\p{N}{1,3}", _CJK, _ASCII_PUNCTUATED + r"|[\r\n]|" + _SPACES, r"\p{N}")),
    ),
    (
        ("afmoe",),
        PreTokenizer(
            (
                rf"\p{{N}}{{1,2}}(?={_THREES})|\p{{N}}{{1,3}}",
                _SCRIPTS_WITHOUT_SPACES,
                _ASCII_PUNCTUATED + r"[\r\n]*|" + _LINES,
            )
        ),
    ),
    (("poro-chat", "bloom", "gpt3-finnish"), PreTokenizer((_SENTENCE_WORDS,))),
    (("viking",), PreTokenizer((_SENTENCE_WORDS, r"\p{N}"))),
    (
        ("jais-2",),
        PreTokenizer(
            (
                _CONTRACTION
                + "|"
                + _WORD
                + r"\p{N}{1,3}|"
                + _PUNCTUATION
                + r"\s*[\r\n]+|"
                + "".join(rf"\s{{{n}}}(?!\S)|" for n in (512, 256, 128, 64, 32, 16, 8, 4))
                + r"\s{1,2}(?!\S)|\s",
            )
        ),
    ),
    (
        ("exaone-moe",),
        PreTokenizer(
            (
                _CONTRACTION
                + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
                + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|"
                + _SPACES,
            )
        ),
    ),
    (
        ("chameleon",),
        PreTokenizer(
            (
                r"<sentinel:[0-9]+>",
                r"IMGIMG[A-I]{1,4}Z",
                r"[\t\n]|    |  ",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                _GPT2,
            ),
            add_bos=True,
        ),
    ),
    (("superbpe",), PreTokenizer((r"\p{N}+", rf"(?={_THREES})"))),
    (
        ("bailingmoe", "bailingmoe2", "llada-moe"),
        PreTokenizer(
            (
                r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|"
                + _WORD
                + r"\p{N}|"
                + _PUNCTUATION
                + r"\s*[\r\n]|"
                + _SPACES,
            )
        ),
    ),
    (
        ("seed-coder",),
        PreTokenizer((_CONTRACTION + "|" + _WORD + r"\p{N}| ?[^\s\p{L}\p{N}\r\n]+|" + _LINES,)),
    ),
    (("ufakzeka",), PreTokenizer((_WORD + r"\p{N}|" + _PUNCTUATION + _LINES,))),
    (("laguna",), PreTokenizer((_LINE_RUNS, _QWEN2))),
    (
        ("minicpm5",),
        PreTokenizer(
            (
                r"\p{N}{1,3}",
                _CONTRACTION + "|" + _WORD + r"\p{N}+|" + _PUNCTUATION + _LINES,
            ),
            ignore_merges=True,
        ),
    ),
    (
        ("gemma4", "granite-embed-multi-311m"),
        PreTokenizer((_LINE_RUNS,), byte_level=False, needs_bos=True),
    ),
    (("sarvam-moe",), PreTokenizer((_LINE_RUNS,), byte_level=False)),
)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {name: row for names, row in _TABLE for name in names}


def find_pre_tokenizer(name: str) -> tuple[PreTokenizer, str]:
    """The row of `name`, and a sentence of warning (or "") if the default one stands in for it."""
    if name in PRE_TOKENIZERS:
        return PRE_TOKENIZERS[name], ""
    what = f"{name!r} is unknown" if name else "is missing"
    problem = (
        f"tokenizer.ggml.pre {what}; text is split as for 'default', which may cost quality: "
        "get a newer file of this model, or report its name"
    )
    return PRE_TOKENIZERS["default"], problem
