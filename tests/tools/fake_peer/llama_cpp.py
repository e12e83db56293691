"""As much of llama-cpp-python as `corral bench` calls: it counts positions, and takes time.

Fast are: no flash attention; a cache for each stream, which can only be copied whole.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

__version__ = "0.0"
LLAMA_FLASH_ATTN_TYPE_DISABLED, LLAMA_FLASH_ATTN_TYPE_ENABLED = 0, 1


class Context:
    def __init__(self, params: Any) -> None:
        self.params = params
        self.filled = [0] * params.n_seq_max
        self.seconds = 0.02 * (1 + params.flash_attn_type + params.kv_unified)


def llama_init_from_model(model: Any, params: Any) -> Context:
    return Context(params)


def llama_get_memory(context: Context) -> Context:
    return context


def llama_memory_seq_rm(context: Context, sequence: int, start: int, end: int) -> None:
    assert end == -1
    context.filled[sequence] = min(context.filled[sequence], max(start, 0))


def llama_memory_seq_cp(context: Context, source: int, target: int, start: int, end: int) -> None:
    assert start == end == -1
    context.filled[target] = context.filled[source]


def llama_batch_init(tokens: int, embd: int, sequences: int) -> Any:
    return SimpleNamespace(
        n_tokens=0,
        token=[0] * tokens,
        pos=[0] * tokens,
        n_seq_id=[0] * tokens,
        seq_id=[[0] for _ in range(tokens)],
        logits=[0] * tokens,
    )


def llama_decode(context: Context, batch: Any) -> int:
    for position, (sequence,) in zip(batch.pos, batch.seq_id, strict=True):
        if position != context.filled[sequence] or position >= context.params.n_ctx:
            return 1
        context.filled[sequence] += 1
    time.sleep(context.seconds)
    return 0


def llama_context_default_params() -> Any:
    return SimpleNamespace()


def llama_model_default_params() -> Any:
    return SimpleNamespace()


def llama_model_load_from_file(path: bytes, params: Any) -> str:
    return path.decode()


def llama_vocab_n_tokens(vocab: Any) -> int:
    return 1000


def llama_print_system_info() -> bytes:
    return b"CPU : AVX2 = 1 | AVX512 = 0 | "


def llama_log_callback(function: Any) -> Any:
    return function


def _nothing(*_: Any) -> None:
    pass


llama_log_set = llama_backend_init = llama_model_get_vocab = _nothing
llama_free = llama_batch_free = llama_synchronize = _nothing
