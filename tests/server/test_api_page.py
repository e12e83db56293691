"""docs/api.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.server import api_page

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"


def test_the_page_is_current() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == api_page.markdown(), "run: python -m corral.server.api_page > docs/api.md"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "boolean"),
        ({"type": "integer", "minimum": -1, "maximum": 2**31 - 1}, "integer -1 to 2³¹-1"),
        ({"type": "number", "minimum": 0.0, "maximum": 0.99}, "number 0 to 0.99"),
        ({"type": "string", "maxLength": 9}, "text of up to 9 characters"),
        ({"type": "array", "maxItems": 4, "items": {"type": "string"}}, "array of up to 4: text"),
        ({"anyOf": [{"type": "string"}, {"type": "array"}, {"type": "null"}]}, "text or array"),
        ({"enum": ["a", "b", None]}, '"a" or "b"'),
        ({"$ref": "X"}, "object"),
        ({}, "any"),
    ],
)
def test_types_in_words(schema: Any, text: str) -> None:
    assert api_page.type_text(schema) == text
