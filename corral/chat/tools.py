"""The tools a request offers, and whether the reply has to use them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from corral.chat.plain_schema import plain_schema
from corral.errors import RequestError

MAX_TOOLS = 512
MAX_NAME = 256

ANY_OBJECT = {"type": "object"}

_NAME = re.compile(r"[^\s\"'<>\\{}\[\]()=:]+\Z")
"""What is safe in every call syntax; OpenAI allows letters, digits, _ and - only."""


@dataclass(frozen=True)
class Tool:
    """A function the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]

    @property
    def properties(self) -> dict[str, Any]:
        """The schemas of the parameters by name, in their order."""
        found = self.parameters.get("properties")
        return found if isinstance(found, dict) else {}

    @property
    def required(self) -> list[Any]:
        return _list(self.parameters.get("required"))

    def schema_of(self, parameter: str) -> dict[str, Any]:
        """A parameter's schema on its own, with the definitions it may refer to."""
        shared: dict[str, Any] = {
            k: self.parameters[k] for k in ("$defs", "definitions") if k in self.parameters
        }
        schema = self.properties.get(parameter)
        return {**shared, **schema} if isinstance(schema, dict) else shared

    def types_of(self, parameter: str) -> set[str]:
        """The JSON types a parameter may have, as far as the schema says so plainly; empty: any."""
        return types_of(self.properties.get(parameter))


def types_of(schema: Any) -> set[str]:
    """The JSON types that a schema allows, as far as it says so plainly; empty: any."""
    if not isinstance(schema, dict):
        return set()
    options = [schema, *(o for key in ("anyOf", "oneOf") for o in _list(schema.get(key)))]
    return {t for o in options if isinstance(o, dict) for t in _types(o)}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _types(schema: dict[str, Any]) -> set[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return {kind}
    if isinstance(kind, list):
        return {k for k in kind if isinstance(k, str)}
    values = _list(schema.get("enum"))
    return {"string"} if values and all(isinstance(v, str) for v in values) else set()


@dataclass(frozen=True)
class Tools:
    """What may be called: `offered` all of them, `callable` those that `tool_choice` leaves."""

    offered: tuple[Tool, ...]
    callable: tuple[Tool, ...]
    required: bool
    parallel: bool

    def find(self, name: str) -> Tool | None:
        return next((tool for tool in self.callable if tool.name == name), None)

    def described(self, *, plain: bool = False) -> list[dict[str, Any]]:
        """As templates take them: OpenAI's form, without members that are none of a function's.

        `plain`: their schemas in the simplest form.
        """
        return [
            {
                "type": "function",
                "function": {
                    "name": t.name,
                    "description": t.description,
                    "parameters": plain_schema({**t.parameters, **ANY_OBJECT}) if plain else t.parameters,
                },
            }
            for t in self.offered
        ]


def read_tools(tools: Sequence[Any] | None, choice: Any, parallel: bool | None) -> Tools | None:
    """From a request's `tools`, `tool_choice`, `parallel_tool_calls`. None: there is nothing to call.

    Raises RequestError.
    """
    offered = tuple(_tool(t, f"tools[{i}]") for i, t in enumerate(tools or ()))
    if len(offered) > MAX_TOOLS:
        raise RequestError(f"Field 'tools': expected at most {MAX_TOOLS} tools, got {len(offered)}")
    mode, names = _choice(choice)
    if not offered:
        if mode == "required" or names is not None:
            raise RequestError(f"Field 'tool_choice': {_shown(choice)} needs 'tools', and there are none")
        return None
    if mode == "none":
        return None
    for name in names or ():
        if all(t.name != name for t in offered):
            known = ", ".join(t.name for t in offered[:16])
            raise RequestError(
                f"Field 'tool_choice': no tool is called {name[:80]!r}, expected one of {known}"
            )
    chosen = offered if names is None else tuple(t for t in offered if t.name in names)
    return Tools(offered, chosen, mode == "required", parallel is not False)


def _tool(value: Any, where: str) -> Tool:
    if not isinstance(value, dict):
        raise RequestError(f"Field '{where}': expected an object, got {_shown(value)}")
    kind = value.get("type", "function")
    if kind != "function":
        raise RequestError(f"Field '{where}.type': expected \"function\", got {_shown(kind)}")
    function = value.get("function")
    if not isinstance(function, dict):
        raise RequestError(f"Field '{where}.function': expected an object, got {_shown(function)}")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.match(name) or len(name) > MAX_NAME:
        raise RequestError(
            f"Field '{where}.function.name': expected a name of at most {MAX_NAME} characters, "
            f"without spaces, quotes and brackets, got {_shown(name)}"
        )
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise RequestError(
            f"Field '{where}.function.description': expected a string, got {_shown(description)}"
        )
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise RequestError(
            f"Field '{where}.function.parameters': expected a JSON schema, got {_shown(parameters)}"
        )
    return Tool(name, description or "", parameters or {**ANY_OBJECT, "properties": {}})


def _choice(value: Any) -> tuple[Literal["auto", "none", "required"], list[str] | None]:
    """Whether there has to be a call, and of which tools it may be; None: of all."""
    match value:
        case None | "auto":
            return "auto", None
        case "none":
            return "none", None
        case "required" | "any":
            return "required", None
        case {"type": "function"}:
            if name := _named(value):
                return "required", [name]
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(t)},
        }:
            names = [name for tool in t if (name := _named(tool))]
            if names and len(names) == len(t):
                return mode, names
    raise RequestError(
        'Field \'tool_choice\': expected "auto", "none", "required", '
        '{"type": "function", "function": {"name": ...}} or {"type": "allowed_tools", "allowed_tools": '
        f'{{"mode": "auto" or "required", "tools": [{{"type": "function", ...}}]}}}}, got {_shown(value)}'
    )


def _named(value: Any) -> str | None:
    match value:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return name
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
