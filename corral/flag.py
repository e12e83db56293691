"""One flag: its names, its variables, the values it takes, and what this version does with it.

The table of all flags is `corral/options.py`; `corral/command_line.py` reads argv with it.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corral import sampler_order

TRUE = ("on", "enabled", "true", "yes", "1")
FALSE = ("off", "disabled", "false", "no", "0")


class Mode(enum.Enum):
    """What this version does with a flag."""

    WORKS = "works"
    """Its value reaches the configuration."""
    PLANNED = "not built yet"
    """Refuses to start, but for values that ask for what happens anyway (`Flag.same`)."""
    ACCEPTED = "no effect"
    """Parsed, warned about once with the reason, and left alone."""
    REFUSED = "not supported"
    """Refuses to start with the reason."""


def _replace(_old: Any, new: Any) -> Any:
    return new


def _extend(old: Any, new: Any) -> Any:
    return (*(old or ()), *new)


def _update(old: Any, new: Any) -> Any:
    return {**(old or {}), **new}


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value: how it is shown, read and joined with an earlier value of the same field.

    `read` raises ValueError with what would be right. A value of None means 'as if not given'.
    `words` is the number of argv items; a kind with `bare` may also stand alone.
    """

    metavar: str
    read: Callable[[str], Any]
    words: int = 1
    bare: str = ""
    merge: Callable[[Any, Any], Any] = _replace
    choices: tuple[str, ...] = ()

    @property
    def repeats(self) -> bool:
        """Whether giving it twice adds to a list instead of replacing."""
        return self.merge in (_extend, _update, _add_breaker)

    @property
    def replaces(self) -> bool:
        """Whether it overwrites what another flag said of the same field."""
        return self.merge is _replace


@dataclass(frozen=True, slots=True)
class Flag:
    """A row of the table. `names[0]` is the one shown; `off_names` are the negated ones of a switch."""

    names: tuple[str, ...]
    off_names: tuple[str, ...]
    env: tuple[str, ...]
    off_env: tuple[str, ...]
    kind: Kind
    default: Any
    """As shown in the help. The default that counts is the one of the dataclass in `config.py`."""
    help: str
    mode: Mode = Mode.WORKS
    field: str = ""
    """`section.name`, a field of a dataclass of `config.py`; empty when the value goes nowhere."""
    reason: str = ""
    same: tuple[Any, ...] = ()
    """Values that ask for what happens anyway: silent, whatever the mode."""
    on: Any = True
    """The value of a switch that is given, ..."""
    off: Any = False
    """... and of its negated name."""
    hidden: bool = False
    """An old or foreign name: works, but left out of `--help`."""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def is_switch(self) -> bool:
        return self.kind.words == 0


# -- kinds ---------------------------------------------------------------------------------------------------


def boolean(text: str) -> bool:
    """`on`, `enabled`, `true`, `yes`, `1`, and their opposites."""
    word = text.strip().lower()
    if word in TRUE:
        return True
    if word in FALSE:
        return False
    raise ValueError(f"expected on or off (or true, false, 1, 0), got {text!r}")


def _number(
    text: str, convert: Callable[[str], Any], what: str, low: float | None, high: float | None
) -> Any:
    try:
        value = convert(text.strip())
    except ValueError:
        raise ValueError(f"expected {what}, got {text!r}") from None
    # a value must fit in the 64 bits that msgpack has for it
    if not math.isfinite(value) if isinstance(value, float) else abs(value) >= 2**64:
        raise ValueError(f"expected a finite number of 64 bits, got {text.strip()[:40]!r}")
    if (low is not None and value < low) or (high is not None and value > high):
        if high is None:
            wanted = f"{low} or more"
        elif low is None:
            wanted = f"{high} or less"
        else:
            wanted = f"between {low} and {high}"
        raise ValueError(f"expected {what}, {wanted}, got {text.strip()}")
    return value


