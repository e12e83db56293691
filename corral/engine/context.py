"""How many tokens the KV cache holds, and how many of them one request may use."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.config import EngineConfig
from corral.system.budget import CTX_STEP, MemoryPlan

QUEUE_FACTOR = 16
"""Prompt tokens that may wait, as a multiple of what the cache holds."""


@dataclass(frozen=True)
class Context:
    """Amounts of tokens."""

    n_ctx: int
    """Of one request."""
    pool: int
    """Of all that run."""
    queue: int
    """Of the prompts that wait."""
    notes: list[str] = field(default_factory=list)


def asked(config: EngineConfig) -> int | None:
    """Tokens of the pool that the flags ask for; None: as many as fit.

    Split evenly, each part is a multiple of 256, as in llama.cpp: the pool may get larger than --ctx-size.
    """
    if config.ctx_size is None:
        return config.ctx_per_request and config.ctx_per_request * config.parallel
    if config.kv_unified:
        return config.ctx_size
    return -(-config.ctx_size // config.parallel // CTX_STEP) * CTX_STEP * config.parallel


def decide(config: EngineConfig, memory: MemoryPlan, train_ctx: int, arch: str) -> Context:
    """The limits that follow from what fits in memory."""
    n_ctx, pool = memory.ctx_size, memory.pool
    if not config.kv_unified:
        part = pool // config.parallel
        n_ctx = part // CTX_STEP * CTX_STEP or max(part, 1)
        pool = n_ctx * config.parallel
    n_ctx = min(n_ctx, config.ctx_per_request or n_ctx)
    notes = []
    if train_ctx < n_ctx:
        notes.append(
            f"a request may use {train_ctx} tokens, the context of the model, not {n_ctx}; "
            f"--override-kv {arch}.context_length=int:N makes it another"
        )
        n_ctx = train_ctx
    return Context(n_ctx, pool, config.max_queue_tokens or QUEUE_FACTOR * pool, notes)
