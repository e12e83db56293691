"""The memory plan: arithmetic, shrinking, refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.errors import OptionError
from corral.system import budget
from corral.system.budget import MIB, PROCESS_BYTES, Demand, MemoryLimit, expect_room, plan

GIB = 1024 * MIB
# Mistral 7B, Q4_K_M: 128 KiB a token, 32768 tokens of context
MISTRAL = Demand(
    weights=4166 * MIB, kv_per_token=128 * 1024, train_ctx=32768, activations=100 * MIB, overhead=160 * MIB
)


def limit(gib: float) -> MemoryLimit:
    return MemoryLimit(int(gib * GIB), "/sys/fs/cgroup/memory.max")


def test_a_model_that_fits_keeps_its_context() -> None:
    made = plan(MISTRAL, limit(16))
    assert made.ctx_size == 32768
    assert made.shrunk_from is None
    assert made.kv_cache == 4 * GIB
    assert made.total == MISTRAL.total(32768)
    assert made.headroom == 16 * GIB - made.total


@pytest.mark.parametrize(
    ("gib", "contexts", "pool"),
    [
        (16, 1, 32768),
        (64, 4, 4 * 32768),  # there is room for all
        (16, 4, 32768 + 28160),  # half of what is left
        (8, 4, 0),  # it had to shrink
    ],
)
def test_what_is_left_may_go_into_more_contexts(gib: float, contexts: int, pool: int) -> None:
    made = plan(MISTRAL, limit(gib), contexts=contexts)
    assert made.pool == (pool or made.ctx_size)
    assert made.kv_cache == made.pool * 128 * 1024
    assert made.headroom is not None
    assert made.headroom >= made.margin
    assert f"({made.pool} tokens)" in made.describe()[0]


def test_a_set_context_is_the_whole_pool() -> None:
    assert plan(MISTRAL, limit(64), ctx_size=4096, contexts=4).pool == 4096


def test_an_unset_context_shrinks() -> None:
    made = plan(MISTRAL, limit(8))
    assert made.shrunk_from == 32768
    assert made.ctx_size % 256 == 0
    assert made.headroom is not None
    assert made.headroom >= made.margin == 8 * GIB // 20
    # 256 tokens more would eat into the margin
    assert 8 * GIB - MISTRAL.total(made.ctx_size + 256) < made.margin


@pytest.mark.parametrize("gib", [4.9, 5.5, 6, 8, 9, 10, 24])
def test_what_is_planned_never_exceeds_the_limit(gib: float) -> None:
    made = plan(MISTRAL, limit(gib))
    assert made.total <= int(gib * GIB)
    assert 512 <= made.ctx_size <= 32768


def test_a_set_context_may_use_the_margin_but_not_more() -> None:
    exact = MemoryLimit(MISTRAL.total(4096), "x")
    assert plan(MISTRAL, exact, ctx_size=4096).ctx_size == 4096
    with pytest.raises(OptionError, match="does not fit"):
        plan(MISTRAL, MemoryLimit(exact.bytes - 1, "x"), ctx_size=4096)


def test_a_set_context_is_never_changed() -> None:
    assert plan(MISTRAL, limit(64), ctx_size=100_096).ctx_size == 100_096
    assert plan(MISTRAL, None, ctx_size=512).ctx_size == 512


def test_the_refusal_has_the_numbers_and_the_flag() -> None:
    with pytest.raises(OptionError) as caught:
        plan(MISTRAL, limit(8), ctx_size=32768)
    message = str(caught.value)
    for part in (
        "weights 4166 MiB",
        "KV cache 4096 MiB (32768 tokens of 131072 bytes)",
        "activations 100 MiB",
        "limit 8192 MiB (/sys/fs/cgroup/memory.max)",
        "--ctx-size ",
    ):
        assert part in message
    advised = int(message.split("--ctx-size ")[1].split()[0])
    assert plan(MISTRAL, limit(8), ctx_size=advised).ctx_size == advised


def test_weights_that_do_not_fit_ask_for_a_smaller_model() -> None:
    for ctx_size in (None, 512):
        with pytest.raises(OptionError, match="smaller model or quantization") as caught:
            plan(MISTRAL, limit(4), ctx_size=ctx_size)
        assert "--ctx-size" not in str(caught.value)


def test_no_fit_takes_the_models_context_or_refuses() -> None:
    assert plan(MISTRAL, limit(16), fit=False).ctx_size == 32768
    with pytest.raises(OptionError, match="32768 tokens"):
        plan(MISTRAL, limit(8), fit=False)


def test_least_context_and_margin() -> None:
    assert plan(MISTRAL, limit(8), margin=0).ctx_size > plan(MISTRAL, limit(8), margin=GIB).ctx_size
    with pytest.raises(OptionError, match="30000 tokens"):
        plan(MISTRAL, limit(8), min_ctx=30000)


def test_a_small_model_is_not_asked_for_more_than_it_has() -> None:
    tiny = Demand(weights=MIB, kv_per_token=1024, train_ctx=128, activations=MIB, overhead=MIB)
    assert plan(tiny, limit(1)).ctx_size == 128


def test_a_text_that_is_taken_whole_has_buffers_for_each_token() -> None:
    """Up to a step's tokens they are there anyway, and beyond the model's context no text goes."""
    encoder = Demand(
        weights=100 * MIB,
        kv_per_token=1000,
        train_ctx=8192,
        activations=10 * MIB,
        overhead=100 * MIB,
        activations_per_token=20_000,
        step_tokens=512,
    )
    for ctx, beyond in ((256, 0), (512, 0), (600, 88), (8192, 7680), (10_000, 7680)):
        assert encoder.activations_for(ctx) == 10 * MIB + 20_000 * beyond
        assert encoder.total(ctx) == 200 * MIB + encoder.activations_for(ctx) + 1000 * ctx
    for ctx in (-7, 0, 1, 511, 512, 513, 5000, 8192):
        for room in (encoder.total(max(ctx, 0)) + 1000 * min(ctx, 0), encoder.total(max(ctx, 0) + 1) - 1):
            assert encoder.fits(room) == ctx or (ctx < 0 and encoder.fits(room) in (ctx, 0))
    shrunk = plan(encoder, MemoryLimit(300 * MIB, "x"))
    assert shrunk.activations == encoder.activations_for(shrunk.ctx_size)
    assert shrunk.total <= 300 * MIB - shrunk.margin < encoder.total(shrunk.ctx_size + 256)


def test_without_a_limit_nothing_shrinks() -> None:
    made = plan(MISTRAL, None)
    assert made.ctx_size == 32768
    assert made.headroom is None
    assert "of" not in made.describe()[0].split("=")[1]


def test_the_lines_for_the_log() -> None:
    lines = plan(MISTRAL, limit(8)).describe()
    assert "weights 4166 MiB" in lines[0]
    assert "of 8192 MiB (/sys/fs/cgroup/memory.max)" in lines[0]
    assert "instead of the model's 32768" in lines[1]


@pytest.mark.parametrize(("amount", "text"), [(0, "0 MiB"), (1, "1 MiB"), (MIB, "1 MiB"), (MIB + 1, "2 MiB")])
def test_mib(amount: int, text: str) -> None:
    assert budget.mib(amount) == text


def test_the_tighter_limit_counts(tmp_path: Path) -> None:
    assert budget.memory_limit(tmp_path) is None
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "meminfo").write_text("MemTotal: 16 kB\nMemAvailable:       8 kB\n")
    assert budget.memory_limit(tmp_path) == MemoryLimit(8192, "MemAvailable of /proc/meminfo")
    (proc / "self").mkdir()
    (proc / "self/cgroup").write_text("0::/\n")
    (proc / "self/mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    for amount, expected in (("4096", 4096), ("100000", 8192), ("max", 8192)):
        (group / "memory.max").write_text(amount)
        found = budget.memory_limit(tmp_path)
        assert found is not None
        assert found.bytes == expected


def test_a_limit_below_what_the_processes_take_is_told_before_they_start() -> None:
    expect_room(None)
    expect_room(MemoryLimit(PROCESS_BYTES, "x"))
    with pytest.raises(OptionError, match=r"64 MiB of memory \(/memory.max\), and the server takes 100 MiB"):
        expect_room(MemoryLimit(64 * MIB, "/memory.max"))
