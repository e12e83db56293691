"""What one step computes: the input of every executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

BLOCK_TOKENS = 32
"""B: tokens of a KV block."""


@dataclass(frozen=True)
class Batch:
    """New tokens of several sequences, laid end to end.

    Sequence i owns rows [query_start[i], query_start[i+1]) of `tokens` and `positions`; its positions are
    consecutive and end at context_len[i] - 1. Its token at position p lives in block block_tables[i, p // B],
    at place p % B.
    """

    tokens: Int32  # [T]
    positions: Int32  # [T]
    query_start: Int32  # [sequences + 1]
    context_len: Int32  # [sequences], tokens in the cache after this step
    block_tables: Int32  # [sequences, most blocks of any], padded with 0
    logit_rows: Int32  # [S], rows of `tokens` whose logits are wanted, ascending


class Executor(Protocol):
    """Runs a Program. It owns the weights, the KV cache and the buffers."""

    vocab_size: int

    def allocate(self, num_blocks: int) -> None:
        """Make room for `num_blocks` KV blocks, forgetting what was cached."""

    def step(self, batch: Batch) -> Float32:
        """Compute the batch; returns logits [S, V], valid until the next step."""

    def close(self) -> None:
        """Free threads and memory."""
