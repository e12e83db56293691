"""Reads the JSON body of a request into a struct, or says what is wrong with it.

Null means the default and unknown fields are ignored, as OpenAI's clients need. A wrong type or range is a
RequestError that names the field, what it may be and what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec

from corral.errors import RequestError

R = TypeVar("R", bound=msgspec.Struct)
Bounds = Mapping[str, tuple[Any, Any]]
"""Least and greatest value of the number in a field."""


class Schema(Generic[R]):
    """Reads the bodies of one endpoint. `check` raises CorralError for what the types can't say."""

    def __init__(self, request: type[R], check: Callable[[R], None] | None = None) -> None:
        self.request, self._check = request, check
        self._decoder = msgspec.json.Decoder(request)
        self._bounds = _bounds(request)

    def read(self, body: bytes) -> R:
        """Raises RequestError, and what `check` raises."""
        try:
            request = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            request = self._read_leniently(body, error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(body, error) from None
        if self._check:
            self._check(request)
        return request

    def _read_leniently(self, body: bytes, first: msgspec.ValidationError) -> R:
        """The slow path: takes 256.0 for an integer, as some languages write it, or says what is wrong."""
        try:
            raw = msgspec.json.decode(body)
        except msgspec.ValidationError:  # a number that no float can hold
            raise _explain(first, None, self._bounds) from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(body, error) from None
        if isinstance(raw, dict):
            for name, value in raw.items():
                if isinstance(value, float) and value.is_integer() and name in self._bounds:
                    raw[name] = int(value)
        try:
            return msgspec.convert(raw, self.request)
        except msgspec.ValidationError as error:
            raise _explain(error, raw, self._bounds) from None


def convert(value: Any, struct: type[R], where: str) -> R:
    """A part of a request as its struct; `where` names the part. Raises RequestError."""
    try:
        return msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        raise _explain(error, value, _bounds(struct), where) from None


def malformed(body: bytes, error: Exception) -> RequestError:
    if not body.strip():
        return RequestError("The body is empty, expected a JSON object")
    return RequestError(f"The body is not valid JSON: {error}")


_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def _explain(error: msgspec.ValidationError, value: Any, bounds: Bounds, where: str = "") -> RequestError:
    """Says msgspec's complaint with the field's name and value.

    Its forms: "Expected `int | null`, got `str` - at `$.n`", "Expected `float` <= 1.0 - at `$.top_p`",
    "Object missing required field `messages`".
    """
    text = str(error)
    what, _, path = text.partition(" - at `$")
    path = path.rstrip("`").removeprefix(".")
    missing = re.search(r"missing required field `([^`]+)`", what)
    if missing:
        name = ".".join(filter(None, (where, path, missing[1])))
        return RequestError(f"Field '{name}': missing, but required")
    if not path and not where:
        return RequestError(f"The body is not a JSON object: {what}")
    types = re.search(r"Expected `([^`]+)`(.*?)(?:, got `.*`)?$", what)
    expected = what
    if types:
        words = [_WORDS.get(t.strip(), t.strip()) for t in types[1].split("|") if t.strip() != "null"]
        expected = "expected " + " or ".join(words) + types[2]
        bound = re.search(r"[<>]=", types[2]) and bounds.get(path)
        if bound:
            expected = f"expected {words[0]} from {bound[0]} to {bound[1]}"
    name = ".".join(filter(None, (where, path)))
    try:
        for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
            value = value[int(index) if index else key]
    except (LookupError, TypeError):  # a key with dots or brackets in it
        return RequestError(f"Field '{name}': {expected}")
    return RequestError(f"Field '{name}': {expected}, got {shown(value)}")


@cache
def _bounds(request: type[msgspec.Struct]) -> Bounds:
    found: dict[str, tuple[Any, Any]] = {}
    for f in msgspec.structs.fields(request):
        info = msgspec.inspect.type_info(f.type)
        for t in getattr(info, "types", (info,)):
            if isinstance(t, (msgspec.inspect.IntType, msgspec.inspect.FloatType)) and t.ge is not None:
                found[f.encode_name] = (t.ge, t.le)
    return found


def shown(value: Any) -> str:
    """A value as a message quotes it: JSON, no more than 80 characters."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
