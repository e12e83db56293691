"""A jinja2 environment for hostile templates: whatever one does, rendering ends within its time and size.

A chat template comes out of a model file, so it is somebody else's program. jinja2's sandbox keeps it away
from Python's inside; it does not bound what it costs. Here every construct that can repeat, grow or walk
something reports to the `Budget` of the rendering:

    for loops          the iterable is wrapped; each item is a step
    calls              macros, methods and loop recursion are a step; so recursion without a loop ends too
    + * ** %  ~  []    operands and results are measured before the operation is done
    filters, tests     a step; those that look *inside* containers (tojson, join, sort, ...) walk them first,
                       since forty times `x = [x, x]` makes a value whose `str()` would never return
    output             counted where it is joined

Each step looks at the clock and no single step is long, so a template can't keep a thread past its deadline.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import Undefined, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, _PassArg, pass_context

MAX_INT_BITS = 4096
MAX_ITEMS = 1_000_000
MAX_REPEAT = 10_000
"""Width, count or indentation a filter or method may be asked for."""

SCALARS = (str, int, float, bool, type(None), Undefined)


class TemplateLimit(Exception):
    """A template that wants more time, text or numbers than a rendering may have."""


class TemplateRaised(Exception):
    """A template that refused its input with `raise_exception`."""


class Budget:
    """What one rendering may still spend. `chars` counts the characters of every string made on the way."""

    def __init__(self, seconds: float, chars: int, longest: int) -> None:
        self.deadline = time.monotonic() + seconds
        self.seconds, self.chars, self.longest = seconds, chars, longest

    def step(self) -> None:
        if time.monotonic() > self.deadline:
            raise TemplateLimit(f"the template ran for more than {self.seconds:g} s")

    def text(self, length: int) -> None:
        """Called before, or right after, a string of this length is made."""
        self.chars -= length
        if length > self.longest or self.chars < 0:
            raise TemplateLimit(f"the template makes more text than the {self.longest} characters it may")

    def items(self, count: int) -> None:
        self.text(count)
        if count > MAX_ITEMS:
            raise TemplateLimit(
                f"the template makes a list of {count} items, at most {MAX_ITEMS} are possible"
            )

    def result(self, value: Any) -> Any:
        """Charges for what a filter, a method or an operator returned."""
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, (list, tuple, dict)):
            self.items(len(value))
        return value

    def walk(self, value: Any) -> None:
        """Visits all of a value, as something written in C is about to do without looking at the clock."""
        if isinstance(value, SCALARS):
            return
        todo = [value]
        while todo:
            self.step()
            value = todo.pop()
            if isinstance(value, Mapping):
                todo.extend(value.keys())
                todo.extend(value.values())
            elif isinstance(value, (list, tuple, set, frozenset)):
                todo.extend(value)
            elif isinstance(value, Namespace):
                todo.append(value._Namespace__attrs)
            elif isinstance(value, str):
                self.text(len(value))

    def listed(self, value: Any) -> Any:
        """A generator's items as a list, so that they can be walked before they are used; else the value."""
        if not isinstance(value, Iterator):
            return value
        items = []
        for item in value:
            self.step()
            self.items(1)
            items.append(item)
        return items


class CountedItems:
    """An iterable whose every item is a step. Keeps its length, which `loop.length` asks for."""

    def __init__(self, items: Iterable[Any], budget: Budget) -> None:
        self._items, self._budget = items, budget

    def __len__(self) -> int:
        if isinstance(self._items, Sized):
            return len(self._items)
        raise TypeError("this iterable has no length")

    def __iter__(self) -> Iterator[Any]:
        step = self._budget.step
        for item in self._items:
            step()
            yield item


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks text for training; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it as a set on the class)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


