"""Symbolic tensors: running a model's `forward` on them records a Program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from corral.program import program as p


class ShapeMismatch(Exception):
    """The tensors of a model file don't fit together."""


def fits(condition: bool, message: str) -> None:
    if not condition:
        raise ShapeMismatch(message)


@dataclass(frozen=True)
class Tensor:
    """A float32 value of [rows, cols] that a step will compute; `trace` is where it was recorded."""

    trace: Trace = field(repr=False)
    id: int
    rows: p.Rows
    cols: int

    def __add__(self, other: Tensor) -> Tensor:
        fits((self.rows, self.cols) == (other.rows, other.cols), f"can't add {self} and {other}")
        out = self.trace.buffer(self.rows, self.cols)
        self.trace.ops.append(p.Add(out.id, self.id, other.id))
        return out

    def __mul__(self, factor: float) -> Tensor:
        out = self.trace.buffer(self.rows, self.cols)
        self.trace.ops.append(p.Scale(out.id, self.id, factor))
        return out


class Trace:
    """The recording: buffers, ops and weights in the order they were used."""

    def __init__(self) -> None:
        self.ops: list[p.Op] = []
        self.buffers: list[p.Buffer] = []
        self.weights: dict[p.Weight, int] = {}
        self.weight_list: list[p.Weight] = []
        self.kv_layers: list[p.KVLayer] = []

    def buffer(self, rows: p.Rows, cols: int) -> Tensor:
        self.buffers.append(p.Buffer(rows, cols))
        return Tensor(self, len(self.buffers) - 1, rows, cols)

    def weight(self, weight: p.Weight) -> int:
        """Its id; a tied weight has one id."""
        if weight not in self.weights:
            self.weights[weight] = len(self.weight_list)
            self.weight_list.append(weight)
        return self.weights[weight]

    def program(self, logits: Tensor) -> p.Program:
        fits(logits.rows == "S", "logits must come after take_rows")
        program = p.Program(
            tuple(self.ops), tuple(self.buffers), tuple(self.weight_list), tuple(self.kv_layers), logits.id
        )
        program.check()
        return program


def embed(trace: Trace, weight: p.Weight, scale: float = 1.0, by: p.IndexedBy = "token") -> Tensor:
    """The rows of `weight` [V, D] for the step's tokens (or positions), times `scale`: [T, D]."""
    out = trace.buffer("T", weight.shape[1])
    trace.ops.append(p.Embed(out.id, trace.weight(weight), scale, by))
    return out


def rms_norm(x: Tensor, weight: p.Weight, eps: float, head_dim: int | None = None) -> Tensor:
    """See `RMSNorm`: over all columns, or over each head of `head_dim` numbers."""
    run = x.cols if head_dim is None else head_dim
    fits(x.cols % run == 0, f"{x.cols} columns are not heads of {run}")
    fits(weight.shape == (run,), f"{weight.name} is {list(weight.shape)}, to norm {run} numbers")
    out = x.trace.buffer(x.rows, x.cols)
    x.trace.ops.append(p.RMSNorm(out.id, x.id, x.trace.weight(weight), eps))
    return out


def layer_norm(x: Tensor, weight: p.Weight, bias: p.Weight | None, eps: float) -> Tensor:
    """See `LayerNorm`."""
    for vector in (weight, bias) if bias else (weight,):
        fits(vector.shape == (x.cols,), f"{vector.name} is {list(vector.shape)}, to norm {x.cols} numbers")
    out = x.trace.buffer(x.rows, x.cols)
    b = x.trace.weight(bias) if bias else None
    x.trace.ops.append(p.LayerNorm(out.id, x.id, x.trace.weight(weight), b, eps))
    return out


def linear(x: Tensor, weight: p.Weight, bias: p.Weight | None = None) -> Tensor:
    """x [rows, I] @ weight [O, I].T + bias [O]"""
    rows, cols = weight.shape
    fits(x.cols == cols, f"{weight.name} takes {cols} columns, got {x.cols}")
    if bias:
        fits(bias.shape == (rows,), f"{bias.name} is {list(bias.shape)}, for {rows} rows")
    out = x.trace.buffer(x.rows, rows)
    b = x.trace.weight(bias) if bias else None
    x.trace.ops.append(p.Linear((out.id,), x.id, (x.trace.weight(weight),), (b,)))
    return out


