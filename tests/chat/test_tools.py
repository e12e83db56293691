"""Which tools may be called, and whether one has to be."""

from __future__ import annotations

from typing import Any

import pytest
from formats import tools


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(n) for n in names]}}


@pytest.mark.parametrize(
    ("choice", "callable", "required"),
    [
        ("auto", ["get_weather", "search"], False),
        ("required", ["get_weather", "search"], True),
        (named("search"), ["search"], True),
        ({"type": "function", "name": "search"}, ["search"], True),
        (allowed("auto", "search"), ["search"], False),
        (allowed("required", "search", "get_weather"), ["get_weather", "search"], True),
    ],
)
def test_what_may_be_called(choice: Any, callable: list[str], required: bool) -> None:
    made = tools(choice)
    assert [tool.name for tool in made.offered] == ["get_weather", "search"]
    assert [tool.name for tool in made.callable] == callable
    assert made.required == required