def integer(
    low: int | None = None,
    high: int | None = None,
    *,
    unset: Collection[int] = (),
    multiple: int = 1,
    metavar: str = "N",
) -> Kind:
    """An integer in [low, high]; a value in `unset` reads as None; others are rounded up to a `multiple`."""

    def read(text: str) -> int | None:
        value: int = _number(text, int, "an integer", low, high)
        return None if value in unset else -(-value // multiple) * multiple

    return Kind(metavar, read)


def real(
    low: float | None = None,
    high: float | None = None,
    *,
    floor: float | None = None,
    unset: float | None = None,
) -> Kind:
    """A finite float in [low, high]; `unset` reads as None; with `floor`, smaller values are raised to it."""

    def read(text: str) -> float | None:
        value: float = _number(text, float, "a number", low, high)
        if value == unset:
            return None
        return value if floor is None else max(value, floor)

    return Kind("N", read)


def text(metavar: str = "TEXT") -> Kind:
    """Any text."""
    return Kind(metavar, str)


def choice(
    *words: str,
    metavar: str = "",
    bare: str = "",
    spellings: dict[str, Any] | None = None,
    integers: bool = False,
) -> Kind:
    """One of `words`, or any integer if `integers`; `spellings` maps other words, or these, to values."""
    values = {word: word for word in words} | (spellings or {})
    wanted = ("an integer or " if integers else "") + "one of " + ", ".join(words)

    def read(value: str) -> Any:
        word = value.strip().lower()
        if word in values:
            return values[word]
        if integers and word.removeprefix("-").isdecimal():
            return int(word)
        raise ValueError(f"expected {wanted}, got {value!r}")

    return Kind(metavar or "{" + ",".join(words) + "}", read, bare=bare, choices=words)


def _words(value: str) -> tuple[str, ...]:
    words = tuple(word for word in (part.strip() for part in value.split(",")) if word)
    if not words:
        # an empty list of keys would open the server, an empty list of hosts would hide it
        raise ValueError(f"expected one or more, separated by commas, got {value!r}")
    return words


def comma_list(metavar: str, *, repeats: bool = True) -> Kind:
    """Comma-separated words; given twice, they add up when `repeats`."""
    return Kind(metavar, _words, merge=_extend if repeats else _replace)


def subset(*words: str, later: Collection[str] = ()) -> Kind:
    """A comma list of some of `words`; those in `later` are known, but not built yet."""

    def read(value: str) -> tuple[str, ...]:
        items = _words(value)
        if unbuilt := [item for item in items if item in later]:
            raise ValueError(f"{', '.join(unbuilt)} is not built yet, expected some of {', '.join(words)}")
        if not set(items) <= set(words):
            raise ValueError(f"expected a comma list of {', '.join(words)}, got {value!r}")
        return items

    return Kind("LIST", read, choices=words)


def _read_file(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"can't read {name!r}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{name!r} is not UTF-8: byte {error.start}") from None


def _keys_in_file(name: str) -> tuple[str, ...]:
    keys = tuple(line.strip() for line in _read_file(name).splitlines() if line.strip())
    if not keys:
        # an empty key file means no keys, which would open the server to everyone
        raise ValueError(f"{name!r} holds no key, expected one a line")
    return keys


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _json_object(value: str) -> dict[str, Any]:
    try:
        result = json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object, got {value[:200]!r}: {error}") from None
    if not isinstance(result, dict):
        raise ValueError(f"expected a JSON object, got {value[:200]!r}")
    return result


def _override(value: str) -> dict[str, int | float | bool | str]:
    """`KEY=TYPE:VALUE,...`; a comma or backslash inside a value is written with a backslash before it."""
    result: dict[str, int | float | bool | str] = {}
    marked = value.replace("\\\\", "\0").replace("\\,", "\1")
    for item in marked.split(","):
        item = item.replace("\1", ",").replace("\0", "\\")
        key, equals, rest = item.partition("=")
        kind, colon, payload = rest.partition(":")
        if not (key and equals and colon) or kind not in _OVERRIDES:
            raise ValueError(
                f"expected KEY=TYPE:VALUE with TYPE one of {', '.join(_OVERRIDES)}, got {item!r}"
            )
        result[key.strip()] = _OVERRIDES[kind](payload)
    return result


def _plain_bool(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError(f"expected true or false, got {value!r}")
    return value == "true"


_OVERRIDES: dict[str, Callable[[str], int | float | bool | str]] = {
    "int": lambda value: int(_number(value, int, "an integer", -(2**63), 2**63 - 1)),
    "float": lambda value: float(_number(value, float, "a number", None, None)),
    "bool": _plain_bool,
    "str": str,
}


def _logit_bias(value: str) -> dict[int, float]:
    """`15043+1`, `29905-inf`, or `15043-0.5`: a token id, a sign, an amount."""
    at = max(value.find("+"), value.find("-"))
    number, amount = value[:at], value[at:]
    try:
        if at < 1:
            raise ValueError
        bias = float(amount)
        token = int(number)
    except ValueError:
        raise ValueError(
            f"expected TOKEN_ID then + or - and an amount, as in 15043+1, got {value!r}"
        ) from None
    if not 0 <= token < 2**31 or math.isnan(bias) or bias == math.inf:
        raise ValueError(f"expected a token id of 31 bits and an amount below infinity, got {value!r}")
    return {token: bias}


def _known_samplers(found: tuple[tuple[str, ...], list[str]], names: str) -> tuple[str, ...]:
    order, unknown = found
    if unknown:
        raise ValueError(f"expected some of {names}, got {unknown[0]!r}")
    return order


def _sampler_names(value: str) -> tuple[str, ...]:
    words = [word for word in value.split(";") if word.strip()]
    return _known_samplers(sampler_order.from_names(words), ";".join(sampler_order.LETTERS))


def _sampler_letters(value: str) -> tuple[str, ...]:
    return _known_samplers(sampler_order.from_letters(value.strip()), "".join(sampler_order.LETTERS.values()))


def _breaker(value: str) -> tuple[str, ...]:
    if len(value) > 128:
        raise ValueError(f"expected at most 128 characters, got {len(value)}")
    return () if value == "none" else (value,)


def _add_breaker(old: Any, new: Any) -> Any:
    """`none` clears what was given before."""
    return (*(old or ()), *new) if new else ()


Constrained = tuple[str, str] | None
"""Kind and text of a constraint."""


def _grammar(value: str) -> Constrained:
    return ("gbnf", value) if value.strip() else None


def _json_schema(value: str) -> Constrained:
    try:
        schema = json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON schema, got {value[:200]!r}: {error}") from None
    if not isinstance(schema, (dict, bool)):
        raise ValueError(f"expected a JSON schema, an object or a boolean, got {value[:200]!r}")
    return "json_schema", value


def _api_prefix(value: str) -> str:
    trimmed = value.rstrip("/")
    if trimmed and not trimmed.startswith("/"):
        raise ValueError(f"expected a path that begins with '/', got {value!r}")
    return trimmed


def _header_value(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"expected printable ASCII, as it goes into a header, got {value!r}")
    return value.strip()


# What each part of the old memory-map flags makes of the load mode that the earlier ones asked for.
_LOAD_MODES: dict[str, Callable[[str | None], str | None]] = {
    "+mlock": lambda mode: "mlock" if mode in ("none", "mlock", "dio") else "mmap+mlock",
    "+mmap": lambda mode: "mmap+mlock" if mode in ("mlock", "mmap+mlock") else "mmap",
    "-mmap": lambda mode: "mlock" if mode in ("mlock", "mmap+mlock") else "none",
    "": lambda mode: mode,
}


def _merge_load_mode(mode: str | None, part: str) -> str | None:
    change = _LOAD_MODES.get(part)
    return change(mode) if change else part


def sha256_sum(value: str) -> str:
    """64 hexadecimal digits, perhaps after `sha256:`. Raises ValueError."""
    digits = value.strip().lower().removeprefix("sha256:")
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(f"expected 64 hexadecimal digits, got {value[:80]!r}")
    return digits


def _reciprocal(text: str) -> float:
    return 1 / float(_number(text, float, "a number", 1e-6, None))


SWITCH = Kind("", boolean, words=0)
ON_OFF = Kind("[on|off]", boolean, bare="on")
LOAD_MODE_PART = Kind("", boolean, words=0, merge=_merge_load_mode)
PATH = text("FILE")
FOLDER = text("DIR")
TEXT_FILE = Kind("FILE", _read_file)
KEYS = comma_list("KEY")
KEY_FILE = Kind("FILE", _keys_in_file, merge=_extend)
JSON_OBJECT = Kind("JSON", _json_object)
OVERRIDE = Kind("KEY=TYPE:VALUE,...", _override, merge=_update)
LOGIT_BIAS = Kind("TOKEN_ID(+/-)BIAS", _logit_bias, merge=_update)
RECIPROCAL = Kind("N", _reciprocal)
GRAMMAR = Kind("GRAMMAR", _grammar)
GRAMMAR_FILE = Kind("FILE", lambda name: _grammar(_read_file(name)))
JSON_SCHEMA = Kind("SCHEMA", _json_schema)
JSON_SCHEMA_FILE = Kind("FILE", lambda name: _json_schema(_read_file(name)))
SAMPLER_NAMES = Kind("SAMPLERS", _sampler_names)
SAMPLER_LETTERS = Kind("SEQUENCE", _sampler_letters)
BREAKER = Kind("TEXT", _breaker, merge=_add_breaker)
SHA256 = Kind("HEX", sha256_sum)
HEADER = Kind("LIST", _header_value)
API_PREFIX = Kind("PREFIX", _api_prefix)
TRISTATE = choice(
    "on", "off", "auto",
    metavar="[on|off|auto]",
    bare="on",
    spellings={**dict.fromkeys(TRUE, "on"), **dict.fromkeys(FALSE, "off"), "-1": "auto"},
)  # fmt: skip


def range_pair() -> Kind:
    """Two argv items, START and END."""
    return Kind("START END", str, words=2)


# -- rows ----------------------------------------------------------------------------------------------------


def _split(names: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    on, _, off = names.partition("/")
    return tuple(on.split()), tuple(off.split())


def _variables(names: str) -> tuple[str, ...]:
    """A name with a `=` before it is whole; any other lacks its `LLAMA_ARG_`."""
    return tuple(name[1:] if name[0] == "=" else "LLAMA_ARG_" + name for name in names.split())


def _flag(names: str, env: str, kind: Kind, default: Any, about: str, **more: Any) -> Flag:
    on_names, off_names = _split(names)
    on_env, _, off_env = env.partition("/")
    variables = _variables(on_env)
    off_variables = _variables(off_env)
    if off_names:
        off_variables += tuple(
            name.replace("LLAMA_ARG_", "LLAMA_ARG_NO_") for name in variables if name.startswith("LLAMA_ARG_")
        )
    return Flag(on_names, off_names, variables, off_variables, kind, default, about, **more)


def works(names: str, env: str, kind: Kind, default: Any, field: str, about: str, **more: Any) -> Flag:
    """A flag whose value reaches `field` of the configuration."""
    return _flag(names, env, kind, default, about, mode=Mode.WORKS, field=field, **more)


def planned(
    names: str, env: str, kind: Kind, default: Any, about: str, same: Sequence[Any] = (), **more: Any
) -> Flag:
    """A flag that is not built yet. Its default, and the values in `same`, change nothing and are let in."""
    values = (default, *same) if default is not None else tuple(same)
    return _flag(names, env, kind, default, about, mode=Mode.PLANNED, same=values, **more)


def accepted(
    names: str,
    env: str,
    kind: Kind,
    default: Any,
    about: str,
    reason: str,
    same: Sequence[Any] = (),
    **more: Any,
) -> Flag:
    """A flag without effect here, for `reason`. The values in `same` are not worth a warning."""
    return _flag(
        names, env, kind, default, about, mode=Mode.ACCEPTED, reason=reason, same=tuple(same), **more
    )


def refused(names: str, env: str, kind: Kind, about: str, reason: str, **more: Any) -> Flag:
    """A flag that this server does not have, for `reason`. The values in `same` switch it off."""
    return _flag(names, env, kind, None, about, mode=Mode.REFUSED, reason=reason, **more)
