"""An executor whose logits are a hash of a sequence's tokens, as it finds them in its KV cache.

It keeps tokens where a real one keeps keys and values, and reads them back through the block tables: wrong
block tables, wrong positions or a cache that was not recomputed change the output.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from corral.engine.draft import DraftParams
from corral.engine.engine import Engine
from corral.engine.messages import Output, Ready, Submit
from corral.engine.output import TextTables
from corral.engine.scheduler import Limits
from corral.program.batch import BLOCK_TOKENS, Batch

VOCAB = 64
EOS = 63
CONTROL = 62
NOWHERE = -1

LETTERS = [bytes([97 + i % 26]) * (1 + i // 26) for i in range(62)]
TABLES = TextTables(
    text=[*LETTERS, b"", b""], special=[*LETTERS, b"<control>", b"<eos>"], eog=frozenset({EOS})
)


READY = Ready(
    n_ctx=1024,
    kv_tokens=2048,
    parallel=4,
    threads=1,
    isa="scalar",
    executor="fake",
    weights_bytes=0,
    kv_bytes=0,
    load_ms=0,
)


class FakeExecutor:
    """`edit(logits, history)` may change a row, or raise, before it is returned."""

    def __init__(self, edit: Callable[[NDArray[np.float32], list[int]], None] | None = None) -> None:
        self.vocab_size = VOCAB
        self.steps: list[Batch] = []
        self._edit = edit
        self._cache = np.empty((0, BLOCK_TOKENS), np.int32)

    def allocate(self, num_blocks: int) -> None:
        self._cache = np.full((num_blocks, BLOCK_TOKENS), NOWHERE, np.int32)

    def step(self, batch: Batch) -> NDArray[np.float32]:
        self._check(batch)
        self.steps.append(batch)
        rows = []
        for i, (start, end) in enumerate(zip(batch.query_start, batch.query_start[1:], strict=False)):
            positions = batch.positions[start:end]
            blocks = batch.block_tables[i, positions // BLOCK_TOKENS]
            self._cache[blocks, positions % BLOCK_TOKENS] = batch.tokens[start:end]
            rows += [self._logits(batch, i, row) for row in batch.logit_rows if start <= row < end]
        return np.array(rows, np.float32).reshape(len(rows), VOCAB)

    def read_block(self, block: int) -> bytes:
        return self._cache[block].tobytes()

    def write_block(self, block: int, data: bytes) -> None:
        self._cache[block] = np.frombuffer(data, np.int32)

    def close(self) -> None:
        pass

    def _logits(self, batch: Batch, i: int, row: int) -> NDArray[np.float32]:
        places = np.arange(batch.positions[row] + 1)
        history = self._cache[batch.block_tables[i, places // BLOCK_TOKENS], places % BLOCK_TOKENS]
        assert NOWHERE not in history, "a token is read that was never computed"
        logits = (
            np.random.default_rng(zlib.crc32(history.tobytes())).standard_normal(VOCAB).astype(np.float32)
        )
        logits[EOS] -= 3  # sequences of some length
        if self._edit:
            self._edit(logits, history.tolist())
        return logits

    def _check(self, batch: Batch) -> None:
        arrays = vars(batch).values()
        assert all(array.dtype == np.int32 and array.flags.c_contiguous for array in arrays)
        counts = np.diff(batch.query_start)
        assert batch.query_start[0] == 0
        assert batch.query_start[-1] == len(batch.tokens) == len(batch.positions)
        assert (counts > 0).all()
        assert len(counts) == len(batch.context_len) == len(batch.block_tables)
        for i, (start, end) in enumerate(zip(batch.query_start, batch.query_start[1:], strict=False)):
            context = batch.context_len[i]
            assert batch.positions[start:end].tolist() == list(range(context - (end - start), context))
        assert (np.diff(batch.logit_rows) > 0).all()


class Clock:
    """Advances by `tick` seconds each time it is read."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now = 0.0
        self.tick = tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def limits(**changes: float) -> Limits:
    return Limits(**{"n_ctx": 1024, "num_blocks": 64, "parallel": 4, **changes})  # type: ignore[arg-type]


def build_engine(
    executor: FakeExecutor | None = None, draft: DraftParams | None = None, **changes: float
) -> Engine:
    return Engine(executor or FakeExecutor(), TABLES, limits(**changes), draft=draft)


def prompt(length: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng((seed, length)).integers(0, CONTROL, length)]


def run(
    engine: Engine, submits: list[Submit] | None = None, most_steps: int = 20_000
) -> dict[str, list[Output]]:
    """Run until idle, checking the invariants after every step; the outputs of each request, in order."""
    outputs: dict[str, list[Output]] = {}

    def gather(new: list[Output]) -> None:
        engine.check()
        for output in new:
            outputs.setdefault(output.id, []).append(output)

    for submit in submits or []:
        gather(engine.submit(submit))
    for _ in range(most_steps):
        if not engine.has_work:
            break
        gather(engine.step())
    assert not engine.has_work, f"not done after {most_steps} steps"
    for id, ones in outputs.items():
        ends = [output.finish_reason for output in ones]
        assert [end is None for end in ends] == [True] * (len(ends) - 1) + [False], f"{id}: {ends}"
    return outputs


def tokens_of(outputs: list[Output]) -> list[int]:
    return [token for output in outputs for token in output.tokens]


def text_of(outputs: list[Output]) -> str:
    return "".join(output.text for output in outputs)
