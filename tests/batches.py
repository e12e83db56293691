"""Steps for executors: batches, and schedules that compute the same tokens in different company."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corral.program.batch import BLOCK_TOKENS, Batch, Executor, Float32

Step = list[tuple[int, int]]
"""(index of a sequence, how many of its tokens come next), in the order of the batch."""


def one_sequence(tokens: Any, start: int = 0, blocks: int = 64) -> Batch:
    """One sequence that continues at `start`; its table is in reverse, to be told from the identity."""
    ids = np.asarray(tokens, np.int32)
    n = len(ids)
    return Batch(
        tokens=ids,
        positions=np.arange(start, start + n, dtype=np.int32),
        query_start=np.array([0, n], np.int32),
        context_len=np.array([start + n], np.int32),
        block_tables=np.arange(blocks, dtype=np.int32)[None, ::-1].copy(),
        logit_rows=np.arange(n, dtype=np.int32),
    )


def logits_of(executor: Executor, tokens: Any) -> Float32:
    """Logits [n, V] of every token of one sequence, computed in one step."""
    batch = one_sequence(tokens)
    executor.allocate(batch.block_tables.size)
    return executor.step(batch).copy()


def alone(lengths: Sequence[int]) -> Iterator[Step]:
    """Each sequence by itself, in one step."""
    for i, length in enumerate(lengths):
        yield [(i, length)]


def together(lengths: Sequence[int], chunk: int) -> Iterator[Step]:
    """Every step takes up to `chunk` tokens of every sequence, in an order that changes."""
    done = [0] * len(lengths)
    for number in range(-(-max(lengths) // chunk)):
        order = np.random.default_rng(number).permutation(len(lengths))
        step = [(int(i), min(chunk, lengths[i] - done[i])) for i in order if done[i] < lengths[i]]
        for i, count in step:
            done[i] += count
        yield step


def play(
    executor: Executor, sequences: Sequence[Sequence[int]], steps: Iterator[Step], seed: int = 0
) -> list[Float32]:
    """Logits [n, V] of every token of every sequence. Their blocks lie scattered over the pool."""
    widest = max(-(-len(tokens) // BLOCK_TOKENS) for tokens in sequences)
    pool = np.random.default_rng(seed).permutation(widest * len(sequences) + 3).astype(np.int32)
    tables = pool[: widest * len(sequences)].reshape(len(sequences), widest)
    executor.allocate(len(pool))
    found: list[list[NDArray[np.float32]]] = [[] for _ in sequences]
    done = [0] * len(sequences)
    for step in steps:
        spans = [(done[i], done[i] + count) for i, count in step]
        starts = np.cumsum([0, *(count for _, count in step)])
        logits = executor.step(
            Batch(
                tokens=_joined(
                    [np.asarray(sequences[i])[a:b] for (i, _), (a, b) in zip(step, spans, strict=True)]
                ),
                positions=_joined([np.arange(a, b) for a, b in spans]),
                query_start=starts.astype(np.int32),
                context_len=np.array([b for _, b in spans], np.int32),
                block_tables=np.ascontiguousarray(tables[[i for i, _ in step]]),
                logit_rows=np.arange(starts[-1], dtype=np.int32),
            )
        ).copy()
        for place, (i, count) in enumerate(step):
            found[i].append(logits[starts[place] : starts[place + 1]])
            done[i] += count
    return [np.concatenate(parts) for parts in found]


def _joined(parts: list[NDArray[Any]]) -> NDArray[np.int32]:
    return np.concatenate(parts).astype(np.int32)
