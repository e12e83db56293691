"""The matmul and the embedding of every format, against numpy in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("corral._native", reason="the extension is not built")

from batches import logits_of
from ops import (
    EPS,
    FLOATS,
    QUANTIZED,
    SMALL_BLOCKS,
    SUPER_BLOCKS,
    Array,
    Model,
    assert_same_bits,
    assert_within,
)

from corral.gguf.quants import dequantize
from corral.gguf.types import GGMLType
from corral.program.module import Linear
from corral.program.native import formats, isas
from corral.program.reference import round_activations
from corral.program.trace import Tensor, linear

pytestmark = pytest.mark.native

SMALLEST = 2.0**-149
TOKENS = 250  # two blocks of up to 128 tokens
FEWER = [*range(1, 18), 31, 33, 128, 129]

SHAPES = {  # rows out, columns in
    **dict.fromkeys(FLOATS, ((1, 1), (16, 64), (37, 257), (50, 590))),
    **dict.fromkeys(SMALL_BLOCKS, ((1, 32), (16, 256), (37, 320), (50, 800))),
    **dict.fromkeys(SUPER_BLOCKS, ((1, 256), (16, 256), (37, 768))),
}
CASES = [(kind, *shape) for kind, shapes in SHAPES.items() for shape in shapes]
IDS = [f"{kind.name}-{rows}x{columns}" for kind, rows, columns in CASES]


def inputs(columns: int) -> Array:
    """Ordinary rows, then rows that strain a scale of 32 numbers."""
    rng = np.random.default_rng(columns)
    x = rng.standard_normal((TOKENS, columns)).astype(np.float32)
    x[3] = 0
    x[4, columns // 2] = 3e4  # beside it everything rounds to zero
    x[5] = np.where(np.arange(columns) % 2, 1.0, -1.0)  # every number at the end of its range
    x[6] = 7.5
    x[7] *= 1e-18
    x[8, : columns // 2] = 0
    x[9] = -1e9 * np.abs(x[9])
    x[10] *= 1e-37  # 1 over their scale is no float32
    x[11, : columns // 2] *= 1e-42
    return x


def weights(rows: int, columns: int) -> Array:
    rng = np.random.default_rng((rows, columns))
    w = rng.standard_normal((rows, columns)) * 10.0 ** rng.integers(-3, 2, (rows, 1))
    w[rows // 2] = 0
    w[rows // 3, columns // 2] = 100
    return w.astype(np.float32)


def rounding(x: Array, kind: GGMLType, w: Array, group: int) -> Array:
    """The most that float32 arithmetic changes x @ w.T; of n roundings in a row, the root of n times a few.

    A float weight: one fused multiply-add a column. A quantized one: exact integers folded one sub-block
    (of 16 or 32) at a time, where scale and minimum may be larger than the largest weight.
    """
    columns = w.shape[1]
    if kind in FLOATS:
        return 4 * (np.sqrt(columns) + 1) * EPS * (np.abs(x) @ np.abs(w).T) + columns * SMALLEST
    x = np.abs(round_activations(x, group)).astype(np.float64)
    sub = 32 if columns % 32 == 0 else 16
    largest = np.repeat(np.abs(w).reshape(len(w), -1, sub).max(axis=2), sub, axis=1)
    return 2 * (np.sqrt(columns / 16) + 2) * EPS * (x @ largest.T)


def one_linear(folder: Path, kind: GGMLType, w: Array, x: Array, bias: Array | None = None) -> Model:
    tensors = {"x": x, "w": (w, kind)} | ({} if bias is None else {"b": bias})
    return Model(
        folder,
        tensors,
        lambda m: linear(m.input(), m.weight("w"), None if bias is None else m.weight("b")),
    )


@pytest.mark.parametrize("kind", [GGMLType.F16, GGMLType.Q8_0])
def test_rows_of_one_tensor(tmp_path: Path, kind: GGMLType) -> None:
    """A part of a tensor is a matrix of its own: with the same bits as the rows have in the whole."""
    x, w, bias = inputs(64), weights(80, 64), np.linspace(-2, 3, 80)
    whole = one_linear(tmp_path, kind, w, x, bias)
    for first, last in ((0, 32), (32, 48), (48, 80)):

        def make(m: Model, first: int = first, last: int = last) -> Tensor:
            parts = Linear(m.weight("w"), m.weight("b")).split(first, last - first, 80 - last)
            return parts[1](m.input())

        part = Model(tmp_path, {"x": x, "w": (w, kind), "b": bias}, make)
        for executor, other in ((part.native(), whole.native()), (part.reference(), whole.reference())):
            wanted = logits_of(other, range(TOKENS))[:, first:last]
            assert_same_bits(logits_of(executor, range(TOKENS)), wanted.copy())


def test_every_format_is_here() -> None:
    assert set(formats()) == set(SHAPES)
    assert {kind for kind, group in formats().items() if group} == set(QUANTIZED)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(("kind", "rows", "columns"), CASES, ids=IDS)
def test_against_float64(tmp_path: Path, isa: str, kind: GGMLType, rows: int, columns: int) -> None:
    x, w = inputs(columns), weights(rows, columns)
    model = one_linear(tmp_path, kind, w, x)
    rounded = dequantize(model.file.data("w"), kind, w.shape)
    every = range(TOKENS)
    wanted = logits_of(model.reference(isa=isa), every)
    native = model.native(isa)
    found = logits_of(native, every)
    assert_within(found, wanted, rounding(x, kind, rounded, formats(isa)[kind]) + EPS * np.abs(wanted))
    # and however many tokens go with it, a token gets these bits
    for count in FEWER:
        assert_same_bits(logits_of(native, every[-count:]), found[-count:], f"{count} tokens")


def alike(kind: GGMLType) -> list[str]:
    """The variants that round activations for a format as the scalar one does."""
    return [isa for isa in isas() if formats(isa)[kind] == formats("scalar")[kind]]


def test_variants_that_round_otherwise() -> None:
    otherwise = {isa: {k.name for k in formats(isa) if isa not in alike(k)} for isa in isas()}
    whole = {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"}
    wanted = {"amx": whole, "avx512vnni": {"Q2_K", "Q3_K"}}
    assert otherwise == {isa: wanted.get(isa, set()) for isa in isas()}


@pytest.mark.parametrize(("kind", "rows", "columns"), CASES, ids=IDS)
def test_variants_agree(tmp_path: Path, kind: GGMLType, rows: int, columns: int) -> None:
    """All that round activations for a format in the same way have the same bits, whatever way that is."""
    model = one_linear(tmp_path, kind, weights(rows, columns), inputs(columns))
    wanted = {formats("scalar")[kind]: logits_of(model.native("scalar"), range(TOKENS))}
    for isa in isas():
        found = logits_of(model.native(isa), range(TOKENS))
        assert_same_bits(found, wanted.setdefault(formats(isa)[kind], found), isa)


HALVES = {  # where the float16 numbers of a block are
    GGMLType.Q4_0: [0],
    GGMLType.Q4_1: [0, 2],
    GGMLType.Q5_0: [0],
    GGMLType.Q5_1: [0, 2],
    GGMLType.Q8_0: [0],
    GGMLType.Q2_K: [80, 82],
    GGMLType.Q3_K: [108],
    GGMLType.Q4_K: [0, 2],
    GGMLType.Q5_K: [0, 2],
    GGMLType.Q6_K: [208],
    GGMLType.IQ4_NL: [0],
    GGMLType.IQ4_XS: [0],
    GGMLType.IQ3_S: [0],
    GGMLType.IQ3_XXS: [0],
    GGMLType.IQ2_S: [0],
    GGMLType.IQ2_XS: [0],
    GGMLType.IQ2_XXS: [0],
    GGMLType.IQ1_S: [0],
    GGMLType.IQ1_M: [],
    GGMLType.MXFP4: [],
    GGMLType.TQ1_0: [52],
    GGMLType.TQ2_0: [64],
}


def raw_blocks(kind: GGMLType, rows: int, columns: int) -> bytes:
    """Any bytes at all, under finite scales; the first rows are all 0xFF, 0x00 and 0x80."""
    rng = np.random.default_rng(kind)
    blocks = rng.integers(0, 256, (rows, columns // kind.block_size, kind.block_bytes), np.uint8)
    for row, byte in enumerate([0xFF, 0x00, 0x80]):
        blocks[row] = byte
    for at in HALVES[kind]:
        scales = rng.uniform(-0.02, 0.02, blocks.shape[:2]).astype(np.float16)
        blocks[:, :, at : at + 2] = scales.view(np.uint8).reshape(*blocks.shape[:2], 2)
    if kind is GGMLType.MXFP4:  # a power of two, from 2^-128
        blocks[:, :, 0] = rng.integers(115, 125, blocks.shape[:2])
    if kind is GGMLType.IQ1_M:  # in the upper nibbles of four words; with these bits below 2^-7
        blocks[:, :, 55] = blocks[:, :, 55] & 0x8F | 0x10
    return blocks.tobytes()


@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda kind: kind.name)
def test_any_bytes_are_a_weight(tmp_path: Path, kind: GGMLType) -> None:
    """Every q a block can hold, -128 too, with activations at both ends: sums of products don't saturate."""
    shape, tokens = (21, 512), 32
    x = np.random.default_rng(0).choice([-1.0, 1.0], (tokens, 512)).astype(np.float32)
    x[0], x[1] = 1, -1
    model = Model(
        tmp_path,
        {"x": x},
        lambda m: linear(m.input(), m.weight("w")),
        raw={"w": (raw_blocks(kind, *shape), kind, shape)},
    )
    wanted = logits_of(model.reference(), range(tokens))
    largest = np.abs(dequantize(model.file.data("w"), kind, shape)).max()
    found = {isa: logits_of(model.native(isa), range(tokens)) for isa in isas()}
    for isa, logits in found.items():
        assert_within(logits, wanted, (512 / 16 + 6) * EPS * 4 * 512 * largest)
        if isa in alike(kind):
            assert_same_bits(logits, found["scalar"], isa)


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.name)
def test_packed_weights_take_the_memory_that_is_planned(tmp_path: Path, kind: GGMLType) -> None:
    found = one_linear(tmp_path, kind, weights(32, 512), inputs(512)).native().weights_bytes
    assert 0 <= found - kind.packed_nbytes(32 * 512) < 4096  # whole pages


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    "kind", [GGMLType.F32, GGMLType.BF16, GGMLType.Q4_0, GGMLType.Q4_K], ids=lambda kind: kind.name
)
@pytest.mark.parametrize("rows", [1, 15, 16, 33])
def test_bias(tmp_path: Path, isa: str, kind: GGMLType, rows: int) -> None:
    x, w = inputs(256)[:20], weights(rows, 256)
    bias = np.linspace(-2, 3, rows, dtype=np.float32)
    plain = logits_of(one_linear(tmp_path, kind, w, x).native(isa), range(20))
    found = logits_of(one_linear(tmp_path, kind, w, x, bias).native(isa), range(20))
    assert_same_bits(found, plain + bias)