def rope_table(
    trace: Trace, inv_freq: Sequence[float] | NDArray[np.float64], magnitude: float = 1.0
) -> Tensor:
    """cos and sin of the step's positions: [T, 2 * len(inv_freq)]."""
    frequencies = np.asarray(inv_freq, np.float64)
    out = trace.buffer("T", 2 * len(frequencies))
    trace.ops.append(p.RopeTable(out.id, frequencies, magnitude))
    return out


def rope(x: Tensor, table: Tensor, head_dim: int, *, interleaved: bool) -> Tensor:
    """Rotary position embedding of every head of x [T, heads * head_dim]."""
    fits(x.cols % head_dim == 0, f"{x.cols} columns are not heads of {head_dim}")
    fits(table.cols <= head_dim, f"a rotation of {table.cols} numbers in a head of {head_dim}")
    out = x.trace.buffer(x.rows, x.cols)
    x.trace.ops.append(p.Rope(out.id, x.id, table.id, head_dim, interleaved))
    return out


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    head_dim: int,
    *,
    scale: float | None = None,
    window: int = 0,
    softcap: float = 0.0,
    causal: bool = True,
    slopes: Sequence[float] = (),
) -> Tensor:
    """Attention through the paged cache; each call is one more layer of the cache. See `Attention`."""
    fits(q.cols % head_dim == 0, f"{q.cols} columns of queries are not heads of {head_dim}")
    fits(k.cols % head_dim == 0, f"{k.cols} columns of keys are not heads of {head_dim}")
    fits(k.cols == v.cols, f"keys have {k.cols} columns, values {v.cols}")
    trace, heads, kv_heads = q.trace, q.cols // head_dim, k.cols // head_dim
    fits(heads % kv_heads == 0, f"{heads} heads can't share {kv_heads} key heads evenly")
    fits(len(slopes) in (0, heads), f"{len(slopes)} slopes for {heads} heads")
    assert causal or not window, "a window on both sides"
    trace.kv_layers.append(p.KVLayer(kv_heads, head_dim))
    out = trace.buffer(q.rows, q.cols)
    factor = 1 / math.sqrt(head_dim) if scale is None else scale
    layer = len(trace.kv_layers) - 1
    trace.ops.append(
        p.Attention(out.id, q.id, k.id, v.id, layer, heads, factor, window, softcap, causal, tuple(slopes))
    )
    return out


def alibi_slopes(heads: int, most: float = 8.0) -> list[float]:
    """arXiv:2108.12409: 2^(-most / n) and its powers for n heads, n the largest power of two that there are;
    heads beyond take the odd powers of the series for 2 n."""
    n = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-most * (i + 1) / n) for i in range(n)]
    return slopes + [2 ** (-most * (2 * i + 1) / (2 * n)) for i in range(heads - n)]


def glu(gate: Tensor, up: Tensor, act: p.Activation) -> Tensor:
    """act(gate) * up"""
    fits(gate.cols == up.cols, f"gate has {gate.cols} columns, up {up.cols}")
    out = gate.trace.buffer(gate.rows, gate.cols)
    gate.trace.ops.append(p.GLU(out.id, gate.id, up.id, act))
    return out


def activate(x: Tensor, act: p.Activation) -> Tensor:
    """act(x)"""
    out = x.trace.buffer(x.rows, x.cols)
    x.trace.ops.append(p.Activate(out.id, x.id, act))
    return out


def softcap(x: Tensor, cap: float) -> Tensor:
    """cap * tanh(x / cap)"""
    out = x.trace.buffer(x.rows, x.cols)
    x.trace.ops.append(p.SoftCap(out.id, x.id, cap))
    return out


def take_rows(x: Tensor) -> Tensor:
    """Only the rows whose logits are wanted: [T, cols] -> [S, cols]."""
    out = x.trace.buffer("S", x.cols)
    x.trace.ops.append(p.TakeRows(out.id, x.id))
    return out
