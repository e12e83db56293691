"""Reading the parts of a request that come in several kinds, told apart by one of their fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from corral.errors import RequestError
from corral.server.decode import convert, shown
from corral.server.schema import ChatRequest, GenerateRequest

Kinds = Mapping[str, type[msgspec.Struct]]
"""The values of the field that tells, and the form of each kind."""


def read_kind(
    value: Any,
    kinds: Kinds,
    where: str,
    *,
    field: str = "type",
    default: str | None = None,
) -> Any:
    """`value` as the struct that its `field` names; without the field it is of kind `default`.

    Raises RequestError.
    """
    if not isinstance(value, dict):
        raise RequestError(f"Field '{where}': expected an object, got {shown(value)}")
    kind = value.get(field, default)
    return convert(value, kinds[one_of(kind, kinds, f"{where}.{field}")], where)


def one_of(value: Any, choices: Iterable[str], where: str) -> str:
    """`value`, if it is one of the choices. Raises RequestError."""
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        expected = ", ".join(f"'{name}'" for name in names)
        raise RequestError(f"Field '{where}': expected one of {expected}, got {shown(value)}")
    return value


def passed_on(request: GenerateRequest, but: Iterable[str]) -> dict[str, Any]:
    """The fields of a request that a chat request has too, except those named in `but`."""
    leave = frozenset(but)
    return {
        name: value
        for name in ChatRequest.__struct_fields__
        if name not in leave and (value := getattr(request, name, None)) is not None
    }