ONE_OF_A_KIND = [  # of float formats, and of each sub-block, offset and minimum
    GGMLType.F32,
    GGMLType.BF16,
    GGMLType.Q4_0,
    GGMLType.Q8_0,
    GGMLType.Q2_K,
    GGMLType.Q4_K,
    GGMLType.Q6_K,
    GGMLType.TQ2_0,
]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_weights_that_share_an_input(tmp_path: Path, isa: str, threads: int) -> None:
    """One op after fusing, of different formats, rows and biases: each gives what it gives alone."""
    x = inputs(512)[:110]
    kinds = ONE_OF_A_KIND
    tensors: dict[str, tuple[Array, GGMLType] | Array] = {"x": x}
    for i, kind in enumerate(kinds):
        tensors[f"w{i}"] = (weights(7 * i + 1, 512), kind)
        tensors[f"b{i}"] = np.arange(7 * i + 1, dtype=np.float32)
    for wanted in range(len(kinds)):

        def make(m: Model, wanted: int = wanted) -> Tensor:
            h = m.input()
            outs = [
                linear(h, m.weight(f"w{i}"), m.weight(f"b{i}") if i % 2 else None) for i in range(len(kinds))
            ]
            return outs[wanted]

        together = Model(tmp_path, tensors, make).native(isa, threads)
        assert sum(len(op.writes) == len(kinds) for op in together.program.ops) == 1
        bias = tensors[f"b{wanted}"] if wanted % 2 else None
        assert not isinstance(bias, tuple)
        alone = one_linear(tmp_path, kinds[wanted], weights(7 * wanted + 1, 512), x, bias).native(isa)
        assert_same_bits(logits_of(together, range(110)), logits_of(alone, range(110)), kinds[wanted].name)


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("kind", [GGMLType.F16, GGMLType.Q4_0, GGMLType.Q6_K], ids=lambda kind: kind.name)
def test_threads_change_nothing(tmp_path: Path, kind: GGMLType, threads: int) -> None:
    model = one_linear(tmp_path, kind, weights(300, 512), inputs(512))
    wanted = logits_of(model.native(), range(TOKENS))
    team = model.native(threads=threads)
    for count in (1, 2, 3, 97, TOKENS):
        assert_same_bits(logits_of(team, range(count)), wanted[:count], f"{count} tokens")


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("scale", [1.0, 25.298221])
def test_embedding(tmp_path: Path, isa: str, kind: GGMLType, scale: float) -> None:
    """A row of the table, bit for bit, whatever its neighbours."""
    columns = 100 if kind in FLOATS else 512
    table = weights(40, columns)
    model = Model(tmp_path, {"x": (table, kind)}, lambda m: m.input(scale=scale))
    tokens = [39, 0, 0, 7, 13, 21, 38]
    wanted = logits_of(model.reference(np.float32), tokens)
    assert_same_bits(wanted, dequantize(model.file.data("x"), kind, table.shape)[tokens] * np.float32(scale))
    assert_same_bits(logits_of(model.native(isa), tokens), wanted)


def test_embedding_of_any_bytes(tmp_path: Path) -> None:
    for kind in QUANTIZED:
        shape = (30, 512)
        model = Model(tmp_path, {}, lambda m: m.input(), raw={"x": (raw_blocks(kind, *shape), kind, shape)})
        wanted = dequantize(model.file.data("x"), kind, shape)
        for isa in isas():
            assert_same_bits(logits_of(model.native(isa), range(30)), wanted, f"{kind.name} {isa}")
