"""The native executor: a Program turned, at load, into the calls that build its C++ twin (`csrc/program.h`).

What is decided here: which ops run row by row and which need all threads, where activations are quantized,
and which buffers share memory. A step is then one call without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from corral import _native
from corral.errors import ModelFileError, OptionError
from corral.gguf.quants import dequantize
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType
from corral.program import program as p
from corral.program.batch import BLOCK_TOKENS, Batch
from corral.program.fuse import fuse
from corral.program.kv_cache import CacheTypes, kv_bytes_per_block
from corral.program.pack_cache import PackCache, digest

Progress = Callable[[float], None]

ROW_GROUP = 16
"""Rows that are packed together."""
PACKED_AT_ONCE = 16 << 20
"""Bytes of the file that are in memory while weights are packed."""


def formats(isa: str = "auto") -> dict[GGMLType, int]:
    """The tensor types there are kernels for, and how many int8 activations share a scale; 0: floats.

    The tables of kernels and of the file format are compared first: a difference would misread every weight.
    """
    found = {}
    for type, weights, size, group, packed in _native.formats(isa):
        kind = GGMLType(type)
        layout = kind.block_size, kind.block_bytes, kind.packed_bytes
        assert layout == (weights, size, packed), f"{kind.name}: layouts differ"
        found[kind] = group
    return found


def isas() -> list[str]:
    """Names of the ISA variants this CPU can run, best first."""
    return list(_native.isas())


def check_isa(isa: str) -> None:
    """Raises OptionError if this CPU can't run a variant, or there is none of that name."""
    if isa not in ("auto", *isas()):
        raise OptionError(f"--isa is {isa}, expected one that this CPU can run: auto, {', '.join(isas())}")


def packed_pattern(kind: GGMLType, isa: str) -> bytes:
    """What a variant packs two blocks and a rest of a format to: it tells layouts apart."""
    rows, cols = ROW_GROUP + 1, max(2 * kind.block_size, 288)
    native = _native.Program(isa, 1)
    matrix = native.add_matrix(int(kind), rows, cols)
    native.allocate_weights()
    size = rows * cols // kind.block_size * kind.block_bytes
    native.pack_rows(matrix, 0, rows, (np.arange(size, dtype=np.uint32) * 2654435761 >> 13).astype(np.uint8))
    return native.packed_weights().tobytes()


class Slots:
    """Buffers whose lifetimes don't overlap share a slot.

    Inside a run of row ops threads are at different rows, and buffers of different widths have their rows at
    different places: a slot given back there is free only after the next meeting of the threads.
    """

    def __init__(self) -> None:
        self.free: dict[str, list[int]] = {"T": [], "S": []}
        self.later: list[tuple[p.Rows, int]] = []
        self.count = 0

    def take(self, rows: p.Rows) -> int:
        if self.free[rows]:
            return self.free[rows].pop()
        self.count += 1
        return self.count - 1

    def give_back(self, rows: p.Rows, slot: int) -> None:
        self.later.append((rows, slot))

    def threads_met(self) -> None:
        for rows, slot in self.later:
            self.free[rows].append(slot)
        self.later.clear()


