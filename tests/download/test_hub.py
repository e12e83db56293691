"""Models of the hub, against a stand-in for its API."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError
from stand_in import COMMIT, Fault, Repo, Said, StandIn

from corral.config import DownloadConfig
from corral.download import hub
from corral.download.fetch import fetch
from corral.errors import DownloadError

Q4 = b"GGUF q4" + bytes(range(256)) * 40
Q8 = b"GGUF q8"
FILES = {"README.md": b"hi", "m-Q4_K_M.gguf": Q4, "m-Q8_0.gguf": Q8}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)


class Case:
    def __init__(self, server: StandIn, folder: Path) -> None:
        self.server, self.folder, self.said = server, folder, Said()
        self.repo = server.repos["u/m"] = Repo(dict(FILES))

    def get(self, repo: str = "u/m", **more: Any) -> Path:
        config = DownloadConfig(
            hf_repo=repo, hub_cache=str(self.folder / "hub"), endpoint=self.server.url, **more
        )
        return fetch(config, self.said)


@pytest.fixture
def case(server: StandIn, tmp_path: Path) -> Case:
    return Case(server, tmp_path)


def test_the_cache_has_the_layout_of_the_hub(case: Case) -> None:
    path = case.get()
    root = case.folder / "hub" / "models--u--m"
    assert path == root / "snapshots" / COMMIT / "m-Q4_K_M.gguf"
    assert path.read_bytes() == Q4
    assert path.resolve() == root / "blobs" / hashlib.sha256(Q4).hexdigest()
    assert (root / "refs/main").read_text() == COMMIT
    assert case.said.starts == [("m-Q4_K_M.gguf", len(Q4), 0)]
    assert case.said.came == len(Q4)


def test_only_what_the_library_brings_is_imported(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image has one of these, and tests have others."""
    used = hub.http_library()
    assert issubclass(HfHubHTTPError, used.HTTPError)
    for name in {"httpx", "httpx2"} - {used.__name__}:
        monkeypatch.setitem(sys.modules, name, None)  # an import fails
    assert case.get().read_bytes() == Q4


def test_a_second_time_nothing_is_sent(case: Case) -> None:
    assert case.get() == case.get()
    assert case.said.came == len(Q4)


@pytest.mark.parametrize(
    ("repo", "more", "content"),
    [("u/m:q8_0", {}, Q8), ("u/m", {"hf_file": "m-Q8_0.gguf"}, Q8), ("u/m:Q4_K_M", {}, Q4)],
)
def test_which(case: Case, repo: str, more: dict[str, Any], content: bytes) -> None:
    assert case.get(repo, **more).read_bytes() == content


def test_all_shards(case: Case) -> None:
    names = [f"q4/m-Q4_K_M-0000{i}-of-00002.gguf" for i in (1, 2)]
    case.repo.files = dict.fromkeys(names, Q4)
    path = case.get()
    assert [(path.parent / name.rpartition("/")[2]).read_bytes() for name in names] == [Q4, Q4]


