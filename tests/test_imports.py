"""Imports point down only.

cli > server > engine, chat, download > models, sampling > program, tokenizer > gguf, system > errors
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "corral"
SOURCES = sorted(ROOT.rglob("*.py"))

LAYERS = [
    {"cli", "tools"},
    {"server"},
    {"engine", "chat", "download"},
    {"command_line", "log"},
    {"config"},
    {"models", "sampling"},
    {"program", "tokenizer"},
    {"gguf", "system"},
    {"usage"},
    {"options"},
    {"flag"},
    {"errors", "sampler_order", "_native"},
]
"""A part imports from the layers below its own only, and from itself."""

ACROSS = {"cli": {"tools"}}
"""part: the parts of its own layer that it imports all the same"""

NARROW = {
    # from a package, only these modules may be imported by that part
    ("server", "engine"): {"messages", "client"},
}


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names below corral, also of imports inside functions: "engine.messages"."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: an import names its module in full"
            assert node.module is not None
            # `from corral.engine import messages` names a module too, where there is one
            names = [
                f"{node.module}.{alias.name}" if is_module(f"{node.module}.{alias.name}") else node.module
                for alias in node.names
            ]
        else:
            continue
        yield from (name.removeprefix("corral.") for name in names if name.startswith("corral."))


def is_module(dotted: str) -> bool:
    path = ROOT.parent.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").exists() or dotted == "corral._native"


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def layer_of(part: str) -> int:
    found = [i for i, layer in enumerate(LAYERS) if part in layer]
    assert found, f"corral/{part} is in no layer: say in tests/test_imports.py which"
    return found[0]


def violations(path: Path) -> list[str]:
    part = part_of(path)
    found = []
    for name in imports_of(path):
        other, _, module = name.partition(".")
        allowed = other == part or other in ACROSS.get(part, ()) or layer_of(other) > layer_of(part)
        narrow = NARROW.get((part, other))
        if not allowed:
            found.append(f"{part} imports {name}, which is not below it")
        elif narrow is not None and module.partition(".")[0] not in narrow:
            found.append(f"{part} imports {name}; of {other} it knows {', '.join(sorted(narrow))} only")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    if path == ROOT / "__init__.py":
        assert list(imports_of(path)) == []
    else:
        assert violations(path) == []


def test_every_layer_exists() -> None:
    parts = {part_of(path) for path in SOURCES}
    assert {"cli", "server", "engine", "models", "program", "gguf", "errors"} <= parts
    assert parts - {"__init__"} <= set().union(*LAYERS)


def test_a_violation_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_imports.part_of", lambda path: path.stem)
    for part, line, wrong in [
        ("gguf", "from corral.engine.engine import Engine", True),
        ("gguf", "def f():\n    import corral.program.trace", True),
        ("gguf", "from corral import models", True),
        ("gguf", "from corral.errors import ModelFileError", False),
        ("server", "from corral.engine import scheduler", True),
        ("server", "from corral.engine import client", False),
        ("sampling", "from corral.models import architectures", True),
        ("errors", "from corral import log", True),
    ]:
        path = tmp_path / f"{part}.py"
        path.write_text(line)
        assert bool(violations(path)) == wrong, line
