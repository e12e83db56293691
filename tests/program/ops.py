"""One-op Programs over files made for the test, run by both executors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType
from corral.gguf.writer import GGUFWriter
from corral.program.batch import Batch
from corral.program.program import Program, Weight
from corral.program.trace import Tensor, Trace


def write_file(path: Path, tensors: dict[str, tuple[NDArray[np.float32], GGMLType]]) -> GGUFFile:
    writer = GGUFWriter(path, "llama")
    for name, (values, kind) in tensors.items():
        writer.add_tensor(name, values.astype(np.float32), kind)
    writer.write()
    return GGUFFile.open(path)


def weight(file: GGUFFile, name: str) -> Weight:
    info = file.tensors[name]
    return Weight(name, info.shape, info.type)


def program(trace: Trace, out: Tensor) -> Program:
    """`out` is a [T, cols] tensor; the Program gives all its rows as logits."""
    from corral.program.trace import take_rows

    return trace.program(take_rows(out))


def one_sequence(tokens: Any, start: int = 0, blocks: int = 64) -> Batch:
    """A batch of one sequence that continues at position `start`; its table is in reverse, to be told from the identity."""
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