def test_a_broken_connection_is_taken_up(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    case.repo.faults = [Fault(cut=5000)]
    assert case.get().read_bytes() == Q4
    assert case.server.gets("/u/m/resolve/main/m-Q4_K_M.gguf")[-1]["range"] == "bytes=5000-"


def test_a_wrong_sum_is_found(case: Case) -> None:
    case.repo.sums = {"m-Q4_K_M.gguf": "0" * 64}
    with pytest.raises(DownloadError, match=f"sha256 is {hashlib.sha256(Q4).hexdigest()}, expected 000"):
        case.get()
    assert list(case.folder.rglob("m-Q4_K_M.gguf")) == []


@pytest.mark.parametrize(
    ("status", "code", "token", "said"),
    [
        (401, "RepoNotFound", None, "401: no such model: check the name; if it is private, give --hf-token"),
        (401, "", "t", "401: the token"),
        (401, "", None, "401: not for everybody; give --hf-token or HF_TOKEN"),
        (403, "GatedRepo", None, "is gated: accept the terms on its page, then give --hf-token or HF_TOKEN"),
        (403, "GatedRepo", "t", "is gated: your token has no access yet"),
        (404, "RepoNotFound", "t", "404: no such model: check the name"),
        (403, "", "t", "403: the token may not read this model"),
        (403, "", None, "403: not for everybody; give --hf-token or HF_TOKEN"),
        (503, "", None, "the hub answers with status 503; try again later"),
    ],
)
def test_a_refusal_is_one_line(case: Case, status: int, code: str, token: str | None, said: str) -> None:
    case.repo.status, case.repo.code = status, code
    with pytest.raises(DownloadError) as caught:
        case.get(hf_token=token)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{case.server.url}/u/m")
    assert "\n" not in str(caught.value)


def test_a_token_is_sent(case: Case) -> None:
    case.server.token = "hf_abc"
    assert case.get(hf_token="hf_abc").read_bytes() == Q4


def test_no_token_that_lies_about_is_sent(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    case.get()
    assert not any("authorization" in headers for _, _, headers in case.server.requests)


def test_no_such_file_names_those_there_are(case: Case) -> None:
    with pytest.raises(DownloadError, match=r"quantization 'Q2_K'; it has m-Q4_K_M.gguf, m-Q8_0.gguf"):
        case.get("u/m:Q2_K")


def test_offline(case: Case) -> None:
    with pytest.raises(DownloadError, match=r"--offline forbids to fetch it; `corral pull u/m`"):
        case.get(offline=True)
    path = case.get()
    asked = len(case.server.requests)
    assert case.get(offline=True) == path
    with pytest.raises(DownloadError, match="u/m:Q8_0 is not in"):
        case.get("u/m:Q8_0", offline=True)
    assert len(case.server.requests) == asked


@pytest.mark.parametrize("status", [500, 429])
def test_the_cache_will_do_when_the_hub_is_down(case: Case, status: int) -> None:
    path = case.get()
    case.repo.status = status
    assert case.get() == path
    assert "which is here already" in case.said.notes[-1]


def test_the_cache_will_do_when_nobody_listens(case: Case, unused_tcp_port: int) -> None:
    path = case.get()
    config = DownloadConfig(
        hf_repo="u/m", hub_cache=str(case.folder / "hub"), endpoint=f"http://127.0.0.1:{unused_tcp_port}"
    )
    assert fetch(config, case.said) == path


def test_a_newer_revision_comes_beside_the_old_one(case: Case) -> None:
    old = case.get()
    case.repo.commit, case.repo.files["m-Q4_K_M.gguf"] = "d" * 40, Q4 + b"!"
    new = case.get()
    assert (old.read_bytes(), new.read_bytes()) == (Q4, Q4 + b"!")
    assert case.get(offline=True) == new
    new.resolve().unlink()
    assert case.get(offline=True) == old


def test_into_a_folder(case: Case) -> None:
    out = case.folder / "out"
    path = case.get(output=str(out))
    assert path == out / "m-Q4_K_M.gguf"
    assert not path.is_symlink()
    assert not (case.folder / "hub").exists()
    assert case.get(output=str(out), offline=True) == path
    case.get(output=str(out))
    assert case.said.came == len(Q4)


def test_a_cache_that_cant_be_written(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    path = case.get()
    asked = len(case.server.requests)
    monkeypatch.setattr("os.access", lambda *_: False)  # this may be root, who writes anywhere
    assert case.get() == path
    assert len(case.server.requests) == asked
    shutil.rmtree(path.parent)
    with pytest.raises(DownloadError, match=r"can't write to .*; mount a volume"):
        case.get()


def test_a_full_disk_is_said_before(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "shutil.disk_usage", lambda _path: SimpleNamespace(free=1000)
    )  # the library warns of it
    with pytest.raises(DownloadError, match=r"needs .* more in .*, where 1 kB are free"):
        case.get()


def test_a_name_that_leads_out_is_refused(case: Case) -> None:
    case.repo.files = {"../../m-Q4_K_M.gguf": Q4}
    with pytest.raises(DownloadError, match="unsafe name"):
        case.get()


def test_the_library_makes_one_bar_where_it_has_two_counts(tmp_path: Path) -> None:
    """Xet counts what is on the wire and what is written: only the latter is the file's."""
    from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

    said = Said()
    bar = hub._bar_class(said, tmp_path, "m.gguf", 100)
    counts = SimpleNamespace(
        total_bytes=100,
        total_transfer_bytes=100,
        total_bytes_completed=60,
        total_transfer_bytes_completed=80,
        total_bytes_completion_rate=1.0,
        total_transfer_bytes_completion_rate=1.0,
    )
    with XetDownloadProgressReporter(
        reconstruction_desc="", total=100, log_level=0, tqdm_class=bar
    ) as reporter:
        reporter.update_progress(counts)
    assert (said.starts, said.came) == ([("m.gguf", 100, 0)], 60)
