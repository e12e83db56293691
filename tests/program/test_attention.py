"""Attention through the paged cache, against numpy in float64, in every company and on every ISA variant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

pytest.importorskip("corral._native", reason="the extension is not built")

from batches import alone, logits_of, one_sequence, play, together
from ops import EPS, F16_CACHE, Array, Model, assert_same_bits, assert_within

from corral.program.kv_cache import CacheType, CacheTypes, kept
from corral.program.native import isas
from corral.program.trace import Tensor, alibi_slopes, attention

pytestmark = pytest.mark.native


@dataclass(frozen=True)
class Case:
    head_dim: int
    heads: int
    kv_heads: int
    window: int = 0
    softcap: float = 0.0
    lengths: tuple[int, ...] = (1, 31, 33, 97)
    """Of the sequences; blocks have 32 tokens."""
    cache: CacheTypes = F16_CACHE
    causal: bool = True
    alibi: bool = False

    def __str__(self) -> str:
        extra = f"-window{self.window}" * bool(self.window) + f"-cap{self.softcap:g}" * bool(self.softcap)
        extra += "-bothways" * (not self.causal) + "-alibi" * self.alibi
        types = f"-{self.cache.keys}-{self.cache.values}" * (self.cache != F16_CACHE)
        return f"{self.head_dim}-{self.heads}/{self.kv_heads}{extra}{types}"

    @property
    def chunks(self) -> tuple[int, ...]:
        """Sizes of steps; the last one takes every sequence whole."""
        return (1, 7, 33, 64, 200) if self.causal else (200,)

    @property
    def slopes(self) -> list[float]:
        return alibi_slopes(self.heads) if self.alibi else []

    @property
    def sequences(self) -> list[list[int]]:
        """Every token is a row of the tables that no other token uses."""
        starts = np.cumsum([0, *self.lengths])
        return [list(range(a, a + n)) for a, n in zip(starts, self.lengths, strict=False)]

    def model(self, folder: Path, scale: float = 1.0) -> Model:
        rng = np.random.default_rng((self.head_dim, self.heads))
        count = sum(self.lengths)
        q, k, v = (
            (rng.standard_normal((count, heads * self.head_dim)) * scale).astype(np.float32)
            for heads in (self.heads, self.kv_heads, self.kv_heads)
        )
        # the cache holds these as they are
        k, v = (
            kept(x.reshape(count, -1, self.head_dim), type).reshape(x.shape)
            for x, type in zip((k, v), self.cache, strict=True)
        )

        def make(m: Model) -> Tensor:
            q, k, v = m.input("q"), m.input("k"), m.input("v")
            return attention(
                q,
                k,
                v,
                self.head_dim,
                window=self.window,
                softcap=self.softcap,
                causal=self.causal,
                slopes=self.slopes,
            )

        return Model(folder, {"q": q, "k": k, "v": v}, make)


CASES = [
    Case(16, 1, 1),
    Case(64, 9, 3, lengths=(64, 65, 200)),
    Case(80, 4, 4),
    Case(96, 8, 1),
    Case(128, 8, 2),
    Case(256, 4, 1),
    Case(24, 3, 3),
    Case(8, 70, 1, lengths=(5, 40)),  # more heads to a key head than a tile has rows
    Case(64, 4, 2, window=1),
    Case(64, 4, 2, window=5),
    Case(64, 4, 1, window=40, lengths=(1, 40, 41, 130)),
    Case(32, 4, 4, window=32, lengths=(31, 32, 33, 100)),
    Case(64, 4, 2, window=1000),
    Case(64, 4, 2, softcap=50.0),
    Case(64, 4, 2, window=7, softcap=0.5),
    Case(32, 12, 12, causal=False),
    Case(64, 4, 2, causal=False, lengths=(64, 65, 200)),
    Case(64, 8, 8, causal=False, alibi=True),
    Case(48, 6, 2, alibi=True),
    *(
        Case(64, 9, 3, lengths=(64, 65, 130), cache=CacheTypes(k, v))
        for k in get_args(CacheType)
        for v in get_args(CacheType)
        if (k, v) != F16_CACHE
    ),
    *(
        Case(dim, heads, kv_heads, window, cache=CacheTypes(kind, kind))
        for kind in ("f32", "q8_0")
        for dim, heads, kv_heads, window in [
            (24, 3, 3, 0),
            (80, 4, 4, 5),
            (8, 70, 1, 0),
            (128, 8, 2, 40),
            (256, 4, 1, 0),
        ]
    ),
]


def plain(case: Case, model: Model) -> list[Array]:
    """Textbook attention of each sequence, a loop over tokens and heads."""
    tables = {name: np.frombuffer(model.file.data(name), np.float32) for name in "qkv"}
    q, k, v = (
        tables[name].reshape(sum(case.lengths), -1, case.head_dim).astype(np.float64) for name in "qkv"
    )
    found = []
    for tokens in case.sequences:
        out = np.empty((len(tokens), case.heads, case.head_dim))
        for i, token in enumerate(tokens):
            seen = tokens[max(0, i + 1 - case.window) if case.window else 0 : i + 1 if case.causal else None]
            for h in range(case.heads):
                kv_head = h // (case.heads // case.kv_heads)
                scores = k[seen, kv_head] @ q[token, h] / math.sqrt(case.head_dim)
                if case.softcap:
                    scores = case.softcap * np.tanh(scores / case.softcap)
                if case.alibi:
                    scores = scores - case.slopes[h] * np.abs(np.array(seen) - token)
                weights = np.exp(scores - scores.max())
                out[i, h] = weights / weights.sum() @ v[seen, kv_head]
        found.append(out.reshape(len(tokens), -1))
    return found


def rounding(case: Case, most: float) -> float:
    """The most that float32 arithmetic changes an output, when values are up to `most`.

    A score is a chain of head_dim fused multiply-adds (their errors are random: the root of their number),
    and may be capped; e^score makes its error that of a weight; weights and values are sums over the context.
    """
    score = math.sqrt(case.head_dim) + 8 * case.softcap
    return (score + math.sqrt(max(case.lengths)) + 4) * EPS * most


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(tmp_path: Path, isa: str, case: Case) -> None:
    model = case.model(tmp_path)
    native = model.native(isa, tokens=512, cache=case.cache)
    found = play(native, case.sequences, alone(case.lengths))
    for logits, wanted in zip(found, plain(case, model), strict=True):
        assert_within(logits, wanted, rounding(case, 5.5))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference_is_textbook_attention(tmp_path: Path, case: Case) -> None:
    model = case.model(tmp_path)
    wanted = plain(case, model)
    for chunk in {case.chunks[0], 200}:
        found = play(model.reference(), case.sequences, together(case.lengths, chunk))
        for logits, textbook in zip(found, wanted, strict=True):
            assert_within(logits, textbook, 4 * EPS * 5.5)  # it gives its float64 as float32


def test_alibi_slopes() -> None:
    """The paper's example of 8 heads; for 12, its code's: those of 8 and then every other of 16."""
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(12) == [*alibi_slopes(8), *alibi_slopes(16)[0:8:2]]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_company_chunks_and_threads_change_nothing(tmp_path: Path, case: Case, threads: int) -> None:
    model = case.model(tmp_path)
    wanted = play(model.native("scalar", cache=case.cache), case.sequences, alone(case.lengths))
    for isa in isas() if threads == 1 else isas()[:1]:
        native = model.native(isa, threads, tokens=512, cache=case.cache)
        for seed, chunk in enumerate(case.chunks):
            if isa == "scalar" and chunk == 1:
                continue  # slow, and what the variants share
            found = play(native, case.sequences, together(case.lengths, chunk), seed)
            for logits, other in zip(found, wanted, strict=True):
                assert_same_bits(logits, other, f"{isa} chunk {chunk}")


@pytest.mark.parametrize("kind", get_args(CacheType))
@pytest.mark.parametrize("isa", isas())
def test_what_others_left_in_a_block_is_not_seen(tmp_path: Path, isa: str, kind: CacheType) -> None:
    """A pool is used again without being cleared: here it is full of large numbers and of NaN made finite."""
    rng = np.random.default_rng(0)
    tables = {name: rng.standard_normal((160, 64)).astype(np.float32) for name in "qkv"}
    for name in "kv":
        tables[name][100:130] = 6e4
        tables[name][130:] = np.nan
    for window in (0, 3):

        def make(m: Model, window: int = window) -> Tensor:
            return attention(m.input("q"), m.input("k"), m.input("v"), 32, window=window)

        native = Model(tmp_path, tables, make).native(isa, cache=CacheTypes(kind, kind))
        wanted = logits_of(native, range(40))
        native.step(one_sequence(range(100, 160)))
        for first, last in ((0, 5), (5, 33), (33, 40)):
            found = native.step(one_sequence(range(first, last), first))
            assert_same_bits(found.copy(), wanted[first:last], f"window {window}")


VALUES = {
    "f32": [1 + 2**-23, 1e-45, -1e-39, 3e38, np.inf, -np.inf, 0.1, -0.0, 65520, 1e6, -7, 2**-60],
    "f16": [
        *(1 + 2**-11, 1 + 3 * 2**-11, 2**-24, 3e-8, 1e-9, -6.1e-5, 65519, 1e6),
        *(-1e9, 0.1, -0.0, 3, 2**-14, 1e-5, 5e4, 7),
    ],
    "q8_0": [
        *(127.0, 0.5, 1.5, -2.5, 126.5, -126.5, 0.49999997, -127, *[0] * 24),  # the scale is 1; ties
        *(1.0, -0.99, 0.25, 1e-3, -1 / 254, *[0.3] * 27),  # a scale that is rounded
        *(1e-6, 5e-7, *[-1e-6] * 30),  # a subnormal one: int8 that do not fit
        *(3e-6, *[0] * 31),  # the smallest scale
        *(1e-6, *[1e-7] * 31),  # none
        *(1e6, -1e9, np.inf, np.nan, 65504, *[1] * 27),
        *(-3.0, 1.0),  # a head may end anywhere
    ],
}


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", get_args(CacheType))
def test_what_the_cache_does_to_numbers(tmp_path: Path, isa: str, kind: CacheType) -> None:
    """Of one token the output is its value, as it was kept: rounded to nearest, and finite."""
    values = np.array([VALUES[kind]], np.float32)
    dim, cache = values.size, CacheTypes("f32", kind)
    nothing = np.zeros_like(values)
    model = Model(
        tmp_path,
        {"q": nothing, "k": nothing, "v": values},
        lambda m: attention(m.input("q"), m.input("k"), m.input("v"), dim),
    )
    wanted = kept(values, kind)
    assert_same_bits(logits_of(model.native(isa, cache=cache), [0]) + 0, wanted + 0)
    assert_same_bits(logits_of(model.reference(np.float32, cache), [0]) + 0, wanted + 0)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kind", get_args(CacheType))
def test_keys_are_kept_as_values_are(tmp_path: Path, isa: str, kind: CacheType) -> None:
    """Rounded first or by the cache, with heads beside it: the same bits come out."""
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((70, 2 * 72)).astype(np.float32) for _ in "qkv")
    k *= 10.0 ** rng.integers(-3, 3, k.shape)

    def found(k: Array) -> Array:
        model = Model(
            tmp_path,
            {"q": q, "k": k, "v": v},
            lambda m: attention(m.input("q"), m.input("k"), m.input("v"), 72),
        )
        return logits_of(model.native(isa, cache=CacheTypes(kind, "f16")), range(70))

    assert_same_bits(found(k), found(kept(k.reshape(70, 2, 72), kind).reshape(k.shape)))


def test_float16_by_hand() -> None:
    values = np.array(VALUES["f16"], np.float32)
    assert_same_bits(kept(values, "f16"), values.clip(-65504, 65504).astype(np.float16).astype(np.float32))


def test_int8_by_hand() -> None:
    found = kept(np.array([[127.0, 0.5, 1.5, -2.5, 126.5, 100.4], [0, 2e-9, 0, 0, 0, 0]]), "q8_0")
    assert found.tolist() == [[127, 0, 2, -2, 126, 100], [0] * 6]
    x = np.random.default_rng(0).standard_normal((50, 100)).astype(np.float32)
    steps = np.repeat(np.abs(np.pad(x, ((0, 0), (0, 28))).reshape(50, 4, 32)).max(axis=2) / 127, 32, axis=1)
    assert (np.abs(kept(x, "q8_0") - x) <= steps[:, :100] * (0.5 + 127 * 2.0**-11)).all()
    assert_same_bits(kept(kept(x, "q8_0"), "q8_0"), kept(x, "q8_0"))


@pytest.mark.parametrize(
    ("keys", "values", "head_bytes"),
    [("f16", "f16", 160 + 160), ("f32", "q8_0", 320 + 80 + 6), ("q8_0", "f32", 80 + 6 + 320)],
)
def test_bytes_of_a_block(tmp_path: Path, keys: CacheType, values: CacheType, head_bytes: int) -> None:
    model = Case(80, 4, 2).model(tmp_path)
    native = model.native(cache=CacheTypes(keys, values))
    assert native.kv_bytes_per_block == 32 * 2 * head_bytes
    native.allocate(128)
    assert native.native.kv_bytes == 128 * native.kv_bytes_per_block


@pytest.mark.parametrize("isa", isas())
def test_scores_of_any_size(tmp_path: Path, isa: str) -> None:
    """The largest score takes all, however large: the weights are e^(score - largest)."""
    count, head_dim = 100, 32
    rng = np.random.default_rng(1)
    q, k, v = (rng.choice([-1.0, 1.0], (count, head_dim)) for _ in range(3))
    for size in (2.0**7, 2.0**14, 2.0**50):
        model = Model(
            tmp_path,
            {"q": q * size, "k": k * 2.0**10, "v": v},
            lambda m: attention(m.input("q"), m.input("k"), m.input("v"), head_dim),
        )
        found = logits_of(model.native(isa), range(count))
        for i in range(count):
            scores = k[: i + 1] @ q[i]  # whole numbers: those that are not the largest are at least 2 less
            winners = v[: i + 1][scores == scores.max()]
            assert_within(found[i], winners.mean(axis=0), 8 * EPS)
