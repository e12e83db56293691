"""The numpy executor: the specification of every op, obvious and slow.

Two uses. With `quantize_activations` it rounds the input of every linear to int8 as the native kernels do,
and the two agree to float32 rounding. Without, it is the model itself, computed from the dequantized weights
in float64: what quality is measured against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corral.gguf.quants import dequantize
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType
from corral.program import program as p
from corral.program.batch import BLOCK_TOKENS, Batch
from corral.program.kv_cache import CacheType, CacheTypes, kept, kv_bytes_per_block

Float = NDArray[Any]

FLOAT_TYPES = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
ACTIVATION_GROUP = 32
"""Numbers of an activation row that share one int8 scale; a variant of the kernels may have more."""
LEAST_ACTIVATION = np.float32(1e-30)


def rms_norm(x: Float, weight: Float, eps: float) -> Float:
    """x [rows, cols], normalised over runs of len(weight)."""
    runs = x.reshape(len(x), -1, len(weight))
    mean_square = np.mean(np.square(runs), axis=-1, keepdims=True)
    normalised: Float = runs / np.sqrt(mean_square + eps) * weight
    return normalised.reshape(x.shape)


def layer_norm(x: Float, weight: Float, bias: Float | None, eps: float) -> Float:
    """x [rows, cols] without its mean, over the root of its variance."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(np.square(centred), axis=-1, keepdims=True)
    normalised: Float = centred / np.sqrt(variance + eps) * weight
    return normalised if bias is None else normalised + bias


def round_activations(x: Float, group: int = ACTIVATION_GROUP) -> Float:
    """x [rows, cols] as int8 groups hold it: q * d, d = max|x| / 127 of the group, q rounded half to even.

    A group without a number of LEAST_ACTIVATION is zero: 1 / d must stay finite.
    """
    groups = x.astype(np.float32).reshape(len(x), -1, group)
    largest = np.abs(groups).max(axis=-1, keepdims=True)
    scale = np.where(largest < LEAST_ACTIVATION, np.float32(0), largest / np.float32(127))
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    rounded: Float = np.rint(groups * inverse) * scale
    return rounded.reshape(x.shape)


def rope_table(positions: Float, inv_freq: Float, magnitude: float) -> Float:
    """[T, 2 * len(inv_freq)]: cosines, then sines."""
    angles = positions.astype(np.float64)[:, None] * inv_freq[None, :]
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * magnitude


def rope(x: Float, table: Float, head_dim: int, interleaved: bool) -> Float:
    """Rotate pairs of each head of x [T, heads * head_dim]."""
    out = x.reshape(len(x), -1, head_dim).copy()
    half = table.shape[1] // 2
    cos, sin = table[:, None, :half], table[:, None, half:]
    first, second = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2))
        if interleaved
        else (slice(0, half), slice(half, 2 * half))
    )
    a, b = out[..., first].copy(), out[..., second].copy()
    out[..., first] = a * cos - b * sin
    out[..., second] = a * sin + b * cos
    return out.reshape(x.shape)


