"""Grammars that a text has to follow, through llguidance: compiled once, then a set of allowed tokens a step.

A constraint is a kind and a text:

    json_schema   a JSON schema. Members come in the order of `properties`; between values there may be a
                  space, or line breaks and indentation, as llama.cpp allows.
    gbnf          llama.cpp's grammars, from the rule `root`.
    regex         the whole text matches it.
    lark          llguidance's dialect (docs/syntax.md of that project), from the rule `start`. A control
                  token is written `<|im_end|>` or by id `<[2]>`, any text `/(?s:.*)/`, a JSON value of a
                  schema `%json {"type": "object"}`. Tokens that show as text, even user-defined ones such as
                  `<tool_call>`, are strings here: `"<tool_call>"`.

Control tokens are never part of a text unless a `lark` names them. A token that ends the generation is
allowed where the text is complete, and nowhere else. Every way of spelling the text in tokens is allowed.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, regex_to_lark
from numpy.typing import NDArray

from corral.errors import InternalError, NotSupported, RequestError
from corral.sampling import gbnf
from corral.sampling.json_schema import locate, without_format
from corral.sampling.lexemes import to_lark

Bitmask = NDArray[np.uint32]
"""[ceil(V / 32)]: bit t % 32 of word t // 32 says whether token t is allowed."""

MOST_BYTES = 256 << 10
"""Of a grammar or schema."""
MOST_COMPILED = 64
"""Grammars kept for the next request that has the same."""
COMPILER_THREADS = 2
MOST_FORMATS = 16
"""Of a schema, that are not known and left out."""

# The model chooses how to spell what is forced, instead of the one spelling that an encoder would give.
_OPTIONS = '\n%llguidance {"no_forcing": true}\n'
_WHITESPACE = r"[ ]|\n{1,2}[ \t]{0,20}"
_MOST_ITEMS = 1000
"""Of the parser, at one place of a text. The time of a step grows with the square of it: 50 ms at worst."""
_TOO_COMPLEX = ("ParserTooComplex", "LexerTooComplex", "; max is ")


class Matcher:
    """Where one text is in its grammar.

    It is told lengths of the whole sequence, prompt included: it can be asked again for a place that it has
    been at, and takes in tokens that came without being asked for.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, length: int = 0) -> None:
        self._matcher = matcher
        self._length = length  # of the sequence that the matcher stands at the end of
        self._mask: Bitmask = np.zeros(-(-vocab_size // 32), np.uint32)

    def begin(self, length: int) -> None:
        """The text starts after so many tokens."""
        self._length = length

    def allowed(self, length: int, tokens: Sequence[int]) -> Bitmask:
        """What may follow a sequence of this length that ends with `tokens`; good until the next call.

        Raises RequestError when the grammar turns out too complex.
        """
        behind = length - self._length
        if behind < 0:
            self._matcher.rollback(-behind)
        for token in tokens[len(tokens) - behind :] if behind > 0 else ():
            self._matcher.consume_token(token)
        self._length = length
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        return self._mask

    def accept(self, token: int) -> None:
        """The text goes on with this token, one of those allowed."""
        self._matcher.consume_token(token)
        self._length += 1
        self._check()

    @property
    def is_accepting(self) -> bool:
        """The text is complete as it is."""
        return self._matcher.is_accepting()

    @property
    def is_complete(self) -> bool:
        """It is complete, and nothing can be added."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            problem = f"{self._matcher.stop_reason()}: {_short(_error(self._matcher))}"
            if any(word in problem for word in _TOO_COMPLEX):
                raise RequestError(
                    f"the grammar is too complex to follow at this place of the text: {problem}"
                )
            raise InternalError(f"the grammar could not be followed: {problem}")


