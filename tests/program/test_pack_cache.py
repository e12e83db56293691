"""Packed weights in a file: found again, shared, and never trusted further than they can be checked."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("corral._native", reason="the extension is not built")

from batches import logits_of
from ops import QUANTIZED, Array, Model, assert_same_bits

from corral.errors import Unavailable
from corral.gguf.types import GGMLType
from corral.program import native as native_module
from corral.program import pack_cache as pack_cache_module
from corral.program.native import NativeExecutor, isas, packed_pattern
from corral.program.pack_cache import HEADER_BYTES, PackCache, content_digest
from corral.program.trace import linear

pytestmark = pytest.mark.native

PACKED = np.random.default_rng(0).integers(0, 256, 300_000).astype(np.uint8)
LAYOUT = b"layout"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model file that has not changed for a while."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was just written counts as one that has been there for long."""
    monkeypatch.setattr(pack_cache_module, "SETTLED_NS", -1)


def cache_of(source: Path) -> PackCache:
    return PackCache(source.parent / "packs", [source])


def keep(cache: PackCache, packed: Array = PACKED, layout: bytes = LAYOUT) -> bool:
    return cache.keep(layout, packed, lambda share: None)


def test_what_was_kept_is_found(source: Path) -> None:
    first = cache_of(source)
    assert first.find(LAYOUT, PACKED.size) is None
    assert keep(first)
    second = cache_of(source)
    found = second.find(LAYOUT, PACKED.size)
    assert found is not None
    assert (found == PACKED).all()
    assert not found.flags.writeable
    assert first.notes == second.notes == []
    names = sorted(path.suffix for path in first.folder.iterdir())
    assert names == [".digest", ".weights"]
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in first.folder.iterdir())


def test_progress_ends_at_1(source: Path) -> None:
    shares: list[float] = []
    cache_of(source).keep(LAYOUT, PACKED, shares.append)
    assert shares[-1] == 1.0


def test_another_layout_is_another_file(source: Path) -> None:
    cache = cache_of(source)
    assert keep(cache)
    assert cache.find(b"another", PACKED.size) is None
    assert cache.notes == []


def test_another_version_is_another_file(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(source)
    assert keep(cache)
    monkeypatch.setattr(pack_cache_module, "__version__", "99")
    assert cache.find(LAYOUT, PACKED.size) is None


def test_content_counts_and_not_the_name(source: Path, tmp_path: Path) -> None:
    cache = cache_of(source)
    assert keep(cache)
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(source.read_bytes())
    assert PackCache(cache.folder, [copy]).find(LAYOUT, PACKED.size) is not None
    copy.write_bytes(b"WEIGHTS")  # as long, in the same file
    assert PackCache(cache.folder, [copy]).find(LAYOUT, PACKED.size) is None
    assert PackCache(cache.folder, [source, copy]).find(LAYOUT, PACKED.size) is None


def test_a_file_that_did_not_change_is_read_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keep(cache_of(source))
    monkeypatch.delattr(pack_cache_module, "content_digest")
    assert cache_of(source).find(LAYOUT, PACKED.size) is not None
    os.utime(source)  # now it did
    with pytest.raises(NameError):
        cache_of(source).find(LAYOUT, PACKED.size)


def test_a_file_that_has_just_changed_is_read_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_cache_module, "SETTLED_NS", 3_000_000_000)
    assert keep(cache_of(source))
    assert list(cache_of(source).folder.glob("*.digest")) == []
    assert cache_of(source).find(LAYOUT, PACKED.size) is not None


@pytest.mark.parametrize("digest", [b"", b"zz" * 32, b"00" * 31, b"\xff" * 64, b"00" * 64])
def test_a_digest_file_that_is_none_is_not_used(source: Path, digest: bytes) -> None:
    cache = cache_of(source)
    assert keep(cache)
    (known,) = cache.folder.glob("*.digest")
    known.write_bytes(digest)
    assert cache.find(LAYOUT, PACKED.size) is not None


@pytest.mark.parametrize("threads", [1, 3])
def test_digest_of_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(pack_cache_module, "PIECE_BYTES", 1000)
    path, data = tmp_path / "data", bytes(PACKED[:3500])
    variants = [data, data[:-1], data + b"\0", data[1000:2000] + data[:1000] + data[2000:], b""]
    found = set()
    for variant in variants:
        path.write_bytes(variant)
        found.add(content_digest(path, threads))
        assert content_digest(path, 1) == content_digest(path, threads)
    assert len(found) == len(variants)


