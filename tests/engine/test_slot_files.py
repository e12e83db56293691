"""Saving, restoring and erasing what the cache has of a slot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_executor import TABLES, FakeExecutor, limits, prompt, run, tokens_of

from corral.engine import slot_files
from corral.engine.engine import Engine
from corral.engine.messages import SlotAction, SlotResult, Submit
from corral.engine.slot_files import HASH_BYTES, HEADER, SlotFiles
from corral.sampling.params import SamplingParams

MODEL = bytes(range(32))
SUBMIT = Submit(id="a", prompt=prompt(150), max_tokens=50, sampling=SamplingParams(seed=1, ignore_eos=True))


def build(folder: Path, model: bytes = MODEL, **changes: float) -> Engine:
    executor = FakeExecutor()
    engine = Engine(executor, TABLES, limits(**changes), slot_files=SlotFiles(str(folder), model, executor))
    run(engine, [])
    return engine


def act(engine: Engine, action: str, slot: int = 0, filename: str = "f") -> SlotResult:
    """Steps go on meanwhile."""
    results = engine.act(SlotAction(id="x", action=action, id_slot=slot, filename=filename))  # type: ignore[arg-type]
    for _ in range(10_000):
        if results:
            (result,) = results
            return result
        assert engine.has_work
        results = engine.work()
        engine.step()
        engine.check()
    raise AssertionError("no result")


def message(result: SlotResult) -> str:
    assert result.error is not None
    return result.error.message


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the file "f": of the 199 computed tokens, six blocks."""
    engine = build(tmp_path)
    run(engine, [SUBMIT])
    result = act(engine, "save")
    assert (result.error, result.n_tokens) == (None, 192)
    assert result.n_bytes == (tmp_path / "f").stat().st_size
    return tmp_path


def test_what_was_saved_is_found_after_a_restart(saved: Path) -> None:
    engine = build(saved)
    expected = tokens_of(run(build(saved), [SUBMIT])["a"])
    result = act(engine, "restore", slot=2)
    assert (result.error, result.n_tokens, result.n_bytes) == (None, 192, (saved / "f").stat().st_size)
    outputs = run(engine, [SUBMIT])["a"]
    assert tokens_of(outputs) == expected
    assert outputs[-1].timings is not None
    assert outputs[-1].timings.cache_n == 128  # the blocks before the prompt's last token


def test_a_restored_slot_can_be_saved_again(saved: Path) -> None:
    engine = build(saved)
    act(engine, "restore", slot=1)
    assert act(engine, "save", slot=1, filename="g").n_tokens == 192
    assert (saved / "g").read_bytes() == (saved / "f").read_bytes()
    assert act(engine, "save", slot=0, filename="empty").n_tokens == 0
    assert act(engine, "restore", slot=0, filename="empty").n_tokens == 0


def test_erasing_forgets(saved: Path) -> None:
    engine = build(saved)
    act(engine, "restore")
    assert act(engine, "erase").n_tokens == 192
    assert engine.stats().blocks_cached == 0
    assert act(engine, "erase").n_tokens == 0


def test_in_a_small_pool_the_beginning_is_kept(saved: Path) -> None:
    engine = build(saved, num_blocks=4, n_ctx=128)
    assert act(engine, "restore").n_tokens == 128


def test_a_running_slot_can_be_saved_but_not_overwritten(saved: Path) -> None:
    engine = build(saved)
    engine.submit(Submit(id="long", prompt=prompt(100), sampling=SamplingParams(seed=1, ignore_eos=True)))
    engine.step()
    assert act(engine, "save", filename="running").n_tokens >= 96
    for action in ("restore", "erase"):
        result = act(engine, action)
        assert "slot 0 is processing a request" in message(result)
        assert result.error is not None
        assert (result.error.status, result.error.retry_after) == (503, 1)


def test_nothing_is_left_behind_but_the_file(saved: Path) -> None:
    assert [path.name for path in saved.iterdir()] == ["f"]


