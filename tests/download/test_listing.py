"""--cache-list."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_in import COMMIT, File, Repo, Said, StandIn

from corral import cli
from corral.config import DownloadConfig
from corral.download.fetch import fetch
from corral.download.listing import cached_models, report


def test_what_is_here(server: StandIn, tmp_path: Path) -> None:
    server.repos["u/a-b"] = Repo({"m-q4_k_m.gguf": b"GGUF", "mmproj.gguf": b"GGUF"})
    server.repos["u/s"] = Repo({f"m-Q8_0-0000{i}-of-00002.gguf": b"GGUF" for i in (1, 2)})
    server.files["/x.gguf"] = File(b"GGUF")
    for wanted in ({"hf_repo": "u/a-b"}, {"hf_repo": "u/s"}, {"model_url": f"{server.url}/x.gguf"}):
        fetch(
            DownloadConfig(hub_cache=str(tmp_path), url_cache=str(tmp_path), endpoint=server.url, **wanted),
            Said(),
        )
    *hub, address = cached_models(tmp_path, tmp_path)
    assert hub == ["u/a-b:Q4_K_M", "u/s:Q8_0"]
    assert address.endswith("/x.gguf")
    assert COMMIT not in address


def test_in_the_words_of_llama_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report(["u/m:Q4_0"]) == "number of models in cache: 1\n   1. u/m:Q4_0\n"
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path))
    assert cli.llama_server(["--cache-list"]) == 0
    assert capsys.readouterr().out == "number of models in cache: 0\n"
