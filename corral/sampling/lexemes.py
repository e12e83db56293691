"""The rules of a grammar in llguidance's dialect of Lark, which cuts a text into lexemes.

A lexeme is the longest text that matches, as of a programming language: with `num ::= [0-9]+ ws`, the line
break behind a number is the number's, and a rule that wants one more line break never gets it. The grammars
of llama.cpp know no such thing. So a rule without recursion, or a text, is a lexeme only if what may follow
it can't be taken for a part of it, or of another that begins like it. The others become rules over single
characters: slower, ten milliseconds a token at worst instead of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from corral.sampling.gbnf import Choice, Node, OneOf, Repeat, Rule, Sequence, Text

MOST_PLACES = 600
"""Of characters, in all lexemes of a grammar: with more, each rule and text is a lexeme."""
MOST_PAIRS = 200_000
"""Of such places, looked at."""
MOST_ROUNDS = 8
"""Of looking for lexemes that clash, as those that are split may clash with others; then all are split."""
_OTHERS = 1 << 128
"""In sets of characters, bits: one for each of ASCII, and this for all others together."""
_ALL = (_OTHERS << 1) - 1

Lexeme = Rule | Text | OneOf


def to_lark(rules: dict[str, Node]) -> str:
    return _Grammar(rules).write()


@dataclass
class _Shape:
    """Where texts of a node begin and end (Glushkov 1961). A place is a set of characters."""

    empty: bool = False
    """Whether it may be nothing."""
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)


class _Places:
    """All places of some lexemes."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self._rules = rules
        self.characters: list[int] = []
        self.behind: list[set[int]] = []
        """Places that may come after each."""

    def of(self, node: Node) -> _Shape:
        match node:
            case Text(text):
                return self.of(Sequence(tuple(OneOf(((ord(c), ord(c)),)) for c in text)))
            case OneOf():
                self.characters.append(_set(node))
                self.behind.append(set())
                place = [len(self.characters) - 1]
                return _Shape(False, place, place)
            case Rule(name):
                return self.of(self._rules[name])
            case Sequence(nodes):
                whole = _Shape(True)
                for one in nodes:
                    part = self.of(one)
                    self._join(whole.last, part.first)
                    whole = _Shape(
                        whole.empty and part.empty,
                        whole.first + part.first * whole.empty,
                        whole.last * part.empty + part.last,
                    )
                return whole
            case Choice(nodes):
                parts = [self.of(one) for one in nodes]
                return _Shape(
                    any(part.empty for part in parts),
                    [place for part in parts for place in part.first],
                    [place for part in parts for place in part.last],
                )
            case Repeat(one, least, most):
                if most == 0:
                    return _Shape(True)
                part = self.of(one)
                if most != 1:
                    self._join(part.last, part.first)
                return _Shape(part.empty or least == 0, part.first, part.last)

    def _join(self, before: list[int], after: list[int]) -> None:
        for place in before:
            self.behind[place].update(after)


