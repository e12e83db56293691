"""corral pull, as an init container runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from corral import cli

sys.path.insert(0, str(Path(__file__).parent.parent / "download"))
from stand_in import File, Repo, stand_in

CONTENT = b"GGUF" + bytes(1000)


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if (
            name.startswith(("LLAMA_", "HF_", "HUGGINGFACE_", "MODEL_", "XDG_CACHE"))
            or "PROXY" in name.upper()
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_as_an_init_container(tmp_path: Path) -> None:
    with stand_in() as server:
        server.repos["u/m"] = Repo({"m-Q4_K_M.gguf": CONTENT})
        words = [sys.executable, "-m", "corral.cli", "pull", "u/m:Q4_K_M", "-o", str(tmp_path / "models")]
        environment = {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HF_ENDPOINT": server.url,
            "HOME": str(tmp_path),
        }
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
    path = tmp_path / "models" / "m-Q4_K_M.gguf"
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    assert done.stderr.splitlines()[0] == "downloading m-Q4_K_M.gguf, 1 kB"
    assert path.read_bytes() == CONTENT


def test_an_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with stand_in() as server:
        server.files["/m.gguf"] = File(CONTENT)
        assert cli.main(["pull", f"{server.url}/m.gguf"]) == 0
        path = Path(capsys.readouterr().out.strip())
        assert path.read_bytes() == CONTENT
        assert path.is_relative_to(tmp_path / "cache")
        assert cli.main(["pull", f"{server.url}/m.gguf", "--sha256", "0" * 64]) == 1
        assert "expected 0000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["u/m", "--offline"], "u/m is not in"),
        (["u", "--offline"], "expected USER/MODEL"),
        (["ftp://h/m.gguf"], "is not an address"),
        (["http://h/m.gguf", "--hf-file", "x"], "--hf-file names a file of a repository"),
        (["u/m", "--sha256", "0" * 64], "--sha256 goes with an address"),
        (["http://h/m.gguf", "--sha256", "xyz"], "expected 64 hexadecimal digits, got 'xyz'"),
        (["u/m", "-o", "x.gguf"], "expected a folder"),
    ],
)
def test_mistakes(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert cli.main(["pull", *words]) == 1
    assert said in capsys.readouterr().err