def attention(op: p.Attention, q: Float, k: Float, v: Float, start: int) -> Float:
    """q [n, H, Dh] at positions start.., k and v [context, Hkv, Dh] -> [n, H, Dh]; see `Attention`."""
    n, heads, _ = q.shape
    group = heads // k.shape[1]
    positions = start + np.arange(n)[:, None]
    keys = np.arange(len(k))[None, :]
    seen = (keys <= positions) | (not op.causal)
    if op.window:
        seen &= keys > positions - op.window
    out = np.empty_like(q)
    for h in range(heads):
        scores = (q[:, h] @ k[:, h // group].T) * op.scale
        if op.softcap:
            scores = op.softcap * np.tanh(scores / op.softcap)
        if op.slopes:
            scores = scores - (op.slopes[h] * np.abs(keys - positions)).astype(q.dtype)
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, h] = weights / weights.sum(axis=1, keepdims=True) @ v[:, h // group]
    return out


def silu(x: Float) -> Float:
    """x sigmoid(x)"""
    with np.errstate(over="ignore"):  # to infinity: the quotient is 0
        product: Float = x / (1 + np.exp(-x))
    return product


def gelu(x: Float) -> Float:
    """The tanh form, 0.5 x (1 + tanh(y)), as x sigmoid(2 y): far below zero 1 + tanh(y) has no digits."""
    y = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    with np.errstate(over="ignore"):
        product: Float = x / (1 + np.exp(-2 * y))
    return product


ACTIVATIONS = {"silu": silu, "gelu": gelu}


class ReferenceExecutor:
    """Runs a Program op by op. `dtype` is float32, or float64 for quality measurements.

    `activation_groups` are those of a variant of the kernels, to be its twin: see `native.formats`.
    """

    name = "reference"
    isa = "numpy"

    def __init__(
        self,
        program: p.Program,
        file: GGUFFile,
        *,
        quantize_activations: bool = True,
        activation_groups: Mapping[GGMLType, int] = MappingProxyType({}),
        dtype: type[np.floating[Any]] = np.float32,
        cache_types: CacheTypes = CacheTypes(),  # noqa: B008  (immutable)
    ) -> None:
        self.program, self.dtype, self.quantize = program, dtype, quantize_activations
        self.activation_groups = activation_groups
        self.vocab_size = program.vocab_size
        self.weights: list[Float] = [
            dequantize(w.data(file), w.type, w.shape).astype(dtype) for w in program.weights
        ]
        self.weights_bytes = sum(w.nbytes for w in self.weights)
        self.cache_types = cache_types
        self.kv_bytes_per_block = kv_bytes_per_block(program, cache_types)
        self.cache: list[tuple[Float, Float]] = []

    def allocate(self, num_blocks: int) -> None:
        """See Executor."""
        shapes = [(num_blocks, BLOCK_TOKENS, la.kv_heads, la.head_dim) for la in self.program.kv_layers]
        self.cache = [(np.zeros(shape, self.dtype), np.zeros(shape, self.dtype)) for shape in shapes]

    def read_block(self, block: int) -> bytes:
        """See NativeExecutor; each executor reads its own only."""
        return b"".join(part[block].tobytes() for layer in self.cache for part in layer)

    def write_block(self, block: int, data: bytes) -> None:
        parts = [part[block] for layer in self.cache for part in layer]
        ends = np.cumsum([0, *(part.nbytes for part in parts)])
        assert len(data) == ends[-1], f"{len(data)} bytes, expected {ends[-1]}"
        for part, start in zip(parts, ends, strict=False):
            part[:] = np.frombuffer(data, self.dtype, part.size, start).reshape(part.shape)

    def step(self, batch: Batch) -> NDArray[np.float32]:
        values: dict[int, Float] = {}
        last = self.program.last_reads()
        for i, op in enumerate(self.program.ops):
            self._run(op, values, batch)
            for b in op.reads:
                if last[b] == i:
                    values.pop(b, None)
        return values[self.program.logits].astype(np.float32)

    def close(self) -> None:
        self.weights, self.cache = [], []

    def _run(self, op: p.Op, values: dict[int, Float], batch: Batch) -> None:
        match op:
            case p.Embed():
                index = {"token": batch.tokens, "position": batch.positions, "nothing": 0 * batch.tokens}
                values[op.out] = self.weights[op.weight][index[op.by]] * self.dtype(op.scale)
            case p.RMSNorm():
                values[op.out] = rms_norm(values[op.x], self.weights[op.weight], op.eps)
            case p.LayerNorm():
                bias = None if op.bias is None else self.weights[op.bias]
                values[op.out] = layer_norm(values[op.x], self.weights[op.weight], bias, op.eps)
            case p.Linear():
                for out, w, b in zip(op.outs, op.weights, op.biases, strict=True):
                    values[out] = self._linear(values[op.x], w, b)
            case p.RopeTable():
                table = rope_table(batch.positions, op.inv_freq, op.magnitude)
                values[op.out] = table.astype(self.dtype)
            case p.Rope():
                values[op.out] = rope(values[op.x], values[op.table], op.head_dim, op.interleaved)
            case p.Attention():
                values[op.out] = self._attention(op, values, batch)
            case p.Add():
                values[op.out] = values[op.a] + values[op.b]
            case p.Scale():
                values[op.out] = values[op.x] * self.dtype(op.factor)
            case p.GLU():
                values[op.out] = ACTIVATIONS[op.act](values[op.gate]) * values[op.up]
            case p.Activate():
                values[op.out] = ACTIVATIONS[op.act](values[op.x])
            case p.SoftCap():
                values[op.out] = op.cap * np.tanh(values[op.x] / op.cap)
            case p.TakeRows():
                values[op.out] = values[op.x][batch.logit_rows]
            case _:
                raise NotImplementedError(type(op).__name__)

    def _linear(self, x: Float, weight: int, bias: int | None) -> Float:
        kind = self.program.weights[weight].type
        if self.quantize and kind not in FLOAT_TYPES:
            group = self.activation_groups.get(kind, ACTIVATION_GROUP)
            x = round_activations(x, group).astype(self.dtype)
        out = x @ self.weights[weight].T
        return out if bias is None else out + self.weights[bias]

    def _attention(self, op: p.Attention, values: dict[int, Float], batch: Batch) -> Float:
        layer = self.program.kv_layers[op.layer]
        keys, vals = self.cache[op.layer]
        q = values[op.q].reshape(-1, op.heads, layer.head_dim)
        new_k, new_v = (values[b].reshape(-1, layer.kv_heads, layer.head_dim) for b in (op.k, op.v))
        out = np.empty_like(q)
        for i, context in enumerate(batch.context_len):
            rows = slice(batch.query_start[i], batch.query_start[i + 1])
            positions = batch.positions[rows]
            table = batch.block_tables[i]
            blocks, places = table[positions // BLOCK_TOKENS], positions % BLOCK_TOKENS
            keys[blocks, places] = self._kept(new_k[rows], self.cache_types.keys)
            vals[blocks, places] = self._kept(new_v[rows], self.cache_types.values)
            used = table[: -(-context // BLOCK_TOKENS)]
            k, v = (c[used].reshape(-1, layer.kv_heads, layer.head_dim)[:context] for c in (keys, vals))
            out[rows] = attention(op, q[rows], k, v, int(context) - len(positions))
        return out.reshape(len(out), -1)

    def _kept(self, x: Float, type: CacheType) -> Float:
        """x as the cache keeps it; in float64, which is the model itself, as it is."""
        return x if self.dtype is np.float64 else kept(x, type)
