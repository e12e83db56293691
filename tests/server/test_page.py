"""The chat page: its files over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from fake_engine import FakeEngine, fake_state

from corral.engine.messages import Status
from corral.server.static_files import PAGE_FOLDER, PAGE_PATHS


@pytest.mark.parametrize("prefix", ["", "/llm"])
@pytest.mark.parametrize("path", [path for path in PAGE_PATHS if path])
async def test_every_file_is_served_without_a_key(connected: Any, prefix: str, path: str) -> None:
    async with connected(fake_state(api_keys=("k",), api_prefix=prefix)) as client:
        response = await client.get(prefix + path)
        assert response.status_code == 200
        assert response.headers["content-security-policy"].startswith("default-src 'self'")
        assert (await client.get(prefix + "/props")).status_code == 401


@pytest.mark.parametrize("files", [{}, {"static_path": "."}])
async def test_a_prefix_without_a_slash_leads_to_the_page(connected: Any, files: dict[str, str]) -> None:
    async with connected(fake_state(api_keys=("k",), api_prefix="/llm", **files)) as client:
        response = await client.get("/llm")
        assert (response.status_code, response.headers["location"]) == (307, "/llm/")
        assert (await client.get("/llmx")).status_code == 401


async def test_it_is_html_as_clients_expect_it(connected: Any) -> None:
    async with connected(fake_state()) as client:
        response = await client.get("/")
        assert response.headers["content-type"].startswith("text/html")
        assert response.text.startswith("<!doctype html>")
        assert (await client.get("/app.js")).headers["content-type"].startswith("text/javascript")


async def test_it_is_there_while_the_model_loads(connected: Any) -> None:
    engine = FakeEngine()
    engine.status = Status(state="loading")
    async with connected(fake_state(engine)) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/style.css")).status_code == 200
        assert (await client.get("/props")).status_code == 503


async def test_without_it_there_is_nothing(connected: Any) -> None:
    async with connected(fake_state(ui=False)) as client:
        assert (await client.get("/")).status_code == 404
        assert (await client.get("/app.js")).status_code == 404


def test_it_names_nothing_outside() -> None:
    for file in PAGE_FOLDER.iterdir():
        text = file.read_text()
        text = text.replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, which nobody fetches
        assert not [line for line in text.splitlines() if "://" in line and "https?" not in line], file.name
        assert "innerHTML" not in text, file.name