class Grammars:
    """Compiles constraints for one vocabulary, in threads of its own."""

    def __init__(self, pieces: Sequence[bytes], special: Collection[int], eog: Collection[int]) -> None:
        """pieces [V]: the bytes of each token; special: those that are no text; eog: those that end it."""
        self._pieces, self._special, self._eog = pieces, special, eog
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self._lock = Lock()  # of the two above
        self._threads: ThreadPoolExecutor | None = None

    def compile(self, kind: str, text: str) -> Future[Matcher]:
        """A matcher at the start of the text. The future raises RequestError, NotSupported."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(COMPILER_THREADS, "grammar")
        return self._threads.submit(self.compile_now, kind, text)

    def compile_now(self, kind: str, text: str) -> Matcher:
        """The same, waiting for it."""
        key = kind, text
        with self._lock:
            ready = self._compiled.get(key)
            if ready is not None:
                self._compiled.move_to_end(key)
        if ready is None:
            ready = self._make(kind, text)
            with self._lock:
                self._compiled[key] = ready
                while len(self._compiled) > MOST_COMPILED:
                    self._compiled.popitem(last=False)
        return Matcher(ready.deep_copy(), len(self._pieces))

    def _make(self, kind: str, text: str) -> LLMatcher:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > MOST_BYTES:
            raise RequestError(f"the {_NAMES[kind]} has {size} bytes, expected at most {MOST_BYTES}")
        try:
            lark = _TO_LARK[kind](text)
        except RequestError:
            raise
        except RecursionError:
            raise _invalid(kind, "it is nested too deeply") from None
        except Exception as error:  # whatever the converters say of a text that they can't read
            raise _invalid(kind, str(error)) from None
        matcher = self._matcher(lark)
        if matcher.is_error() and kind == "json_schema":
            matcher, text = self._without_unknown_formats(matcher, text)
        if matcher.is_error():
            raise _invalid(kind, self._problem(text) if kind == "json_schema" else _error(matcher))
        matcher.compute_bitmask()  # of a grammar that matches nothing, this finds out
        if matcher.is_error():
            raise _invalid(kind, "it allows no text, or is too complex")
        return matcher

    def _matcher(self, lark: str) -> LLMatcher:
        limits = LLParserLimits(verbose_errors=False, max_items_in_row=_MOST_ITEMS)
        return LLMatcher(self._get_tokenizer(), lark + _OPTIONS, log_level=0, limits=limits)

    def _without_unknown_formats(self, matcher: LLMatcher, text: str) -> tuple[LLMatcher, str]:
        """Tries again while it is a format that is wrong. The schema's matcher, and what is left of it."""
        for _ in range(MOST_FORMATS):
            unknown = re.search("Unknown format: (.*)", _error(matcher)) if matcher.is_error() else None
            if unknown is None:
                break
            text = json.dumps(without_format(json.loads(text), unknown[1]))
            matcher = self._matcher(_of_json_schema(text))
        return matcher, text

    def _problem(self, schema: str) -> str:
        """What is wrong with a JSON schema, and where."""

        def error_of(part: Any) -> str | None:
            matcher = self._matcher(_of_json_schema(json.dumps(part)))
            if not matcher.is_error():
                return None
            return _error(matcher).rpartition("failed to compile JSON schema: ")[2].partition(_LARK)[0]

        place, message = locate(json.loads(schema), error_of)
        return f"{message[:300]} (at {place[:150]})"

    def _get_tokenizer(self) -> LLTokenizer:
        """Made for the first grammar: 0.25 s of a CPU for 49 k tokens, 1.8 s and 115 MB for 262 k."""
        with self._lock:
            if self._tokenizer is None:
                if not self._eog:
                    raise NotSupported("this model has no token that ends a text, which a grammar needs")
                wrapper = TokenizerWrapper(_Vocabulary(self._pieces, sorted(self._special), min(self._eog)))
                self._tokenizer = LLTokenizer(wrapper, eos_token=sorted(self._eog))
            return self._tokenizer


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], special_token_ids: Sequence[int], eos_token_id: int) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, special_token_ids, eos_token_id

    def __call__(self, _text: str) -> list[int]:
        raise AssertionError("with no_forcing nothing is encoded")


# -- kinds ---------------------------------------------------------------------------------------------------


def _of_json_schema(text: str) -> str:
    schema: Any = json.loads(text)
    if not isinstance(schema, (dict, bool)):
        raise RequestError(f"the JSON schema is {text[:80]}, expected an object or a boolean")
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    # written anew: what follows the schema in the text can't become part of the grammar
    return "start: %json " + json.dumps({"x-guidance": {"whitespace_pattern": _WHITESPACE}, **schema})


def _of_gbnf(text: str) -> str:
    return to_lark(gbnf.parse(text))


def _of_regex(text: str) -> str:
    return f"start: /{regex_to_lark(text, 'dw')}/"


_TO_LARK: dict[str, Callable[[str], str]] = {
    "json_schema": _of_json_schema,
    "gbnf": _of_gbnf,
    "regex": _of_regex,
    "lark": str,
}
_NAMES = {
    "json_schema": "JSON schema",
    "gbnf": "grammar",
    "regex": "regular expression",
    "lark": "Lark grammar",
}


_LARK = "\n   1 | start: "
"""Begins what the compiler shows of a grammar, where the line of Lark around it is ours."""


def _invalid(kind: str, message: str) -> RequestError:
    if kind == "regex":
        message = message.partition(_LARK)[0]
    return RequestError(f"the {_NAMES[kind]} is not valid: {_short(message)}")


def _error(matcher: LLMatcher) -> str:
    return matcher.get_error().removesuffix("<non-verbose/>").strip()


def _short(message: str) -> str:
    return message if len(message) <= 500 else message[:497] + "..."
