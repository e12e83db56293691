"""The native executor: a Program turned, at load, into the calls that build its C++ twin (`csrc/program.h`).

What is decided here: which ops run row by row and which need all threads, where activations are quantized,
and which buffers share memory. A step is then one call without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from corral.program.buffer_slots import lifetimes, share
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


class Buffers:
    """The buffers of a Program, once fused, in its C++ twin, and their copies rounded to int8."""

    def __init__(self, native: _native.Program, program: p.Program, groups: Mapping[int, int]) -> None:
        """groups: of each weight that is multiplied with, see `formats`."""
        lives = lifetimes(program)
        self.ids: dict[int, int] = {}
        """Of each buffer."""
        self.acts: dict[int, dict[int, int]] = {b: {} for b in lives}
        """Of each buffer's copies, by their groups."""
        linears = [op for op in program.ops if isinstance(op, p.Linear)]
        wanted = dict.fromkeys((op.x, groups[w]) for op in linears for w in op.weights if groups[w])
        taken = taken_by_copies = 0
        rows: p.Rows
        for rows in ("T", "S"):
            widths = {b: program.buffers[b].cols for b in lives if program.buffers[b].rows == rows}
            slots = share(widths, lives)
            for b, slot in slots.items():
                self.ids[b] = native.add_buffer(rows, widths[b], taken + slot)
            copies = {(b, group): widths[b] for b, group in wanted if b in widths}
            # made where the buffer is written
            copy_slots = share(copies, {(b, group): lives[b] for b, group in copies})
            for (b, group), slot in copy_slots.items():
                self.acts[b][group] = native.add_acts(rows, widths[b], taken_by_copies + slot, group)
            taken += len({*slots.values()})
            taken_by_copies += len({*copy_slots.values()})


def buffer_bytes(
    program: p.Program, file: GGUFFile, *, threads: int, isa: str, max_tokens: int, max_logits: int
) -> int:
    """What the buffers of a `NativeExecutor` will take: they are made, and given back untouched.

    Raises as it does.
    """
    check_isa(isa)
    fused, known = fuse(program), formats(isa)
    check_kernels(fused, file, known)
    native = _native.Program(isa, threads)
    buffers = Buffers(native, fused, {w: known[fused.weights[w].type] for w in matrices(fused)})
    native.finish(buffers.ids[fused.logits], max_tokens, max_logits)
    return native.buffer_bytes


def matrices(program: p.Program) -> list[int]:
    """The weights that are multiplied with."""
    return list(dict.fromkeys(w for op in program.ops if isinstance(op, p.Linear) for w in op.weights))


def check_kernels(program: p.Program, file: GGUFFile, known: Mapping[GGMLType, int]) -> None:
    """There is a kernel for every weight and head."""
    for layer in program.kv_layers:
        if layer.head_dim > _native.MOST_HEAD_DIM:
            raise ModelFileError(file.path, "head size", layer.head_dim, f"at most {_native.MOST_HEAD_DIM}")
    for weight in program.weights:
        if len(weight.shape) == 2 and weight.type not in known:
            names = ", ".join(kind.name for kind in known)
            raise ModelFileError(file.path, f"type of {weight.name}", weight.type.name, f"one of {names}")


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
        check_kernels(self.program, file, self.formats)
        self._matrices: dict[int, int] = {}
        self._vectors: dict[int, int] = {}
        self._load(progress or (lambda share: None), pack_cache)
        self._emit()
        self.native.finish(self._buffers.ids[program.logits], max_tokens, max_logits)
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

    def _load(self, progress: Progress, cache: PackCache | None) -> None:
        """Pack the weights, or map what an earlier start packed."""
        sizes = {w: self.program.weights[w].data(self.file).nbytes for w in matrices(self.program)}
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
        """Walk the ops and call the builder. A buffer is rounded by who writes it, for all who read it."""
        groups = {w: self._group(w) for w in matrices(self.program)}
        buffers = self._buffers = Buffers(self.native, self.program, groups)
        for layer in self.program.kv_layers:
            self.native.add_kv_layer(layer.kv_heads, layer.head_dim, *self.cache_types)
        for op in self.program.ops:
            self._emit_op(op)
            for b in op.writes:
                for acts in buffers.acts[b].values():
                    self.native.quantize(self.program.buffers[b].rows, buffers.ids[b], acts)

    def _group(self, weight: int) -> int:
        return self.formats[self.program.weights[weight].type]

    def _emit_op(self, op: p.Op) -> None:
        n: Any = self.native
        at = self._buffers.ids
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
                acts = [self._buffers.acts[op.x].get(self._group(w), -1) for w in op.weights]
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
