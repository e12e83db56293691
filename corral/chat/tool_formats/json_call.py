"""Calls written as JSON: {"name": ..., "arguments": {...}}, under whatever keys, alone or in an array."""

from __future__ import annotations

from dataclasses import dataclass

from corral.chat.grammar import SPACE, Grammar, json_regex
from corral.chat.reader import Reader, Script, decode_string
from corral.chat.tools import Tools


@dataclass(frozen=True)
class Keys:
    """The keys of a call. Models mix them up, so all usual ones are read; these are the ones enforced."""

    name: str = "name"
    arguments: str = "arguments"
    before: str = ""
    """Regex of members that come before the name, with their comma."""
    after: str = ""
    """Regex of members that come after the arguments, with their comma."""
    name_is_key: bool = False
    """{"get_weather": {...}}: the name is the key, the arguments its value."""


NAME_KEYS = ("name", "tool_name", "function")
ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")

PLAIN = Keys()


def json_calls(r: Reader, tools: Tools | None, keys: Keys = PLAIN, *, known: bool = False) -> Script[bool]:
    """Reads a call, several behind one another, or an array of calls. False: there is none.

    `known`: it is only a call if there is a tool of that name; for places where other JSON may be.
    """
    calls = r.calls
    array = yield from r.after_spaces("[")
    while (yield from json_call(r, tools, keys, known=known)):  # whole
        yield from r.close(",", ";")
        if not array and not (yield from r.next_is("{")):
            break
    if r.calls > calls:
        r.give_up()  # the beginning of one more
        if array:
            yield from r.close("]")
    return r.calls > calls


def json_call(r: Reader, tools: Tools | None, keys: Keys = PLAIN, *, known: bool = False) -> Script[bool]:
    """Reads one object that is a call. False: it is none, or it has begun one that breaks off."""
    if not (yield from r.after_spaces("{")):
        return False
    calls, name, held, broken = r.calls, None, "", False
    while True:
        yield from r.spaces()
        key = yield from r.string()
        if key is None or not (yield from r.after_spaces(":")):
            break
        yield from r.spaces()
        if keys.name_is_key or (key in ARGUMENT_KEYS and name is not None):
            name = name or key
            if r.calls > calls or (known and not (tools and tools.find(name))):
                break
            if not (yield from json_arguments(r, name)):
                broken = True
                break
        elif key in NAME_KEYS and name is None:
            name = yield from r.string()
            if name is None or not name or (known and not (tools and tools.find(name))):
                break
            if held:  # the arguments came first
                r.call(name)
                r.arguments(held)
        else:
            value = yield from r.json_value()
            if value is None:
                break
            if key in ARGUMENT_KEYS:
                held = plain_arguments(value)
        if not (yield from r.after_spaces(",")):
            break
    ended = not broken and (yield from r.after_spaces("}")) is not None
    if r.calls == calls and name and ended:  # without any arguments
        r.call(name)
        r.arguments("{}")
    if r.calls > calls:
        if ended:
            r.done()
        else:
            r.give_up()
    return r.calls > calls and ended


def json_arguments(r: Reader, name: str) -> Script[bool]:
    """A call of `name` whose arguments follow: JSON, as it comes, or JSON in a string. False: neither."""
    yield from r.spaces()
    if (yield from r.next_is('"', "n")):
        value = yield from r.json_value()
        if value is None:
            return False
        r.call(name)
        r.arguments(plain_arguments(value))
        return True
    if not (yield from r.next_is("{", "[")):
        return False
    r.call(name)
    return (yield from r.json(r.arguments))


def plain_arguments(value: str) -> str:
    """The text of the arguments: a JSON object as it is, one in a string without the string."""
    return "{}" if value in ("null", '""') else decode_string(value) or value


def json_grammar(g: Grammar, keys: Keys = PLAIN, before: str = "") -> str:
    """An expression for one call, behind what the regex `before` says: one lexeme up to the arguments."""
    calls = []
    for tool in g.tools.callable:
        s = SPACE
        if keys.name_is_key:
            head = rf"{before}\{{{s}{json_regex(tool.name)}{s}:{s}"
        else:
            head = (
                rf'{before}\{{{s}{keys.before}"{keys.name}"{s}:{s}{json_regex(tool.name)}{s},{s}'
                rf'"{keys.arguments}"{s}:{s}'
            )
        calls.append(f"/{head}/ {g.arguments(tool)} /{keys.after}{s}\\}}/")
    return g.one_of(calls)


def json_array_grammar(g: Grammar, keys: Keys = PLAIN) -> str:
    """An expression for an array of calls."""
    first = json_grammar(g, keys, rf"{SPACE}\[{SPACE}")
    more = f"({json_grammar(g, keys, f'{SPACE},{SPACE}')})*" if g.tools.parallel else ""
    return rf"{first} {more} /{SPACE}\]/"
