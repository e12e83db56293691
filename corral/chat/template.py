"""A model's chat template: conversations in, the text of a prompt out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from jinja2 import Template, TemplateSyntaxError
from jinja2.meta import find_undeclared_variables

from corral.chat.builtin import BUILTIN, DEFAULT
from corral.chat.sandbox import (
    BoundedEnvironment,
    Budget,
    TemplateLimit,
    TemplateRaised,
    strftime_now,
    tojson,
)
from corral.errors import OptionError, RequestError

MAX_SOURCE = 1 << 20
"""Characters a template may have. The longest known ones have 50 thousand."""
MAX_SECONDS = 5.0
MAX_TEXT = 8 << 20
"""Characters of the prompt and of any string made on the way, beside four times the conversation's."""

FILE_NAME = "<chat template>"


class TemplateError(RequestError):
    """A conversation its template can't render. Names the reason, the line and the roles."""

    def __init__(self, reason: str, line: int | None, roles: Sequence[str]) -> None:
        self.reason, self.line, self.roles = reason, line, tuple(roles)
        shown = ", ".join(roles[:16]) + (", ..." if len(roles) > 16 else "")
        where = f"line {line} of the chat template" if line else "the chat template"
        super().__init__(f"{where} refused the messages [{shown}]: {reason}")


@dataclass(frozen=True)
class TemplateSource:
    """The text of a template and where it is from: "the model file", "--chat-template chatml", ..."""

    text: str
    origin: str
    note: str = ""
    """Something the operator should know, for the log."""


def tool_template(metadata: Mapping[str, Any], option: str | None = None) -> TemplateSource | None:
    """The second template that some files have, for conversations with tools."""
    text = metadata.get("tokenizer.chat_template.tool_use")
    if option or not isinstance(text, str) or not text.strip():
        return None
    return TemplateSource(text, "the model file, for tools")


def choose_template(metadata: Mapping[str, Any], option: str | None = None) -> TemplateSource:
    """What the option says, else what the model file has, else chatml.

    `option` is the name of a built-in template or the text of one. Raises OptionError.
    """
    if option:
        if option in BUILTIN:
            return TemplateSource(BUILTIN[option], f"--chat-template {option}")
        if "{" not in option:
            raise OptionError(
                f"--chat-template {option[:80]!r} is neither a Jinja template nor one of the built-in names: "
                + ", ".join(BUILTIN)
            )
        return TemplateSource(option, "--chat-template")
    text = metadata.get("tokenizer.chat_template")
    if isinstance(text, str) and text.strip():
        return TemplateSource(text, "the model file")
    return TemplateSource(
        BUILTIN[DEFAULT], f"built-in {DEFAULT}", f"the model file has no chat template: using {DEFAULT}"
    )


class ChatTemplate:
    """A compiled template. Thread-safe; rendering is bounded in time and size (see `sandbox.py`).

    Raises OptionError when the source is not a template.
    """

    def __init__(self, source: TemplateSource, bos_token: str = "", eos_token: str = "") -> None:
        self.source, self.bos_token, self.eos_token = source, bos_token, eos_token
        self._env = BoundedEnvironment()
        if len(source.text) > MAX_SOURCE:
            raise OptionError(
                f"the chat template of {source.origin} has {len(source.text)} characters, "
                f"expected at most {MAX_SOURCE}"
            )
        try:
            self._template = _compile(self._env, source.text)
            self._names = find_undeclared_variables(self._env.parse(source.text))
        except TemplateSyntaxError as error:
            raise OptionError(
                f"the chat template of {source.origin} is wrong in line {error.lineno}: {error.message}"
            ) from error
        except (
            Exception
        ) as error:  # RecursionError and SyntaxError of absurd nesting, and whatever constants raise
            raise OptionError(
                f"the chat template of {source.origin} can't be compiled: {type(error).__name__}: {error}"[
                    :500
                ]
            ) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        max_seconds: float = MAX_SECONDS,
    ) -> str:
        """The prompt. Raises TemplateError. Blocking: some 100 µs for an ordinary conversation."""
        longest = MAX_TEXT + 4 * sum(_size(m) for m in messages)
        budget = Budget(max_seconds, 4 * longest, longest)
        variables = {
            **(kwargs or {}),
            "messages": messages,
            "tools": tools,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "add_generation_prompt": add_generation_prompt,
        }
        if "functions" in self._names and "tools" not in self._names:  # FireFunction's own names
            variables.setdefault("functions", tojson([t["function"] for t in tools or ()], indent=4))
            variables.setdefault("datetime", strftime_now("%b %d %Y %H:%M:%S"))
        if "xml_tools" in self._names and "tools" not in self._names:  # SmolLM3's
            variables.setdefault("xml_tools", [t["function"] for t in tools or ()])
        pieces: list[str] = []
        try:
            with self._env.spending(budget):
                for piece in self._template.generate(variables):
                    budget.step()
                    budget.text(len(piece))
                    pieces.append(piece)
        except Exception as error:
            raise TemplateError(_reason(error), _line(error.__traceback__), _roles(messages)) from error
        return "".join(pieces)


def _compile(env: BoundedEnvironment, text: str) -> Template:
    code = env.compile(text, filename=FILE_NAME)
    return Template.from_code(env, code, env.make_globals(None))


def _reason(error: Exception) -> str:
    if isinstance(error, (TemplateRaised, TemplateLimit)):
        return str(error)
    if isinstance(error, RecursionError):
        return "it recurses without end"
    return f"{type(error).__name__}: {error}"[:500]


def _line(traceback: TracebackType | None) -> int | None:
    """The innermost line of the template: jinja2 puts its frames in place of the compiled code's."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == FILE_NAME:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _roles(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(m.get("role"))[:32] for m in messages]


def _size(value: Any) -> int:
    """Characters in a JSON value."""
    total, todo = 0, [value]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, Mapping):
            total += len(value)
            todo.extend(value.keys())
            todo.extend(value.values())
        elif isinstance(value, (list, tuple)):
            total += len(value)
            todo.extend(value)
    return total
