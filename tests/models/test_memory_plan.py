"""The activations that are planned are those that the executor allocates, whatever the shape of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import Toy

from corral.config import EngineConfig
from corral.engine import load as load_module
from corral.engine.embedder import MOST_SEQUENCES
from corral.engine.messages import Pooling
from corral.gguf.types import GGMLType
from corral.models import architectures, trace_program
from corral.program.kv_cache import CacheTypes
from corral.program.outputs import has_logits
from corral.system.budget import MemoryPlan

pytestmark = pytest.mark.native

SHAPES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "wide": {"embedding_length": 256, "feed_forward_length": 2048},
    "one layer": {"block_count": 1, "feed_forward_length": 96},
}
CONFIGS = {
    "usual": EngineConfig(),
    "one request": EngineConfig(parallel=1, ubatch_size=32),
    "many": EngineConfig(parallel=64, batch_size=2048, ubatch_size=2048, threads=3, force_threads=True),
    "guesses": EngineConfig(speculation=("ngram-simple",)),
    "no SIMD": EngineConfig(isa="scalar"),
}
ENDS = 40 * 4096
"""Where a text is taken whole, the plan is a straight line, and buffers end with a page."""


def planned_and_taken(
    toy: Toy, folder: Path, config: EngineConfig, pooling: Pooling | None
) -> tuple[int, int, MemoryPlan]:
    file = toy.write(folder)
    program = trace_program(file, "hidden" if pooling else "logits")
    threads = config.threads or 2
    types = CacheTypes()
    train_ctx = file.require(f"{file.architecture}.context_length", int)
    plan = load_module._plan_memory(program, file, config, train_ctx, threads, set(), types, pooling)
    step = load_module._step_shape(config, program, pooling, plan.ctx_size if program.whole else 0)
    executor: Any = load_module._open_executor(
        program, file, config, threads, step, types, None, lambda share: None
    )
    blocks = MOST_SEQUENCES if program.whole else 0
    return plan.activations, executor.buffer_bytes + blocks * executor.kv_bytes_per_block, plan


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("arch", architectures())
def test_activations(tmp_path: Path, arch: str, shape: str, config: str) -> None:
    pytest.importorskip("corral._native", reason="the extension is not built")
    changes = dict(SHAPES[shape])
    toy = Toy(arch, (GGMLType.Q8_0, GGMLType.F16, GGMLType.Q4_1), changes=changes)
    engine = replace(CONFIGS[config], ctx_size=256)
    decodes = has_logits(trace_program(Toy(arch).write(tmp_path)))
    planned, taken, _ = planned_and_taken(toy, tmp_path, engine, None if decodes else "cls")
    assert abs(planned - taken) <= (0 if decodes else ENDS)


@pytest.mark.parametrize("pooling", ["none", "mean", "cls"])
@pytest.mark.parametrize("ctx", [512, 700, 8192])
def test_a_model_that_takes_texts_whole(tmp_path: Path, ctx: int, pooling: Pooling) -> None:
    """Its buffers grow with the context."""
    pytest.importorskip("corral._native", reason="the extension is not built")
    toy = Toy("nomic-bert", changes={"context_length": 8192, **SHAPES["wide"]})
    planned, taken, plan = planned_and_taken(toy, tmp_path, EngineConfig(ctx_size=ctx), pooling)
    assert plan.ctx_size == ctx
    assert abs(planned - taken) <= ENDS < taken / 100