class _Grammar:
    def __init__(self, rules: dict[str, Node]) -> None:
        # those that are used come before those that use them, but for recursion: so that one look is enough
        self._rules = {name: rules[name] for name in _from_leaves(rules)}
        self._numbers = {name: i for i, name in enumerate(reversed(self._rules))}
        self._regular = self._find_regular()
        self._empty: set[str] = set()
        self._first: dict[str, int] = dict.fromkeys(rules, 0)
        self._find_first()
        self._split: set[Lexeme] = set()
        """What is no lexeme but characters."""
        for _ in range(MOST_ROUNDS):
            clashes = self._clashes()
            if not clashes:
                return
            self._split |= clashes
        self._split.update(one for one in self._rules_and_texts() if not _is_character(one))

    def _rules_and_texts(self) -> Iterator[Lexeme]:
        for name, node in self._rules.items():
            yield Rule(name)
            yield from _texts(node)

    # -- which are lexemes -----------------------------------------------------------------------------------

    def _find_regular(self) -> set[str]:
        """Rules that lead to no recursion."""
        found: set[str] = set()
        for name, node in self._rules.items():
            if all(used in found for used in _used(node)):
                found.add(name)
        return found

    def _find_first(self) -> None:
        """What the texts of each rule may begin with, and whether they may be nothing."""
        changed = True
        while changed:
            changed = False
            for name, node in self._rules.items():
                first, empty = self._begin(node)
                if first != self._first[name] or empty != (name in self._empty):
                    self._first[name], changed = first, True
                    if empty:
                        self._empty.add(name)

    def _begin(self, node: Node) -> tuple[int, bool]:
        match node:
            case Text(text):
                return (_bit(ord(text[0])), False) if text else (0, True)
            case OneOf():
                return _set(node), False
            case Rule(name):
                return self._first[name], name in self._empty
            case Sequence(nodes):
                first, empty = 0, True
                for one in nodes:
                    if empty:
                        more, empty = self._begin(one)
                        first |= more
                return first, empty
            case Choice(nodes):
                pairs = [self._begin(one) for one in nodes]
                return _union(first for first, _ in pairs), any(empty for _, empty in pairs)
            case Repeat(one, least, most):
                first, empty = self._begin(one)
                return (0, True) if most == 0 else (first, empty or least == 0)

    def _clashes(self) -> set[Lexeme]:
        """Lexemes of which another, or the same, may take away what follows."""
        follow = self._follow()
        places = _Places(self._rules)
        owners: list[Lexeme] = []
        last: set[int] = set()
        starts: list[int] = []
        for lexeme in follow:
            shape = places.of(lexeme)
            owners += [lexeme] * (len(places.characters) - len(owners))
            last.update(shape.last)
            starts += shape.first
            if len(owners) > MOST_PLACES:
                return set()
        found: set[Lexeme] = set()
        # pairs of places that the same text leads to
        waiting = [(p, q) for p in starts for q in starts]
        seen = set()
        looked_at = len(waiting)
        while waiting and looked_at <= MOST_PAIRS:
            pair = p, q = waiting.pop()
            if pair in seen or not places.characters[p] & places.characters[q]:
                continue
            seen.add(pair)
            if p in last and follow[owners[p]] & _union(places.characters[r] for r in places.behind[q]):
                found |= {lexeme for lexeme in (owners[p], owners[q]) if not _is_character(lexeme)}
            looked_at += len(places.behind[p]) * len(places.behind[q])
            if looked_at > MOST_PAIRS:
                return set()
            waiting += [(r, s) for r in places.behind[p] for s in places.behind[q]]
        return found

    def _follow(self) -> dict[Lexeme, int]:
        """The lexemes, and the characters that may come after each."""
        behind: dict[str, int] = dict.fromkeys(self._rules, 0)
        found: dict[Lexeme, int] = {}
        changed = True

        def walk(node: Node, after: int) -> None:
            nonlocal changed
            match node:
                case Text("") | Repeat(most=0):
                    pass
                case Rule(name) if not self._is_lexeme(node):
                    changed = changed or bool(after & ~behind[name])
                    behind[name] |= after
                case Text(text) if node in self._split:
                    walk(_characters(text), after)
                case Rule() | Text() | OneOf():
                    changed = changed or node not in found or bool(after & ~found[node])
                    found[node] = found.get(node, 0) | after
                case Sequence(nodes):
                    for one in reversed(nodes):
                        walk(one, after)
                        first, empty = self._begin(one)
                        after = first | (after if empty else 0)
                case Choice(nodes):
                    for one in nodes:
                        walk(one, after)
                case Repeat(one, _, most):
                    walk(one, after | (self._begin(one)[0] if most != 1 else 0))

        while changed:
            changed = False
            walk(Rule("root"), 0)
            for name in reversed(self._rules):
                if not self._is_lexeme(Rule(name)):
                    walk(self._rules[name], behind[name])
        return found

    def _is_lexeme(self, rule: Rule) -> bool:
        return rule.name in self._regular and rule not in self._split

    # -- Lark ------------------------------------------------------------------------------------------------

    def write(self) -> str:
        lines = [f"start: {self._lark(Rule('root'), whole=False)}"]
        for name, node in reversed(self._rules.items()):
            if not self._is_lexeme(Rule(name)):
                lines.append(f"r{self._numbers[name]}: {self._lark(node, whole=False)}")
            if name in self._regular:
                lines.append(f"T{self._numbers[name]}: {self._lark(node, whole=True)}")
        return "\n".join(lines) + "\n"

    def _lark(self, node: Node, whole: bool) -> str:
        """`whole`: inside a lexeme."""
        match node:
            case Text(text):
                if node in self._split and not whole:
                    return self._lark(_characters(text), whole)
                return '"' + "".join(_escaped(c) for c in text) + '"'
            case OneOf(ranges, negated):
                if not ranges:
                    return "/(?s:.)/"
                spans = (_in_set(a) + (f"-{_in_set(b)}" if b > a else "") for a, b in ranges)
                return f"/[{'^' * negated}{''.join(spans)}]/"
            case Rule(name):
                return f"{'T' if whole or self._is_lexeme(node) else 'r'}{self._numbers[name]}"
            case Sequence(nodes):
                return " ".join(self._lark(one, whole) for one in nodes) or '""'
            case Choice(nodes):
                return "(" + " | ".join(self._lark(one, whole) for one in nodes) + ")"
            case Repeat(one, least, most):
                return f"({self._lark(one, whole)}){{{least},{'' if most is None else most}}}"


def _from_leaves(rules: dict[str, Node]) -> list[str]:
    """The rules that the root leads to, each behind those that it uses."""
    order: list[str] = []
    known = {"root"}
    path = [("root", _used(rules["root"]))]
    while path:
        name, uses = path[-1]
        for used in uses:
            if used not in known:
                known.add(used)
                path.append((used, _used(rules[used])))
                break
        else:
            order.append(name)
            path.pop()
    return order


def _used(node: Node) -> Iterator[str]:
    match node:
        case Rule(name):
            yield name
        case Sequence(nodes) | Choice(nodes):
            for one in nodes:
                yield from _used(one)
        case Repeat(one):
            yield from _used(one)


def _texts(node: Node) -> Iterator[Text]:
    match node:
        case Text():
            yield node
        case Sequence(nodes) | Choice(nodes):
            for one in nodes:
                yield from _texts(one)
        case Repeat(one):
            yield from _texts(one)


def _is_character(lexeme: Lexeme) -> bool:
    return isinstance(lexeme, OneOf) or (isinstance(lexeme, Text) and len(lexeme.text) == 1)


def _characters(text: str) -> Node:
    return Sequence(tuple(Text(character) for character in text))


def _bit(code: int) -> int:
    return 1 << code if code < 128 else _OTHERS


def _set(node: OneOf) -> int:
    found = 0
    for first, last in node.ranges:
        if first < 128:
            found |= (2 << min(last, 127)) - (1 << first)
        if last >= 128:
            found |= _OTHERS
    return _ALL & ~(found & ~_OTHERS) if node.negated else found


def _union(sets: Iterator[int]) -> int:
    found = 0
    for one in sets:
        found |= one
    return found


def _escaped(character: str) -> str:
    """In a text of Lark."""
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else _in_set(ord(character))


def _in_set(code: int) -> str:
    """In a set of characters of a regular expression."""
    character = chr(code)
    return character if code >= 128 or character.isalnum() else f"\\x{code:02x}"