class NativeExecutor:
    """Runs a Program with the C++ kernels. See `Executor`."""

    name = "native"

    def __init__(
        self,
        program: p.Program,
        file: GGUFFile,
        *,
        threads: int,
        isa: str = "auto",
        max_tokens: int = 512,
        max_logits: int = 64,
        cache_types: CacheTypes = CacheTypes(),  # noqa: B008  (immutable)
        pack_cache: PackCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        """max_tokens, max_logits: the most T and S of a step.

        Raises ModelFileError for a tensor type without a kernel, OptionError for an ISA that can't run here.
        """
        check_isa(isa)
        assert _native.BLOCK_TOKENS == BLOCK_TOKENS
        self.program = fuse(program)
        self.file = file
        self.formats = formats(isa)
        self.cache_types = cache_types
        self.vocab_size = program.vocab_size
        self.native = _native.Program(isa, threads)
        self.isa: str = self.native.isa
        self._check_kernels()
        self._matrices: dict[int, int] = {}
        self._vectors: dict[int, int] = {}
        self._load(progress or (lambda share: None), pack_cache)
        self._emit()
        self.native.finish(self._ids[program.logits], max_tokens, max_logits)
        self.weights_bytes: int = self.native.packed_bytes
        self.buffer_bytes: int = self.native.buffer_bytes
        self.kv_bytes_per_block = kv_bytes_per_block(program, cache_types)
        assert self.native.kv_block_bytes == self.kv_bytes_per_block, "layouts of the KV cache differ"

    def allocate(self, num_blocks: int) -> None:
        self.native.allocate_blocks(num_blocks)

    def read_block(self, block: int) -> bytes:
        """Keys and values of a KV block, of all layers; no step may write it meanwhile."""
        data: bytes = self.native.read_block(block)
        return data

    def write_block(self, block: int, data: bytes) -> None:
        """What `read_block` gave, into a block that no step uses."""
        self.native.write_block(block, np.frombuffer(data, np.uint8))

    def step(self, batch: Batch) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.native.step(
            batch.tokens,
            batch.positions,
            batch.query_start,
            batch.context_len,
            batch.block_tables,
            batch.logit_rows,
        )
        return logits

    def close(self) -> None:
        del self.native

    # loading

    def _matrix_ids(self) -> dict[int, int]:
        """Weight id -> bytes, of every weight that is multiplied with."""
        ids = [w for op in self.program.ops if isinstance(op, p.Linear) for w in op.weights]
        return {w: self.program.weights[w].data(self.file).nbytes for w in dict.fromkeys(ids)}

    def _check_kernels(self) -> None:
        """There is a kernel for every weight and head."""
        for layer in self.program.kv_layers:
            if layer.head_dim > _native.MOST_HEAD_DIM:
                raise ModelFileError(
                    self.file.path, "head size", layer.head_dim, f"at most {_native.MOST_HEAD_DIM}"
                )
        for weight in self.program.weights:
            if len(weight.shape) == 2 and weight.type not in self.formats:
                known = ", ".join(kind.name for kind in self.formats)
                raise ModelFileError(
                    self.file.path, f"type of {weight.name}", weight.type.name, f"one of {known}"
                )

    def _load(self, progress: Progress, cache: PackCache | None) -> None:
        """Pack the weights, or map what an earlier start packed."""
        sizes = self._matrix_ids()
        for w in sizes:
            weight = self.program.weights[w]
            self._matrices[w] = self.native.add_matrix(int(weight.type), *weight.shape)
        if cache is None:
            self._pack(sizes, progress)
            return
        layout = self._layout(sizes)
        packed = cache.find(layout, self.native.packed_bytes)
        if packed is None:
            self._pack(sizes, lambda share: progress(share / 2))
            if not cache.keep(layout, self.native.packed_weights(), lambda share: progress((1 + share) / 2)):
                return
            # as later starts do: other processes then share this memory
            packed = cache.find(layout, self.native.packed_bytes)
        if packed is not None:
            self.native.use_weights(packed)
        progress(1.0)

    def _pack(self, sizes: dict[int, int], progress: Progress) -> None:
        """A piece of a tensor at a time: of the file no more than that stays in memory."""
        self.native.allocate_weights()
        total, done = sum(sizes.values()), 0
        for w, size in sizes.items():
            weight = self.program.weights[w]
            name, rows, row_bytes = weight.name, weight.shape[0], size // weight.shape[0]
            self.file.read_ahead(name)
            data, before = weight.data(self.file), weight.first * row_bytes
            step = max(1, PACKED_AT_ONCE // row_bytes // ROW_GROUP) * ROW_GROUP
            for first in range(0, rows, step):
                start, stop = first * row_bytes, min(first + step, rows) * row_bytes
                self.file.load_pages(name, before + start, before + stop)
                self.native.pack_rows(self._matrices[w], first, (stop - start) // row_bytes, data[start:stop])
                self.file.drop_pages(name, before + start, before + stop)
                done += stop - start
                progress(done / total)

    def _layout(self, sizes: dict[int, int]) -> bytes:
        """A digest of what is packed, in which order, and how: of what each format makes of a pattern."""
        weights = [self.program.weights[w] for w in sizes]
        kinds = sorted({weight.type for weight in weights})
        return digest(
            *(f"{weight.name} {weight.type} {weight.first} {weight.shape}".encode() for weight in weights),
            *(packed_pattern(kind, self.isa) for kind in kinds),
        )

    def _vector(self, w: int) -> int:
        if w not in self._vectors:
            weight = self.program.weights[w]
            values = dequantize(weight.data(self.file), weight.type, weight.shape)
            self._vectors[w] = self.native.add_vector(np.ascontiguousarray(values, np.float32))
        return self._vectors[w]

    # the stages

    def _emit(self) -> None:
        """Walk the ops: give each buffer a slot for as long as it is read, and call the builder."""
        last = self.program.last_reads()
        self._ids: dict[int, int] = {}
        self._acts: dict[tuple[int, int], int] = {}
        self._act_slots: dict[tuple[int, int], int] = {}
        self._buffer_slots, self._quant_slots = Slots(), Slots()
        slot_of: dict[int, int] = {}
        wanted = {
            (op.x, self._group(w)) for op in self.program.ops if isinstance(op, p.Linear) for w in op.weights
        }
        groups = sorted({*self.formats.values()} - {0})
        for layer in self.program.kv_layers:
            self.native.add_kv_layer(layer.kv_heads, layer.head_dim, *self.cache_types)
        for i, op in enumerate(self.program.ops):
            if isinstance(op, p.Linear | p.Attention):
                self._buffer_slots.threads_met()
                self._quant_slots.threads_met()
            for b in op.writes:
                buffer = self.program.buffers[b]
                slot_of[b] = self._buffer_slots.take(buffer.rows)
                self._ids[b] = self.native.add_buffer(buffer.rows, buffer.cols, slot_of[b])
            self._emit_op(op)
            for b in op.writes:
                for group in groups:
                    if (b, group) in wanted:
                        self._emit_quantize(b, group)
            for b in {*op.reads, *op.writes}:
                if last[b] == i:
                    self._buffer_slots.give_back(self.program.buffers[b].rows, slot_of[b])
                    for group in groups:
                        if (b, group) in self._act_slots:
                            self._quant_slots.give_back(
                                self.program.buffers[b].rows, self._act_slots[b, group]
                            )

    def _group(self, weight: int) -> int:
        return self.formats[self.program.weights[weight].type]

    def _emit_quantize(self, b: int, group: int) -> None:
        buffer = self.program.buffers[b]
        slot = self._act_slots[b, group] = self._quant_slots.take(buffer.rows)
        acts = self._acts[b, group] = self.native.add_acts(buffer.rows, buffer.cols, slot, group)
        self.native.quantize(buffer.rows, self._ids[b], acts)

    def _emit_op(self, op: p.Op) -> None:
        n: Any = self.native
        at = self._ids
        rows: Literal["T", "S"] = self.program.buffers[op.writes[0]].rows
        match op:
            case p.Embed():
                weight = self.program.weights[op.weight]
                table = n.add_table(int(weight.type), *weight.shape, weight.data(self.file), op.by)
                n.embed(at[op.out], table, op.scale)
            case p.RMSNorm():
                n.rms_norm(rows, at[op.out], at[op.x], self._vector(op.weight), op.eps)
            case p.LayerNorm():
                bias = -1 if op.bias is None else self._vector(op.bias)
                n.layer_norm(rows, at[op.out], at[op.x], self._vector(op.weight), bias, op.eps)
            case p.Linear():
                biases = [-1 if b is None else self._vector(b) for b in op.biases]
                weights = [self._matrices[w] for w in op.weights]
                acts = [self._acts.get((op.x, self._group(w)), -1) for w in op.weights]
                n.linear(rows, at[op.x], acts, weights, biases, [at[b] for b in op.outs])
            case p.RopeTable():
                n.rope_table(at[op.out], op.inv_freq.tolist(), op.magnitude)
            case p.Rope():
                n.rope(at[op.out], at[op.x], at[op.table], op.head_dim, op.interleaved)
            case p.Attention():
                n.store_kv(at[op.k], at[op.v], op.layer)
                slopes = n.add_vector(np.array(op.slopes, np.float32)) if op.slopes else -1
                n.attention(
                    at[op.q],
                    at[op.out],
                    op.layer,
                    op.heads,
                    op.scale,
                    op.softcap,
                    op.window,
                    op.causal,
                    slopes,
                )
            case p.Add():
                n.add(rows, at[op.out], at[op.a], at[op.b])
            case p.Scale():
                n.scale(rows, at[op.out], at[op.x], op.factor)
            case p.GLU():
                n.glu(rows, at[op.out], at[op.gate], at[op.up], op.act)
            case p.Activate():
                n.activate(rows, at[op.out], at[op.x], op.act)
            case p.SoftCap():
                n.softcap(rows, at[op.out], at[op.x], op.cap)
            case p.TakeRows():
                n.take_rows(at[op.out], at[op.x])
            case _:
                raise NotImplementedError(type(op).__name__)
