"""A model that can't be used: one line with path, user, mode and what to do; exit code 1, soon."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from containers import MODEL, Container

Start = Callable[..., Container]

MESSAGES = {
    "private.gguf": "/models/private.gguf: file is not permitted (mode 0600, owner 0:0), expected a file "
    "that uid 10001 gid 0 may read: chmod a+r /models/private.gguf, or run as its owner "
    "(docker run --user 0:0)",
    "closed/m.gguf": "/models/closed/m.gguf: file is behind the closed folder /models/closed (mode 0700, "
    "owner 0:0), expected a file that uid 10001 gid 0 may read: chmod a+rx /models/closed",
    "missing.gguf": "/models/missing.gguf: file is missing, expected an existing GGUF file (mounted into the "
    "container?); /models is there (it holds",
    "": "/models: file is a folder, expected the path of a .gguf file (it holds",
    "folder.gguf": "/models/folder.gguf: file is a folder, expected the path of a .gguf file (it is empty)",
    "cut.gguf": "in the 1000000 bytes of the file); truncated or damaged",
    "empty.gguf": "/models/empty.gguf: file is empty (0 bytes), expected a GGUF file",
    "link.gguf": "/models/link.gguf: file is a link to /nowhere, which is missing, expected a GGUF file",
    "error.gguf": "/models/error.gguf: file is an HTML page, expected the model file itself",
}


@pytest.fixture(scope="module")
def broken(home: Path) -> Path:
    folder = home / "broken"
    (folder / "closed").mkdir(parents=True)
    (folder / "folder.gguf").mkdir()
    model = home / "models" / MODEL
    for name in ("private.gguf", "closed/m.gguf"):
        shutil.copy(model, folder / name)
    with model.open("rb") as whole:
        (folder / "cut.gguf").write_bytes(whole.read(1_000_000))
    (folder / "empty.gguf").touch()
    (folder / "error.gguf").write_text("<!DOCTYPE html><html>404</html>")
    (folder / "link.gguf").symlink_to("/nowhere")
    (folder / "private.gguf").chmod(0o600)
    (folder / "closed").chmod(0o700)
    folder.chmod(0o755)
    return folder


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_wrong_is_one_line(start: Start, broken: Path, name: str) -> None:
    began = time.monotonic()
    container = start(model=f"/models/{name}".rstrip("/"), volume=f"{broken}:/models:ro")
    assert container.wait_exit() == 1
    assert time.monotonic() - began < 15
    lines = container.logs().splitlines()
    assert MESSAGES[name] in lines[-1]
    assert [line for line in lines if line.startswith("error")] == [lines[-1]]


def test_a_read_only_volume_and_a_folder_that_belongs_to_root(start: Start, home: Path) -> None:
    container = start("--ctx-size", "512", volume=f"{home}/models:/models:ro")
    container.wait_ready()
    assert "error" not in container.logs()


def test_a_model_in_a_layer_of_the_image_is_read_in_order(start: Start) -> None:
    container = start("--ctx-size", "512", model=None, volume=None, tag="demo")
    container.wait_ready()
    if container.inspect(".GraphDriver.Name") == "overlay2":
        assert "is on overlay (mounted at /): read in order" in container.logs()


def test_a_key_that_is_closed_to_the_user_is_named(start: Start, broken: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (broken / name).write_text("-")
    (broken / "key.pem").chmod(0o600)
    flags = ("--ssl-cert-file", "/models/cert.pem", "--ssl-key-file", "/models/key.pem")
    container = start(*flags, volume=f"{broken}:/models:ro")
    assert container.wait_exit() == 1
    said = (
        "--ssl-key-file /models/key.pem: can't be read: Permission denied (mode 0600, owner 0:0), expected a"
    )
    assert said in container.logs().splitlines()[-1]