def test_blocks_that_are_reused_while_saving_end_the_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_files, "PIECE_BYTES", 1)
    engine = build(tmp_path, num_blocks=8, n_ctx=256)
    run(engine, [SUBMIT])
    engine.act(SlotAction(id="x", action="save", id_slot=0, filename="f"))
    for _ in range(3):
        assert engine.work() == []
    engine.submit(Submit(id="b", prompt=prompt(140, 9), max_tokens=1))
    engine.step()
    while not (results := engine.work()):
        pass
    assert (results[0].error, results[0].n_tokens) == (None, 96)
    assert act(build(tmp_path), "restore").n_tokens == 96


def torn(data: bytes) -> bytes:
    return data[:-40]


def longer(data: bytes) -> bytes:
    return data + b"\0"


def flipped(data: bytes) -> bytes:
    return data[:500] + bytes([data[500] ^ 1]) + data[501:]


def other_tokens(data: bytes) -> bytes:
    return data[: HEADER.size] + b"\x01" + data[HEADER.size + 1 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (torn, "f is torn: it has"),
        (longer, "f is torn: it has"),
        (flipped, "f is torn: its checksum is wrong"),
        (other_tokens, "f is torn: its checksum is wrong"),
        (lambda data: b"", "f is no saved slot"),
        (lambda data: b"GGUF" + data[4:], "f is no saved slot"),
        (lambda data: data[:8] + b"\x02" + data[9:], "f has version 2, expected 1"),
        (lambda data: data[:20] + b"x" + data[21:], "f was saved with another model"),
        (lambda data: data[:12] + b"\x81" + data[13:], "f was saved with another model"),
        (lambda data: data[: HEADER.size - 8] + b"\xff" * 8 + data[HEADER.size :], "f is torn: it has"),
    ],
)
def test_a_file_that_is_not_right_is_refused(
    saved: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    path = saved / "f"
    path.write_bytes(change(path.read_bytes()))
    engine = build(saved)
    result = act(engine, "restore")
    assert said in message(result)
    assert result.error is not None
    assert result.error.status == 400
    assert (engine.stats().blocks_cached, engine.stats().blocks_used) == (0, 0)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../f", "a/b", "/etc/passwd", ".f", "a\\b", "a\0b", "x" * 300, "\n"]
)
@pytest.mark.parametrize("action", ["save", "restore"])
def test_names_that_are_no_plain_file(saved: Path, action: str, name: str) -> None:
    result = act(build(saved), action, filename=name)
    assert "expected the name of a file" in message(result)
    assert [path.name for path in saved.iterdir()] == ["f"]


@pytest.mark.parametrize("slot", [-1, 4, 10**6])
def test_a_slot_that_does_not_exist(saved: Path, slot: int) -> None:
    result = act(build(saved), "save", slot=slot)
    assert message(result) == f"there is no slot {slot}, expected 0 to 3"


def test_a_file_that_does_not_exist(saved: Path) -> None:
    assert "there is no file 'g'" in message(act(build(saved), "restore", filename="g"))


@pytest.mark.parametrize("action", ["save", "restore"])
def test_a_folder_is_no_file(saved: Path, action: str) -> None:
    (saved / "d").mkdir()
    result = act(build(saved), action, filename="d")
    assert result.error is not None
    assert (result.error.status, result.error.message) == (
        400,
        "'d' is a folder, expected the name of a file",
    )
    assert [path.name for path in saved.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    result = act(build(tmp_path / "gone"), "save")
    assert message(result) == "can't save f: No such file or directory"


def test_without_a_folder_there_are_no_files() -> None:
    engine = Engine(FakeExecutor(), TABLES, limits())
    result = act(engine, "save")
    assert result.error is not None
    assert (result.error.status, "--slot-save-path" in result.error.message) == (501, True)


def test_the_layout_is_the_one_that_is_documented(saved: Path) -> None:
    data = (saved / "f").read_bytes()
    assert HEADER.unpack_from(data) == (b"corralkv", 1, 128, MODEL, 192)
    tokens = np.frombuffer(data, "<i4", 192, HEADER.size).tolist()
    assert tokens[:150] == SUBMIT.prompt
    # the fake keeps tokens where keys and values would be
    assert np.frombuffer(data, "<i4", 192, HEADER.size + 4 * 192).tolist() == tokens
    assert len(data) == HEADER.size + 2 * 4 * 192 + HASH_BYTES
    assert os.stat(saved / "f").st_size == len(data)
