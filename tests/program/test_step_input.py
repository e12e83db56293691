"""A wrong batch is refused with its reason; it never reads or writes where it should not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("corral._native", reason="the extension is not built")

from batches import one_sequence
from ops import Array, Model, assert_same_bits

from corral.program.batch import Batch
from corral.program.native import NativeExecutor
from corral.program.trace import attention

pytestmark = pytest.mark.native

VOCAB, BLOCKS, MOST = 20, 6, 64
INT_MAX = 2**31 - 1


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> NativeExecutor:
    x = np.random.default_rng(0).standard_normal((VOCAB, 32))
    model = Model(
        tmp_path_factory.mktemp("step"),
        {"x": x},
        lambda m: attention(m.input(), m.input(), m.input(), 32),
    )
    native = model.native(threads=2, tokens=MOST)
    native.allocate(BLOCKS)
    return native


def ints(*values: Any) -> Array:
    return np.array(values, np.int32)


GOOD = Batch(
    tokens=ints(1, 2, 3, 4, 5),
    positions=ints(31, 32, 0, 1, 2),
    query_start=ints(0, 2, 5),
    context_len=ints(33, 3),
    block_tables=ints([5, 0], [2, 0]),
    logit_rows=ints(1, 4),
)

BAD: list[tuple[str, dict[str, Array]]] = [
    ("a token outside the vocabulary", {"tokens": ints(1, 2, 3, 4, VOCAB)}),
    ("a token outside the vocabulary", {"tokens": ints(-1, 2, 3, 4, 5)}),
    ("a token outside the vocabulary", {"tokens": ints(1, 2, INT_MAX, 4, 5)}),
    ("a token outside the vocabulary", {"tokens": ints(1, 2, -INT_MAX - 1, 4, 5)}),
    ("as many positions as tokens", {"positions": ints(31, 32, 0, 1)}),
    ("as many positions as tokens", {"tokens": ints(1, 2, 3, 4)}),
    ("query_start must span", {"tokens": ints(), "positions": ints()}),
    ("positions must end the context", {"positions": ints(31, 33, 0, 1, 2)}),
    ("positions must end the context", {"positions": ints(31, 32, 1, 2, 3)}),
    ("positions must end the context", {"positions": ints(31, 32, 0, 2, 1)}),
    ("positions must end the context", {"positions": ints(-1, 32, 0, 1, 2)}),
    ("positions must end the context", {"context_len": ints(34, 3)}),
    ("counted in its context", {"context_len": ints(1, 3)}),
    ("counted in its context", {"context_len": ints(33, -3)}),
    ("counted in its context", {"context_len": ints(33, 0)}),
    ("a block table shorter than its context", {"context_len": ints(65, 3)}),
    ("a block table shorter than its context", {"context_len": ints(INT_MAX, 3)}),
    ("a block table shorter than its context", {"block_tables": ints([5], [2])}),
    ("a block outside the pool", {"block_tables": ints([5, BLOCKS], [2, 0])}),
    ("a block outside the pool", {"block_tables": ints([5, 0], [-1, 0])}),
    ("a block outside the pool", {"block_tables": ints([5, INT_MAX], [2, 0])}),
    ("sequence arrays of different lengths", {"block_tables": ints([5, 0])}),
    ("sequence arrays of different lengths", {"context_len": ints(33)}),
    ("sequence arrays of different lengths", {"query_start": ints(0, 5)}),
    ("sequence arrays of different lengths", {"query_start": ints()}),
    ("query_start must span", {"query_start": ints(1, 2, 5)}),
    ("query_start must span", {"query_start": ints(0, 2, 4)}),
    ("query_start must span", {"query_start": ints(0, 2, 6)}),
    ("new tokens", {"query_start": ints(0, 0, 5)}),
    ("positions must end the context", {"query_start": ints(0, 5, 5)}),
    ("new tokens", {"query_start": ints(0, -1, 5)}),
    ("new tokens", {"query_start": ints(0, 7, 5), "context_len": ints(33, 3)}),
    ("new tokens", {"query_start": ints(0, INT_MAX, 5), "context_len": ints(INT_MAX, 3)}),
    ("new tokens", {"query_start": ints(0, -INT_MAX - 1, 5), "context_len": ints(33, INT_MAX)}),
    ("a logit row outside the tokens", {"logit_rows": ints(1, 5)}),
    ("a logit row outside the tokens", {"logit_rows": ints(-1)}),
    ("more logit rows than", {"logit_rows": np.zeros(MOST + 1, np.int32)}),
    ("more tokens than", {"tokens": np.zeros(MOST + 1, np.int32)}),
]


@pytest.mark.parametrize(("message", "change"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_refused(executor: NativeExecutor, message: str, change: dict[str, Array]) -> None:
    before = executor.step(GOOD).copy()
    with pytest.raises(ValueError, match=message):
        executor.step(dataclasses.replace(GOOD, **change))
    assert_same_bits(executor.step(GOOD).copy(), before)


def test_a_long_span_is_not_read(executor: NativeExecutor) -> None:
    """The first span goes beyond the tokens, and the context and the table agree with it."""
    wide = np.zeros((2, 40_000), np.int32)
    change = {"query_start": ints(0, 1_000_000, 5), "context_len": ints(1_000_000, 3), "block_tables": wide}
    with pytest.raises(ValueError, match="batch: "):
        executor.step(dataclasses.replace(GOOD, **change))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Batch)])
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.uint32])
def test_another_type_is_no_hidden_copy(executor: NativeExecutor, field: str, dtype: type) -> None:
    """A copy would cost a step its time, and round what is too large."""
    with pytest.raises(TypeError):
        executor.step(dataclasses.replace(GOOD, **{field: getattr(GOOD, field).astype(dtype)}))


def test_nothing_to_do(executor: NativeExecutor) -> None:
    nothing = one_sequence([])
    empty = dataclasses.replace(
        nothing, query_start=ints(0), context_len=ints(), block_tables=np.zeros((0, 1), np.int32)
    )
    assert executor.step(empty).shape == (0, 32)


def test_no_blocks(tmp_path: Path) -> None:
    model = Model(tmp_path, {"x": np.ones((4, 32))}, lambda m: attention(m.input(), m.input(), m.input(), 32))
    native = model.native()
    for _ in range(2):
        with pytest.raises(ValueError, match="a block outside the pool"):
            native.step(one_sequence([0, 1]))
        native.allocate(0)


def test_a_pool_that_is_too_large_leaves_none(tmp_path: Path) -> None:
    model = Model(
        tmp_path, {"x": np.ones((4, 2048))}, lambda m: attention(m.input(), m.input(), m.input(), 32)
    )
    native = model.native()
    native.allocate(4)
    with pytest.raises(MemoryError):
        native.allocate(2**31 - 1)  # of 256 KiB: more than addresses reach
    with pytest.raises(ValueError, match="a block outside the pool"):
        native.step(one_sequence([0, 1], blocks=4))
    native.allocate(4)
    assert np.isfinite(native.step(one_sequence([0, 1], blocks=4))).all()


def test_tables_of_different_lengths(tmp_path: Path) -> None:
    """A token must be in all of them."""
    for first, second in ((4, 9), (9, 4)):
        tables = {"a": np.ones((first, 32)), "b": np.ones((second, 32))}
        native = Model(tmp_path, tables, lambda m: m.input("a") + m.input("b")).native()
        native.allocate(1)
        native.step(one_sequence([3], blocks=1))
        with pytest.raises(ValueError, match="a token outside the vocabulary"):
            native.step(one_sequence([4], blocks=1))
