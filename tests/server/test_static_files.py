"""Files of the folder that --path names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_engine import fake_state

from corral.errors import OptionError
from corral.server.static_files import check_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "site"
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>start")
    (folder / "sub" / "index.html").write_text("sub")
    (folder / "a b.txt").write_text("text")
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "inside").symlink_to(folder / "a b.txt")
    return folder


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/", 200, "<!doctype html>start"),
        ("/index.html", 200, "<!doctype html>start"),
        ("/sub/", 200, "sub"),
        ("/a%20b.txt", 200, "text"),
        ("/inside", 200, "text"),
        ("/sub", 307, ""),
        ("/health", 200, '{"status":"ok"}'),
        ("/nothing", 404, "File Not Found"),
        ("/../secret.txt", 404, "File Not Found"),
        ("/%2e%2e/secret.txt", 404, "File Not Found"),
        ("/sub/..%2f..%2fsecret.txt", 404, "File Not Found"),
        ("//etc/passwd", 404, "File Not Found"),
        ("/link", 404, "File Not Found"),
        ("/up/secret.txt", 404, "File Not Found"),
        ("/a%00b", 404, "File Not Found"),
        ("/" + "x" * 5000, 404, "File Not Found"),
        ("/index.html/x", 404, "File Not Found"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/llm"])
async def test_files(connected: Any, folder: Path, prefix: str, path: str, status: int, text: str) -> None:
    async with connected(fake_state(static_path=str(folder), api_prefix=prefix)) as client:
        response = await client.get(prefix + path)
        assert response.status_code == status
        assert text in response.text
        assert "secret" not in response.text
        if status == 404:
            assert response.json()["error"]["type"] == "not_found_error"
        if prefix:
            assert (await client.get("/index.html")).status_code == 404


async def test_a_file_is_only_read(connected: Any, folder: Path) -> None:
    async with connected(fake_state(static_path=str(folder))) as client:
        assert (await client.head("/index.html")).headers["content-length"] == "20"
        for method in ("POST", "PUT", "DELETE"):
            assert (await client.request(method, "/index.html")).status_code == 404


async def test_only_the_page_itself_needs_no_key(connected: Any, folder: Path) -> None:
    (folder / "sw.js").write_text("")
    async with connected(fake_state(static_path=str(folder), api_keys=("k",))) as client:
        for path in ("/", "/index.html", "/sw.js", "/manifest.webmanifest", "/_app/version.json"):
            assert (await client.get(path)).status_code == (200 if (folder / path[1:]).exists() else 404)
        assert (await client.get("/a%20b.txt")).status_code == 401
        assert (await client.get("/a%20b.txt", headers={"X-Api-Key": "k"})).status_code == 200


def test_the_folder_is_looked_at_before_anything_else(folder: Path) -> None:
    check_folder(None)
    check_folder(str(folder))
    for wrong in (folder / "index.html", folder / "nothing"):
        with pytest.raises(OptionError, match="not a folder"):
            check_folder(str(wrong))
