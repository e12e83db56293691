"""Files from addresses, against a server that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest
from stand_in import Fault, File, Said, StandIn

from corral.config import DownloadConfig
from corral.download import places, source, url
from corral.download.fetch import fetch
from corral.errors import DownloadError

CONTENT = b"GGUF" + bytes(range(256)) * 40
SUM = hashlib.sha256(CONTENT).hexdigest()
NAME = "m.gguf"


class Case:
    """One address, one folder, and how long was waited."""

    def __init__(self, server: StandIn, folder: Path) -> None:
        self.server, self.target, self.said = server, folder / NAME, Said()
        self.file = server.files[f"/{NAME}"] = File(CONTENT)
        self.waits: list[float] = []

    def get(self, **more: Any) -> bytes:
        job = url.Job(
            url=f"{self.server.url}/{NAME}", target=self.target, sleep=self.waits.append, timeout=5.0
        )
        for name, value in more.items():
            job = url.Job(**{**{f: getattr(job, f) for f in job.__dataclass_fields__}, name: value})
        return url.download(job, self.said).read_bytes()

    @property
    def gets(self) -> list[dict[str, str]]:
        return self.server.gets(f"/{NAME}")

    def left(self) -> set[str]:
        return {path.name for path in self.target.parent.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def case(server: StandIn, tmp_path: Path) -> Case:
    return Case(server, tmp_path)


def test_a_file_arrives_whole_and_alone(case: Case) -> None:
    assert case.get() == CONTENT
    assert case.left() == {NAME, f"{NAME}.source.json"}
    assert case.said.starts == [(NAME, len(CONTENT), 0)]
    assert case.said.came == len(CONTENT)
    known = source.read(case.target)
    assert known is not None
    assert (known.sha256, known.size) == (SUM, len(CONTENT))


def test_what_is_here_is_asked_for_but_not_sent_again(case: Case) -> None:
    case.get()
    assert case.get() == CONTENT
    assert "if-none-match" in case.gets[1]
    assert case.said.came == len(CONTENT)


def test_without_an_etag_the_size_tells(case: Case) -> None:
    case.file.etag = None
    case.get()
    case.get()
    assert len(case.said.starts) == 1
    case.file.content = b"GGUF other"
    assert case.get() == b"GGUF other"


def test_a_newer_file_replaces_ours(case: Case) -> None:
    case.get()
    case.file.content = b"GGUF newer"
    assert case.get() == b"GGUF newer"


@pytest.mark.parametrize("hole", [1, 5000, len(CONTENT) - 1])
def test_a_broken_connection_is_taken_up_where_it_broke(case: Case, hole: int) -> None:
    case.file.faults = [Fault(cut=hole)]
    assert case.get() == CONTENT
    assert case.gets[1]["range"] == f"bytes={hole}-"
    assert case.said.came == len(CONTENT)
    assert case.waits == [1]


def test_the_next_run_goes_on_too(case: Case) -> None:
    case.file.faults = [Fault(cut=5000), *[Fault(status=503)] * 4]
    with pytest.raises(DownloadError, match="503"):
        case.get()
    assert f"{NAME}.part" in case.left()
    assert case.get() == CONTENT
    assert case.gets[-1]["range"] == "bytes=5000-"


def test_a_file_that_changed_meanwhile_begins_anew(case: Case) -> None:
    case.file.faults = [Fault(cut=5000)]
    fault = case.file.faults

    def change(_seconds: float) -> None:
        assert not fault
        case.file.content = b"GGUF" + b"x" * 9000

    assert case.get(sleep=change) == b"GGUF" + b"x" * 9000


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_nothing_is_put_together(case: Case, etag: str | None) -> None:
    case.file.etag = etag
    case.file.faults = [Fault(cut=5000)]
    assert case.get() == CONTENT
    assert "range" not in case.gets[1]


def test_a_server_without_ranges_sends_all_again(case: Case) -> None:
    case.file.ranges = False
    case.file.faults = [Fault(cut=5000)]
    assert case.get() == CONTENT


def test_a_part_that_lacks_nothing_is_complete(case: Case) -> None:
    """The process died between the last byte and the new name: the server says 416."""
    case.file.faults = [Fault(cut=len(CONTENT) - 1), *[Fault(status=503)] * 4]
    with pytest.raises(DownloadError):
        case.get()
    part = case.target.with_name(f"{NAME}.part")
    part.write_bytes(CONTENT)
    assert case.get(sha256=SUM) == CONTENT
    assert case.said.starts[1:] == []


def test_a_part_that_is_too_long_is_thrown_away(case: Case) -> None:
    case.file.faults = [Fault(cut=5000), *[Fault(status=503)] * 4]
    with pytest.raises(DownloadError):
        case.get()
    case.target.with_name(f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert case.get() == CONTENT


def test_a_connection_that_breaks_every_time_is_given_up(case: Case) -> None:
    case.file.etag = None
    case.file.faults = [Fault(cut=100)] * 10
    with pytest.raises(DownloadError, match=f"ended after 100 of {len(CONTENT)} bytes"):
        case.get()
    assert len(case.gets) == url.ATTEMPTS
    assert case.waits == [1, 2, 4, 8]


def test_a_silent_server_is_given_up(case: Case) -> None:
    case.file.faults = [Fault(cut=100, hang=True)]
    assert case.get(timeout=0.2) == CONTENT
    assert "did not answer in time" in case.said.notes[0]


def test_retry_after_is_heard(case: Case) -> None:
    case.file.faults = [Fault(status=429, headers={"Retry-After": "7"})]
    assert case.get() == CONTENT
    assert case.waits == [7]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "401 Unauthorized: it asks for a login; give --hf-token"),
        (403, "403 Forbidden: it forbids this"),
        (404, "404 Not Found: there is no such file; check the address"),
        (410, "410 Gone"),
    ],
)
def test_a_refusal_is_one_message_at_once(case: Case, status: int, said: str) -> None:
    case.file.faults = [Fault(status=status)]
    with pytest.raises(DownloadError, match=f"can't download {case.server.url}/{NAME}: {said}"):
        case.get()
    assert case.waits == []
    assert case.left() == set()


def _base64(text: bytes) -> str:
    return base64.b64encode(hashlib.sha256(text).digest()).decode()


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("Repr-Digest", "sha-256=:{}:"),
        ("Digest", "md5=xyz,SHA-256={}"),
        ("x-amz-checksum-sha256", "{}"),
    ],
)
def test_a_sum_of_the_server_is_checked(case: Case, name: str, form: str) -> None:
    case.file.headers = {name: form.format(_base64(CONTENT))}
    assert case.get() == CONTENT
    case.file.content += b"!"
    with pytest.raises(DownloadError, match=f"expected {SUM}; what came was deleted"):
        case.get()
    assert case.target.read_bytes() == CONTENT
    assert f"{NAME}.part" not in case.left()


def test_a_sum_of_the_user_is_checked(case: Case) -> None:
    with pytest.raises(DownloadError, match=f"sha256 is {SUM}, expected {'0' * 64}"):
        case.get(sha256="0" * 64)
    assert case.left() == set()
    assert case.get(sha256=SUM) == CONTENT


def test_the_sum_covers_what_came_before_the_break(case: Case) -> None:
    case.file.faults = [Fault(cut=5000)]
    assert case.get(sha256=SUM) == CONTENT


def test_what_is_no_gguf_file_is_refused(case: Case) -> None:
    case.file.content, case.file.headers = b"<!doctype html>", {"Content-Type": "text/html"}
    with pytest.raises(DownloadError, match="is not a GGUF file: it is text/html that begins with"):
        case.get()
    assert case.left() == set()


def test_redirects_are_followed_but_not_for_ever(case: Case) -> None:
    case.server.files["/there.gguf"] = File(CONTENT)
    case.file.faults = [Fault(status=302, headers={"Location": "/there.gguf"})]
    assert case.get() == CONTENT
    case.target.unlink()
    case.file.faults = [Fault(status=302, headers={"Location": f"/{NAME}"})] * 20
    with pytest.raises(DownloadError, match="redirect"):
        case.get()
    assert len(case.gets) <= 2 + url.http.MOST_REDIRECTS


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/m.gguf"])
def test_a_redirect_to_elsewhere_is_refused(case: Case, location: str) -> None:
    case.file.faults = [Fault(status=302, headers={"Location": location})]
    with pytest.raises(DownloadError):
        case.get()


def test_a_token_stays_with_its_host(case: Case, server: StandIn) -> None:
    """`localhost` is another host than 127.0.0.1, though the same server answers here."""
    server.files["/there.gguf"] = File(CONTENT)
    other = server.url.replace("127.0.0.1", "localhost")
    case.file.faults = [Fault(status=302, headers={"Location": f"{other}/there.gguf"})]
    assert case.get(token="secret") == CONTENT
    assert case.gets[0]["authorization"] == "Bearer secret"
    assert "authorization" not in server.gets("/there.gguf")[0]


def test_a_password_in_the_address_is_a_login_and_not_shown(case: Case) -> None:
    address = case.server.url.replace("http://", "http://me:p%40ss@") + f"/{NAME}?signature=abc"
    case.file.faults = [Fault(status=403)]
    with pytest.raises(DownloadError) as caught:
        case.get(url=address)
    assert case.gets[0]["authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert "p%40ss" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["ftp://h/m.gguf", "file:///m.gguf", "http:///m.gguf", "http://h/a b.gguf", "h/m", "http://h:x/m"],
)
def test_only_http(address: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is not an address, expected http"):
        url.download(url.Job(url=address, target=tmp_path / NAME), Said())


def test_ours_will_do_when_nobody_answers(case: Case) -> None:
    case.get()
    case.file.faults = [Fault(status=503)]
    assert case.get() == CONTENT
    assert "which is here already" in case.said.notes[-1]


def test_nobody_listens(case: Case, unused_tcp_port: int) -> None:
    with pytest.raises(DownloadError, match="Connection refused"):
        case.get(url=f"http://127.0.0.1:{unused_tcp_port}/{NAME}")


def test_offline_asks_nobody(case: Case) -> None:
    with pytest.raises(DownloadError, match="--offline"):
        case.get(offline=True)
    case.get()
    asked = len(case.server.requests)
    assert case.get(offline=True) == CONTENT
    assert len(case.server.requests) == asked


def test_a_file_of_the_user_is_left_alone(case: Case) -> None:
    case.target.write_bytes(b"GGUF mine")
    assert case.get() == b"GGUF mine"
    assert case.server.requests == []


def test_another_address_for_the_same_path_is_another_model(case: Case) -> None:
    case.server.files["/other.gguf"] = File(b"GGUF other")
    case.get()
    assert case.get(url=f"{case.server.url}/other.gguf") == b"GGUF other"


def test_a_full_disk_is_said_before(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SPARE_BYTES", 1 << 60)
    with pytest.raises(DownloadError, match=r"m\.gguf needs 10\.2 kB more in .*, where .* are free"):
        case.get()


def test_a_disk_that_fills_up_is_said(case: Case) -> None:
    with pytest.raises(DownloadError, match=r"the disk of /dev/full.* is full|can't write to /dev"):
        raise DownloadError(places.cant_write(Path("/dev/full"), _full()))


def _full() -> OSError:
    """What the kernel says."""
    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")
    return caught.value


def test_a_folder_that_cant_be_written(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # this may be root, who writes anywhere
    with pytest.raises(DownloadError, match="mount a volume"):
        case.get()
    case.target.write_bytes(b"GGUF put here by another")
    assert case.get() == b"GGUF put here by another"
    assert case.server.requests == []


def test_two_at_a_time_fetch_once(case: Case) -> None:
    case.file.faults = [Fault(cut=5000, hang=True)]
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(case.get())) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not case.said.notes:
        threads[0].join(0.01)
    assert "another process is fetching" in case.said.notes[0]
    case.server.release.set()
    for thread in threads:
        thread.join()
    assert results == [CONTENT, CONTENT]
    assert case.said.came == len(CONTENT)


# -- from the configuration ----------------------------------------------------------------------------------


def test_all_shards_are_fetched_side_by_side(server: StandIn, tmp_path: Path) -> None:
    names = [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for name in names:
        server.files[f"/a/{name}"] = File(CONTENT)
    config = DownloadConfig(model_url=f"{server.url}/a/{names[1]}?x=1", url_cache=str(tmp_path))
    path = fetch(config, Said())
    assert path.name == names[0]
    assert all((path.parent / name).read_bytes() == CONTENT for name in names)


def test_names_from_two_folders_are_not_mixed_up(tmp_path: Path) -> None:
    one, two = (places.url_path(f"http://h/{folder}/m.gguf", str(tmp_path), None) for folder in "ab")
    assert one != two
    assert one.name == two.name == NAME


@pytest.mark.parametrize("address", ["http://h/", "http://h", "http://h/..", "http://h/a%2F.."])
def test_an_address_without_a_name(address: str) -> None:
    with pytest.raises(DownloadError, match="the name of a file"):
        places.url_path(address, "/cache", None)


@pytest.mark.parametrize(
    ("output", "path"), [("/out", "/out/m.gguf"), ("/out/x.gguf", "/out/x.gguf"), ("o/", "o/m.gguf")]
)
def test_output(output: str, path: str) -> None:
    assert places.url_path("http://h/m.gguf?a=b", "/cache", output) == Path(path)


def test_a_token_is_for_the_hub_only(server: StandIn, tmp_path: Path) -> None:
    server.files["/m.gguf"] = File(CONTENT)
    for endpoint, sent in (("https://huggingface.co", False), (server.url, True)):
        config = DownloadConfig(
            model_url=f"{server.url}/m.gguf",
            hf_token="t",
            endpoint=endpoint,
            url_cache=str(tmp_path / endpoint[:5]),
        )
        fetch(config, Said())
        assert ("authorization" in server.gets("/m.gguf")[-1]) == sent
