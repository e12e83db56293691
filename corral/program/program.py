"""The Program: one forward pass as a flat list of ops over numbered buffers.

A model file is run once with symbolic tensors (`trace.py`); what it did is recorded here and read by the
executors. `T`, the new tokens of a step, and `S`, the sequences that need logits, stay open: a buffer is [T,
cols] or [S, cols] of float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType

Rows = Literal["T", "S"]
Activation = Literal["silu", "gelu"]
IndexedBy = Literal["token", "position", "nothing"]


@dataclass(frozen=True)
class Buffer:
    """Float32 [rows, cols]."""

    rows: Rows
    cols: int


@dataclass(frozen=True)
class Weight:
    """A tensor of the model file, [N rows, K columns] or a vector [K], or some rows of one."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    first: int = 0
    """The tensor's row, or number of a vector, that is the first here."""

    def data(self, file: GGUFFile) -> NDArray[np.uint8]:
        """Its bytes: uint8 [nbytes], a view of the file."""
        start = self.type.nbytes(self.first * math.prod(self.shape[1:]))
        return file.data(self.name)[start : start + self.type.nbytes(math.prod(self.shape))]


@dataclass(frozen=True)
class KVLayer:
    """What one attention layer keeps of a token: `kv_heads` keys and values of `head_dim` numbers."""

    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class Op:
    """Base of all ops. Buffers are ids into `Program.buffers`, weights ids into `Program.weights`."""

    @property
    def reads(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def writes(self) -> tuple[int, ...]:
        raise NotImplementedError


@dataclass(frozen=True)
class OneOutput(Op):
    """An op that writes one buffer."""

    out: int

    @property
    def writes(self) -> tuple[int, ...]:
        return (self.out,)


@dataclass(frozen=True)
class Embed(OneOutput):
    """out[t] = weight[tokens[t]] * scale; or the row of its position, or always row 0."""

    weight: int
    scale: float = 1.0
    by: IndexedBy = "token"

    @property
    def reads(self) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True)
class RMSNorm(OneOutput):
    """Each run of `len(weight)` columns is divided by its root mean square and multiplied by the weight.

    `len(weight) == cols` is the usual norm, `len(weight) == Dh` the norm of each head.
    """

    x: int
    weight: int
    eps: float

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.x,)


@dataclass(frozen=True)
class LayerNorm(OneOutput):
    """out = (x - mean) / sqrt(variance + eps) * weight + bias, over all columns (arXiv:1607.06450)."""

    x: int
    weight: int
    bias: int | None
    eps: float

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.x,)


@dataclass(frozen=True)
class Linear(Op):
    """outs[i] = x @ weights[i].T + biases[i]; several weights that share an input are one op."""

    outs: tuple[int, ...]
    x: int
    weights: tuple[int, ...]
    biases: tuple[int | None, ...]

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.x,)

    @property
    def writes(self) -> tuple[int, ...]:
        return self.outs


@dataclass(frozen=True, eq=False)
class RopeTable(OneOutput):
    """out[t] = cos(positions[t] * inv_freq) | sin(positions[t] * inv_freq), both times `magnitude`.

    inv_freq: float64 [n_rot / 2]; out has n_rot columns. The angle is taken in float64.
    """

    inv_freq: NDArray[np.float64]
    magnitude: float = 1.0

    @property
    def reads(self) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True)
class Rope(OneOutput):
    """Rotate the first n_rot numbers of each head by the table's angles; the rest pass through.

    interleaved: pairs are (2i, 2i+1) as in the llama GGUF files; otherwise (i, i + n_rot/2) as in NeoX.
    """

    x: int
    table: int
    head_dim: int
    interleaved: bool

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.x, self.table)


@dataclass(frozen=True)
class Attention(OneOutput):
    """Store k and v of the new tokens in the cache of `layer`, then out = softmax(scale * q k^T + mask) v,
    causal, per head.

    q, out: [T, heads * head_dim]; k, v: [T, kv_heads * head_dim]. window > 0: a token sees itself and the
    window - 1 tokens before it. softcap > 0: scores become softcap * tanh(scores / softcap).

    Not causal: a token sees all that the cache holds of its sequence, so the step must have the whole of it.
    slopes, one for each head: a score is less by slope * distance (ALiBi, arXiv:2108.12409).
    """

    q: int
    k: int
    v: int
    layer: int
    heads: int
    scale: float
    window: int = 0
    softcap: float = 0.0
    causal: bool = True
    slopes: tuple[float, ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.q, self.k, self.v)


@dataclass(frozen=True)
class Add(OneOutput):
    """out = a + b"""

    a: int
    b: int

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.a, self.b)


@dataclass(frozen=True)
class GLU(OneOutput):
    """out = act(gate) * up; gelu is the tanh form."""

    gate: int
    up: int
    act: Activation

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.gate, self.up)


@dataclass(frozen=True)
class Activate(OneOutput):
    """out = act(x); gelu is the tanh form."""

    x: int
    act: Activation

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.x,)


@dataclass(frozen=True)
class SoftCap(OneOutput):
    """out = cap * tanh(x / cap)"""

    x: int
    cap: float

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.x,)


@dataclass(frozen=True)
class Scale(OneOutput):
    """out = x * factor"""

    x: int
    factor: float

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.x,)


@dataclass(frozen=True)
class TakeRows(OneOutput):
    """out[s] = x[logit_rows[s]]: from [T, cols] to [S, cols]."""

    x: int

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.x,)


@dataclass(frozen=True)
class Program:
    """A traced model. `logits` is the [S, V] buffer the last op writes.

    Where embeddings are wanted it has hidden states [S, D] instead, or scores (`outputs.py`).
    """

    ops: tuple[Op, ...]
    buffers: tuple[Buffer, ...]
    weights: tuple[Weight, ...]
    kv_layers: tuple[KVLayer, ...]
    logits: int

    @property
    def vocab_size(self) -> int:
        """Tokens there are."""
        return next(
            self.weights[op.weight].shape[0] for op in self.ops if isinstance(op, Embed) and op.by == "token"
        )

    @property
    def width(self) -> int:
        """Columns of the result."""
        return self.buffers[self.logits].cols

    @property
    def whole(self) -> bool:
        """Whether a sequence must be computed in one step: a token sees the ones after it."""
        return any(isinstance(op, Attention) and not op.causal for op in self.ops)

    def last_reads(self) -> dict[int, int]:
        """Buffer id -> index of the last op that reads it; the logits live past the end."""
        last = {b: i for i, op in enumerate(self.ops) for b in op.writes}
        last.update({b: i for i, op in enumerate(self.ops) for b in op.reads})
        last[self.logits] = len(self.ops)
        return last

    def check(self) -> None:
        """Every buffer is written once, before it is read; attention layers are numbered in order."""
        written: set[int] = set()
        for op in self.ops:
            assert all(b in written for b in op.reads), f"{op} reads a buffer nothing wrote"
            assert not any(b in written for b in op.writes), f"{op} writes a buffer twice"
            written.update(op.writes)
        assert self.logits in written, "nothing writes the logits"
        layers = [op.layer for op in self.ops if isinstance(op, Attention)]
        assert layers == list(range(len(self.kv_layers))), f"attention layers are {layers}"

    def lines(self) -> Iterator[str]:
        """A listing, one op a line."""
        for i, op in enumerate(self.ops):
            outs = ", ".join(f"%{b}[{self.buffers[b].rows},{self.buffers[b].cols}]" for b in op.writes)
            ins = ", ".join(f"%{b}" for b in op.reads)
            yield f"{i:4d}  {outs} = {type(op).__name__}({ins})"
