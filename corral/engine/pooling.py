"""What becomes of the hidden states of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from corral.config import EngineConfig
from corral.engine.messages import Pooling
from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.program.batch import Float32

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
"""By their number in `<arch>.pooling_type`."""


def choose(config: EngineConfig, file: GGUFFile, *, encoder: bool) -> Pooling | None:
    """How embeddings are made; None to generate. An encoder can do nothing else. Raises ModelFileError."""
    if not (config.embeddings or config.reranking or encoder):
        return None
    if config.reranking:
        return "rank"
    key = f"{file.architecture}.pooling_type"
    number = file.get(key, int, 0)
    if config.pooling is None and not 0 <= number < len(POOLINGS):
        raise ModelFileError(file.path, key, number, f"0 to {len(POOLINGS) - 1}, or --pooling")
    return config.pooling or POOLINGS[number]


class Pool:
    """Gathers the rows [n, D] of one text as steps compute them, in the order of its tokens.

    The mean is a sum in float64, one token after the other: how the text was cut into steps changes nothing.
    """

    def __init__(self, pooling: Pooling, length: int, *, ranks_first: bool) -> None:
        """length: tokens of the text; ranks_first: a score is that of the first token, not of the last."""
        self._pooling, self._length = pooling, length
        self._first = pooling == "cls" or (pooling == "rank" and ranks_first)
        self._rows: list[Float32] = []
        self._sum: NDArray[np.float64] | None = None

    def wanted(self, start: int, end: int) -> Sequence[int]:
        """Of the tokens [start, end) of the text, those whose rows are needed."""
        if self._pooling in ("none", "mean"):
            return range(start, end)
        at = 0 if self._first else self._length - 1
        return range(at, at + 1) if start <= at < end else ()

    def add(self, rows: Float32) -> None:
        """The rows of the tokens that were wanted."""
        if self._pooling != "mean":
            self._rows.append(rows.copy())  # the next step overwrites them
            return
        if self._sum is None:
            self._sum = np.zeros(rows.shape[1])
        for row in rows:
            self._sum += row

    def result(self) -> Float32:
        """[1, D], or [n, D] without pooling."""
        if self._sum is not None:
            return (self._sum / self._length).astype(np.float32)[None, :]
        return np.concatenate(self._rows)


def softmax(scores: Float32) -> Float32:
    """Over the labels of scores [1, labels]."""
    weights = np.exp(scores.astype(np.float64) - scores.max())
    shares: Float32 = (weights / weights.sum()).astype(np.float32)
    return shares