# Filters and tests that hand their input on without looking inside it; all others walk it first.
SHALLOW_FILTERS = frozenset(
    (
        *("attr", "batch", "count", "d", "default", "first", "items", "last", "length", "list", "map"),
        *("reject", "rejectattr", "reverse", "safe", "select", "selectattr", "slice"),
    )
)
SHALLOW_TESTS = frozenset(
    (
        *("boolean", "callable", "defined", "divisibleby", "escaped", "even", "false", "filter", "float"),
        *("integer", "iterable", "lower", "mapping", "none", "number", "odd", "sameas", "sequence"),
        *("string", "test", "true", "undefined", "upper"),
    )
)
# Of no use in a prompt, and slow or random.
ABSENT_FILTERS = ("forceescape", "pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")
# Arguments of these that are numbers are widths or counts.
SIZED_FILTERS = frozenset(("batch", "center", "indent", "slice", "truncate", "round"))
SIZED_METHODS = frozenset(("center", "ljust", "rjust", "zfill", "expandtabs"))
LISTING_FILTERS = frozenset(("list", "sort", "unique", "batch", "slice", "reverse", "join"))


def _small(budget: Budget, name: str, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_REPEAT:
            raise TemplateLimit(f"{name} is asked for a size of {value}, at most {MAX_REPEAT} is possible")
        if isinstance(value, str) and name == "indent":
            budget.text(len(value))


def _replaced_length(text: str, old: str, new: str) -> int:
    count = text.count(old) if old else len(text) + 1
    return len(text) + count * max(0, len(new) - len(old))


def _check_strip(chars: Iterable[Any]) -> None:
    """Stripping looks for each character of the text in all of `chars`."""
    if any(isinstance(value, str) and len(value) > 256 for value in chars):
        raise TemplateLimit("strip is given more than 256 characters")


def _check_percent(budget: Budget, pattern: str) -> None:
    """Widths and precisions reserve memory, so those of a `%` format are written out and small."""
    budget.text(len(pattern))
    if len(pattern) > MAX_REPEAT:
        raise TemplateLimit(f"a format of {len(pattern)} characters, at most {MAX_REPEAT} are possible")
    for found in re.finditer(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d+)?(?:\.(\*|\d+))?", pattern):
        if any(size == "*" or len(size or "") > 4 for size in found.groups()):
            raise TemplateLimit(
                f"a format asks for the size {found[0][:32]!r}, at most four digits are possible"
            )


def _check_braces(budget: Budget, pattern: str) -> None:
    """The same for `str.format`, whose sizes may also hide in nested fields."""
    budget.text(len(pattern))
    if len(pattern) > MAX_REPEAT:
        raise TemplateLimit(f"a format of {len(pattern)} characters, at most {MAX_REPEAT} are possible")
    found = re.search(r"\{[^{}]*(?:\{|\d{5})", pattern.replace("{{", ""))
    if found:
        raise TemplateLimit(f"a format asks for the size {found[0][:32]!r}, at most four digits are possible")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Compiles templates whose rendering, inside `with env.spending(budget)`, reports to the budget."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag])
        self._budget: ContextVar[Budget] = ContextVar("template budget")
        for name in ABSENT_FILTERS:
            self.filters.pop(name, None)
        self.globals.pop("lipsum", None)
        plain: dict[str, Any] = {**self.filters, "tojson": tojson}
        self.filters = {
            "corral_loop": self._loop,
            "corral_text": self._text,
            "corral_walk": self._walk,
            "corral_result": self._result,
            **{name: self._guarded(name, f, SHALLOW_FILTERS) for name, f in plain.items()},
        }
        tests: dict[str, Any] = self.tests
        self.tests = {name: self._guarded(name, f, SHALLOW_TESTS) for name, f in tests.items()}
        self.globals["raise_exception"] = raise_exception
        self.globals["strftime_now"] = strftime_now
        self.concat = self._concat  # type: ignore[method-assign]

    @contextmanager
    def spending(self, budget: Budget) -> Iterator[None]:
        """Renderings in this block, on this thread, take from the budget."""
        token = self._budget.set(budget)
        try:
            yield
        finally:
            self._budget.reset(token)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _instrument(super()._parse(source, name, filename))

    # What the compiled template calls instead of doing it itself.

    @pass_context
    def _loop(self, _context: Context, items: Any) -> Any:
        return items if isinstance(items, Undefined) else CountedItems(items, self._budget.get())

    @pass_context
    def _text(self, _context: Context, parts: list[Any]) -> str:
        budget = self._budget.get()
        for part in parts:
            budget.walk(part)
        texts = [str(part) for part in parts]
        budget.text(sum(map(len, texts)))
        return "".join(texts)

    @pass_context
    def _walk(self, _context: Context, value: Any) -> Any:
        if not isinstance(value, SCALARS):
            self._budget.get().walk(value)
        return value

    @pass_context
    def _result(self, _context: Context, value: Any) -> Any:
        return self._budget.get().result(value)

    def _concat(self, parts: Iterable[str]) -> str:
        budget, texts = self._budget.get(), []
        for part in parts:
            budget.step()
            budget.text(len(part))
            texts.append(part)
        budget.text(sum(map(len, texts)))
        return "".join(texts)

    def _guarded(
        self, name: str, function: Callable[..., Any], shallow: frozenset[str]
    ) -> Callable[..., Any]:
        """A filter or test that takes its step, and looks into its arguments if it is not a shallow one."""
        pass_arg = _PassArg.from_obj(function)
        deep, sized, lists = name not in shallow, name in SIZED_FILTERS, name in LISTING_FILTERS

        def guarded(context: Context, *args: Any, **kwargs: Any) -> Any:
            budget = self._budget.get()
            budget.step()
            if deep:
                args = tuple(map(budget.listed, args))
                for value in args:
                    budget.walk(value)
                for value in kwargs.values():
                    budget.walk(value)
            if sized:
                _small(budget, name, (*args[1:], *kwargs.values()))
            if lists and args and isinstance(args[0], Sized):
                budget.items(len(args[0]))
            if name == "replace" and len(args) >= 3:
                budget.text(_replaced_length(str(args[0]), str(args[1]), str(args[2])))
            if name == "join" and len(args) > 1 and isinstance(args[0], Sized):
                budget.text(len(str(args[1])) * len(args[0]))
            if name == "indent" and args:
                width = args[1] if len(args) > 1 else kwargs.get("width", 4)
                margin = len(width) if isinstance(width, str) else int(width)
                budget.text(len(str(args[0])) + margin * (str(args[0]).count("\n") + 1))
            if name == "format" and args:
                _check_percent(budget, str(args[0]))
            if name == "sum" and not isinstance(
                kwargs.get("start", args[2] if len(args) > 2 else 0), (int, float)
            ):
                raise TemplateLimit("the sum of anything but numbers is not available in chat templates")
            if name == "trim":
                _check_strip((*args[1:], *kwargs.values()))
            first: tuple[Any, ...] = {
                _PassArg.context: (context,),
                _PassArg.eval_context: (context.eval_ctx,),
                _PassArg.environment: (self,),
            }.get(pass_arg, ())  # type: ignore[arg-type]
            return budget.result(function(*first, *args, **kwargs))

        return pass_context(wraps(function)(guarded))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = self._budget.get()
        budget.step()
        if isinstance(left, (str, list, tuple)):
            if operator == "%" and isinstance(left, str):
                _check_percent(budget, left)
                budget.walk(right)
            elif operator == "*" and isinstance(right, int):
                (budget.text if isinstance(left, str) else budget.items)(len(left) * max(0, right))
            elif operator == "+" and isinstance(right, (str, list, tuple)):
                (budget.text if isinstance(left, str) else budget.items)(len(left) + len(right))
        elif isinstance(left, int) and isinstance(right, int):
            bits = (
                left.bit_length() * max(0, right)
                if operator == "**"
                else left.bit_length() + right.bit_length()
            )
            if bits > MAX_INT_BITS:
                raise TemplateLimit(f"{operator} makes a number of more than {MAX_INT_BITS} bits")
        elif isinstance(left, int) and isinstance(right, (str, list, tuple)) and operator == "*":
            (budget.text if isinstance(right, str) else budget.items)(len(right) * max(0, left))
        return super().call_binop(context, operator, left, right)

    def getitem(self, obj: Any, argument: Any) -> Any:
        budget = self._budget.get(None)  # absent while constants are folded at compile time
        if budget is not None:
            budget.step()
            if not isinstance(argument, SCALARS):
                budget.walk(argument)
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = __self._budget.get()
        budget.step()
        if isinstance(__obj, Macro):
            return super().call(__context, __obj, *args, **kwargs)
        if isinstance(__obj, LoopContext):
            args = tuple(CountedItems(a, budget) for a in args)
            return super().call(__context, __obj, *args, **kwargs)
        args = tuple(map(budget.listed, args))
        for value in (*args, *kwargs.values()):
            budget.walk(value)
        # str.format comes wrapped by the sandbox
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        name = getattr(__obj, "__name__", "")
        if isinstance(owner, (int, float, bytes)) or (
            isinstance(owner, str) and name in ("encode", "translate")
        ):
            raise TemplateLimit(f"{type(owner).__name__}.{name} is not available in chat templates")
        if isinstance(owner, str):
            if name in SIZED_METHODS:
                _small(budget, name, (*args, *kwargs.values()))
            elif (
                name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str)
            ):
                budget.text(_replaced_length(owner, args[0], args[1]))
            elif name == "join" and args and isinstance(args[0], Sized):
                budget.text(len(owner) * len(args[0]))
            elif name in ("format", "format_map"):
                _check_braces(budget, owner)
            elif name in ("strip", "lstrip", "rstrip"):
                _check_strip(args)
        return budget.result(super().call(__context, __obj, *args, **kwargs))


