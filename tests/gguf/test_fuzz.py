"""Thousands of damaged headers: each opens or is a ModelFileError, at once and in little memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType, ValueType
from corral.gguf.writer import GGUFWriter

MUTANTS = 1000  # of each original
SECONDS = 0.5  # far above the millisecond it takes, far below a walk over a made-up count
MEMORY_PER_BYTE = 64  # Python objects made of the smallest keys there can be
MEMORY = 1 << 20

EDGES = (
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    12,
    13,
    31,
    32,
    33,
    48,
    63,
    64,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2**31 - 1,
    2**31,
)
HUGE = (2**32 - 1, 2**32, 2**40, 2**56, 2**63 - 1, 2**63, 2**64 - 33, 2**64 - 32, 2**64 - 8, 2**64 - 1)


def _number(random: Random, data: bytearray) -> None:
    """Put a telling number where a count, length, type, dimension or offset may be."""
    width = random.choice((1, 2, 4, 8, 8))
    at = random.randrange(max(len(data) - width, 1))
    value = random.choice(EDGES + HUGE + (len(data), len(data) - at - width))
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


def _flip(random: Random, data: bytearray) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _noise(random: Random, data: bytearray) -> None:
    at = random.randrange(len(data))
    data[at : at + 16] = random.randbytes(min(16, len(data) - at))


def _cut(random: Random, data: bytearray) -> None:
    del data[random.randrange(4, len(data)) :]


def _remove(random: Random, data: bytearray) -> None:
    at = random.randrange(4, len(data))
    del data[at : at + random.randrange(1, 64)]


def _repeat(random: Random, data: bytearray) -> None:
    start, at = random.randrange(len(data)), random.randrange(4, len(data))
    data[at:at] = data[start : start + random.randrange(1, 200)]


# Numbers most often: they are what a parser believes.
MUTATIONS: tuple[Callable[[Random, bytearray], None], ...] = (
    _number,
    _number,
    _number,
    _flip,
    _noise,
    _cut,
    _remove,
    _repeat,
)


def _mutants(original: bytes, seed: int) -> Iterator[bytes]:
    random = Random(seed)
    for _ in range(MUTANTS):
        data = bytearray(original)
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            if len(data) > 8:
                random.choice(MUTATIONS)(random, data)
        yield bytes(data)


def _failure(path: Path) -> ModelFileError | None:
    """Open the file and use all that can be used: what opening let through must be sound."""
    try:
        file = GGUFFile.open(path)
    except ModelFileError as error:
        return error
    with file:
        for key in file.metadata:
            assert file.metadata[key] is not None
        for name, tensor in file.tensors.items():
            assert file.data(name).size == tensor.nbytes
            file.data(name)[-1:].copy()
            file.drop_pages(name)
    return None


def _fuzz(original: bytes, seed: int, path: Path) -> int:
    """How many of the mutants were readable."""
    readable = 0
    tracemalloc.start()
    try:
        for number, mutant in enumerate(_mutants(original, seed)):
            path.write_bytes(mutant)
            tracemalloc.reset_peak()
            before, started = tracemalloc.get_traced_memory()[0], time.thread_time()
            failure = _failure(path)
            seconds = time.thread_time() - started
            peak = tracemalloc.get_traced_memory()[1] - before
            if failure is None:
                readable += 1
            else:
                assert "\n" not in str(failure)
                assert len(str(failure)) < 2000
            assert seconds < SECONDS, f"mutant {number} took {seconds} s"
            assert peak < MEMORY + MEMORY_PER_BYTE * len(mutant), f"mutant {number} took {peak} bytes"
    finally:
        tracemalloc.stop()
    return readable


def _made(path: Path, version: int, alignment: int) -> bytes:
    writer = GGUFWriter(path, "llama", version=version, alignment=alignment)
    writer.add("general.name", "fuzz")
    writer.add("llama.block_count", 2)
    writer.add("llama.heads", [4, 2])
    writer.add("llama.flags", [True, False])
    writer.add("llama.flag", True)
    writer.add("llama.double", 0.5, ValueType.FLOAT64)
    writer.add("tokenizer.ggml.tokens", [f"token{index}" for index in range(20)])
    writer.add("tokenizer.ggml.scores", np.zeros(20, np.float32))
    for index, type in enumerate((GGMLType.F32, GGMLType.Q4_0, GGMLType.Q4_K, GGMLType.F16)):
        writer.add_tensor(f"blk.{index}.weight", np.zeros((2, 256), np.float32), type)
    return writer.write()[0].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("version", "alignment"), [(2, 32), (3, 32), (3, 8)])
def test_mutants_of_a_whole_file(tmp_path: Path, version: int, alignment: int) -> None:
    original = _made(tmp_path / "made.gguf", version, alignment)
    readable = _fuzz(original, seed=version + alignment, path=tmp_path / "mutant.gguf")
    # Damage in weights and text goes unnoticed, damage in the structure does not: both must have been tried.
    assert MUTANTS // 10 < readable < MUTANTS * 9 // 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-spm", "llama-bpe", "qwen2"])
def test_mutants_of_real_headers(vocab_dir: Path, tmp_path: Path, name: str) -> None:
    with (vocab_dir / f"ggml-vocab-{name}.gguf").open("rb") as file:
        original = file.read(4096)
    assert (
        _fuzz(original, seed=len(name), path=tmp_path / "mutant.gguf") < MUTANTS // 10
    )  # it was cut off to begin with


@pytest.mark.slow
def test_mutants_of_a_shard(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    for index in range(4):
        writer.add_tensor(f"t{index}", np.zeros((2, 32), np.float32), GGMLType.Q8_0)
    first, second = writer.write(tensors_per_shard=2)
    original = second.read_bytes()
    for mutant in _mutants(original, seed=9):
        second.write_bytes(mutant)
        failure = _failure(first)
        assert failure is None or failure.path in (str(first), str(second))


@pytest.mark.parametrize("count", [2**20, 2**32, 2**40, 2**64 - 1])
@pytest.mark.parametrize("field", ["tensors", "keys"])
def test_a_small_file_with_a_large_claim_fails_at_once(tmp_path: Path, count: int, field: str) -> None:
    counts = (count, 0) if field == "tensors" else (0, count)
    path = tmp_path / "claim.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + b"".join(n.to_bytes(8, "little") for n in counts) + bytes(1000))
    tracemalloc.start()
    try:
        started = time.thread_time()
        with pytest.raises(ModelFileError):
            GGUFFile.open(path)
        assert time.thread_time() - started < 0.05
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