def flipped(at: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return change


def zeros(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:HEADER_BYTES] + bytes(PACKED.size))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    "empty": lambda path: os.truncate(path, 0),
    "header only": lambda path: os.truncate(path, HEADER_BYTES),
    "a byte short": lambda path: os.truncate(path, HEADER_BYTES + PACKED.size - 1),
    "a byte more": lambda path: os.truncate(path, HEADER_BYTES + PACKED.size + 1),
    "magic": flipped(0),
    "length": flipped(17),
    "key": flipped(30),
    "digest": flipped(100),
    "rest of the header": flipped(HEADER_BYTES - 1),
    "first page": flipped(HEADER_BYTES),
    "last whole page": flipped(HEADER_BYTES + PACKED.size // 4096 * 4096 - 1),
    "never written": zeros,
    "folder": folder,
    "fifo": fifo,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_told_of_and_replaced(source: Path, damage: str) -> None:
    cache = cache_of(source)
    assert keep(cache)
    DAMAGE[damage](cache.path(LAYOUT))
    assert cache.find(LAYOUT, PACKED.size) is None
    (note,) = cache.notes
    assert str(cache.path(LAYOUT)) in note
    if damage != "folder":  # a rename does not replace one
        assert keep(cache)
        assert cache_of(source).find(LAYOUT, PACKED.size) is not None


@pytest.mark.parametrize("threads", [1, 3])
def test_damage_between_the_samples_is_found_by_the_check(
    source: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(pack_cache_module, "PIECE_BYTES", 100_000)
    cache = PackCache(source.parent / "packs", [source], threads)
    cache.check()  # nothing was found
    large = np.random.default_rng(1).integers(0, 256, 200 * 4096).astype(np.uint8)
    assert keep(cache, large)
    path = cache.path(LAYOUT)
    assert cache.find(LAYOUT, large.size) is not None
    in_thread(cache.check)  # as it was
    flipped(HEADER_BYTES + 4096)(path)  # in the second of 200 pages, of which 64 are sampled
    other = cache_of(source)
    assert other.find(LAYOUT, large.size) is not None
    with pytest.raises(Unavailable, match=f"{path} does not hold what was packed any more: removed"):
        in_thread(other.check)
    assert not path.exists()
    # the next start packs anew; who has the old file mapped leaves the new one alone
    assert keep(cache_of(source), large)
    with pytest.raises(Unavailable):
        in_thread(other.check)
    assert path.exists()


def test_a_damaged_file_that_can_not_be_removed_is_told_of(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    cache = cache_of(source)
    assert keep(cache)
    found = cache.find(LAYOUT, PACKED.size)
    assert found is not None
    monkeypatch.setattr(Path, "unlink", refuse)
    with cache.path(LAYOUT).open("r+b") as file:  # in the pages that are mapped
        file.seek(HEADER_BYTES + 5000)
        file.write(bytes([PACKED[5000] ^ 1]))
    with pytest.raises(Unavailable, match="remove it, as this user can't: Permission denied"):
        in_thread(cache.check)


def in_thread(check: Callable[[], None]) -> None:
    """The check takes priority from its thread, for good."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(check).result()


def test_the_file_of_another_key_is_not_used(source: Path) -> None:
    cache = cache_of(source)
    assert keep(cache)
    cache.path(LAYOUT).rename(cache.path(b"another"))
    assert cache.find(b"another", PACKED.size) is None
    assert "does not match" in cache.notes[0]


def test_a_full_disk_is_one_note(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = cache_of(source)
    assert not keep(cache)
    (note,) = cache.notes
    assert "No space left" in note
    assert not list(cache.folder.glob("*.part"))


def test_without_fallocate(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(fd: int, start: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", missing)
    assert keep(cache_of(source))


def test_a_place_that_is_no_folder_is_told_of(source: Path) -> None:
    cache = cache_of(source)
    cache.folder.write_bytes(b"")
    assert cache.find(LAYOUT, PACKED.size) is None
    assert not keep(cache)
    assert "going on without" in cache.notes[-1]


def test_what_a_killed_process_left_is_removed(source: Path) -> None:
    cache = cache_of(source)
    cache.folder.mkdir()
    parts = [cache.folder / f"{name}.part" for name in ("old", "new", "locked")]
    for part in parts:
        part.write_bytes(b"")
    for part in (parts[0], parts[2]):
        os.utime(part, (time.time() - 1000, time.time() - 1000))
    with parts[2].open("rb") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        assert keep(cache)
    assert [part.exists() for part in parts] == [False, True, True]


def test_many_at_once(source: Path) -> None:
    """Whoever looks finds nothing, or all of it."""
    errors: list[str] = []

    def work() -> None:
        for _ in range(5):
            cache = cache_of(source)
            found = cache.find(LAYOUT, PACKED.size)
            if found is not None and not (found == PACKED).all():
                errors.append("wrong weights")
            if not keep(cache) or cache.notes:
                errors.extend(cache.notes)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not list(cache_of(source).folder.glob("*.part"))


# -- with the executor ---------------------------------------------------------------------------------------


def linear_model(tmp_path: Path, kind: GGMLType = GGMLType.Q4_K) -> Model:
    rng = np.random.default_rng(int(kind))
    tensors = {
        "x": rng.standard_normal((20, 512)),
        "a": (rng.standard_normal((50, 512)), kind),
        "b": (rng.standard_normal((19, 512)), GGMLType.Q8_0),
    }
    return Model(tmp_path, tensors, lambda m: linear(m.input(), m.weight("a")))


def executor_of(model: Model, folder: Path, isa: str = "auto") -> tuple[NativeExecutor, PackCache]:
    cache = PackCache(folder, model.file.paths)
    return NativeExecutor(model.program, model.file, threads=2, isa=isa, pack_cache=cache), cache


@pytest.mark.parametrize("isa", isas())
def test_mapped_weights_give_the_same_bits(tmp_path: Path, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    model = linear_model(tmp_path / "m")
    wanted = logits_of(model.native(isa), range(20))
    for attempt in range(2):
        if attempt == 1:
            monkeypatch.delattr(NativeExecutor, "_pack")
        executor, cache = executor_of(model, tmp_path / "packs", isa)
        assert cache.notes == []
        assert_same_bits(logits_of(executor, range(20)), wanted, isa)
        executor.close()


def test_weights_that_can_not_be_kept_are_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    model = linear_model(tmp_path / "m")
    (tmp_path / "packs").write_bytes(b"")
    executor, cache = executor_of(model, tmp_path / "packs")
    assert_same_bits(logits_of(executor, range(20)), logits_of(model.native(), range(20)))
    assert "going on without" in cache.notes[-1]


def test_pieces_of_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed 16 rows at a time or all at once."""
    wanted = logits_of(linear_model(tmp_path).native(), range(20))
    monkeypatch.setattr(native_module, "PACKED_AT_ONCE", 1)
    shares: list[float] = []
    model = linear_model(tmp_path)
    found = NativeExecutor(model.program, model.file, threads=2, progress=shares.append)
    assert_same_bits(logits_of(found, range(20)), wanted)
    assert len(shares) == 4
    assert shares[-1] == 1.0


def test_patterns_tell_formats_apart() -> None:
    kinds = [kind for kind in QUANTIZED if kind != GGMLType.IQ4_NL]  # that one packs as Q4_0
    assert len({packed_pattern(kind, "auto") for kind in kinds}) == len(kinds)
    assert packed_pattern(GGMLType.Q4_K, "auto") == packed_pattern(GGMLType.Q4_K, isas()[0])


@pytest.mark.parametrize(
    ("first", "count", "size"), [(0, 16, 16), (8, 16, 16), (16, 8, 8), (48, 3, 3), (-16, 16, 16), (0, -1, 0)]
)
def test_rows_that_are_none_are_refused(first: int, count: int, size: int) -> None:
    native = native_module._native.Program("auto", 1)
    matrix = native.add_matrix(int(GGMLType.Q8_0), 50, 32)
    data = np.zeros(size * 34, np.uint8)
    if (first, count) == (0, 16):
        with pytest.raises(RuntimeError, match="no memory"):
            native.pack_rows(matrix, first, count, data)
    native.allocate_weights()
    if (first, count) == (0, 16):
        native.pack_rows(matrix, first, count, data)
    else:
        with pytest.raises(ValueError, match="rows"):
            native.pack_rows(matrix, first, count, data)


SHARE = """
import sys
from pathlib import Path
from corral.program.pack_cache import PackCache
import numpy as np
source, folder = map(Path, sys.argv[1:])
cache = PackCache(folder, [source])
packed = np.arange(1 << 22, dtype=np.uint32).view(np.uint8)
cache.find(b"", packed.size)
cache.keep(b"", packed, lambda share: None)
found = cache.find(b"", packed.size)
assert (found == packed).all() and not cache.notes, cache.notes
"""


@pytest.mark.slow
def test_processes_that_pack_at_once(source: Path) -> None:
    """One of them is killed in the middle; the others go on."""
    command = [sys.executable, "-c", SHARE, str(source), str(source.parent / "packs")]
    started = [subprocess.Popen(command) for _ in range(4)]
    time.sleep(0.3)
    started[0].kill()
    started[0].wait()
    assert [process.wait(60) for process in started[1:]] == [0, 0, 0]