def _instrument(tree: nodes.Template) -> nodes.Template:
    """Rewrites the constructs that the environment can't intercept into calls of its filters."""

    def through(name: str, node: nodes.Expr) -> nodes.Expr:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    def visit(node: nodes.Node) -> nodes.Node:
        for field, value in node.iter_fields():
            if isinstance(value, list):
                setattr(node, field, [visit(v) if isinstance(v, nodes.Node) else v for v in value])
            elif isinstance(value, nodes.Node):
                setattr(node, field, visit(value))
        match node:
            case nodes.For():
                node.iter = through("corral_loop", node.iter)  # type: ignore[arg-type]
            case nodes.Concat():
                return through("corral_text", nodes.List(node.nodes, lineno=node.lineno))
            case nodes.Getitem(arg=nodes.Slice()):
                return through("corral_result", node)
            case nodes.Compare():
                node.expr = through("corral_walk", node.expr)
                for operand in node.ops:
                    operand.expr = through("corral_walk", operand.expr)
            case nodes.Pair():
                if not isinstance(node.key, nodes.Const):
                    node.key = through("corral_walk", node.key)
            case nodes.Output():
                node.nodes = [
                    n if isinstance(n, (nodes.TemplateData, nodes.Const)) else through("corral_walk", n)
                    for n in node.nodes
                ]
        return node

    visit(tree)
    return tree.set_environment(tree.environment)  # type: ignore[arg-type, return-value]


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The `tojson` of chat templates: plain JSON, without the escapes for HTML that jinja2's own adds."""
    if (isinstance(indent, int) and indent > 16) or (isinstance(indent, str) and len(indent) > 16):
        raise TemplateLimit(f"tojson is asked for an indentation of {indent!r}, at most 16 is possible")
    if separators is not None and sum(map(len, separators)) > 32:
        raise TemplateLimit("tojson is asked for separators of more than 32 characters")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_exception(message: str = "") -> None:
    """How a template refuses a conversation."""
    raise TemplateRaised(str(message)[:2000])


def strftime_now(form: str) -> str:
    """The current local time, for templates that tell the model the date."""
    if len(form) > 256 or re.search(r"%[^A-Za-z%]*\d", form):
        raise TemplateLimit(f"strftime_now is asked for the format {form[:64]!r}")
    return datetime.now().strftime(form)
