"""llama.cpp's logits, for benchmarks that compare with it. Runs in an interpreter that has llama-cpp-python.

A program of its own, so that corral's environment needs no llama.cpp: one JSON request a line on standard
input, one JSON answer a line on standard output, logits as .npy files that the asker names. The class
`runners.LlamaCpp` starts it.

{"tokens": [...], "start": 0, "all": true, "to": "x.npy"}    start 0 forgets what was before
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from typing import Any

import llama_cpp as api
import numpy as np

GGML_F32 = 0


class Context:
    """A model with one sequence."""

    def __init__(self, path: str, *, ctx: int, threads: int, flash: bool, kv32: bool) -> None:
        """flash: whether llama.cpp may choose flash attention; kv32: KV cache in float32, not float16."""
        self.model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp can't load {path}")
        self.vocab_size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        params = api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = ctx
        params.n_threads = params.n_threads_batch = threads
        if not flash:
            params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if kv32:
            params.type_k = params.type_v = GGML_F32
        self.context = api.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp can't make a context of {ctx} tokens")
        self.batch = api.llama_batch_init(ctx, 0, 1)

    def logits(self, tokens: list[int], start: int, every: bool) -> Any:
        """float32 [len(tokens), V], or [1, V] of the last token; a view, valid until the next call."""
        if start == 0:
            api.llama_memory_clear(api.llama_get_memory(self.context), True)
        batch, count = self.batch, len(tokens)
        batch.n_tokens = count
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, start + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = every or i == count - 1
        if status := api.llama_decode(self.context, batch):
            raise SystemExit(f"llama_decode returned {status} for {count} tokens at {start}")
        rows = count if every else 1
        return np.ctypeslib.as_array(api.llama_get_logits(self.context), shape=(rows, self.vocab_size))


def silence(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """llama.cpp's log is about loading; only its errors are of interest."""
    if level >= 4:
        sys.stderr.write(text.decode(errors="replace"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--ctx", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--no-flash", dest="flash", action="store_false")
    parser.add_argument("--kv32", action="store_true")
    args = parser.parse_args()
    callback = api.llama_log_callback(silence)
    api.llama_log_set(callback, None)
    api.llama_backend_init()
    context = Context(args.model, ctx=args.ctx, threads=args.threads, flash=args.flash, kv32=args.kv32)
    about = {"version": api.__version__, "system": api.llama_print_system_info().decode()}
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        np.save(request["to"], context.logits(request["tokens"], request["start"], request["all"]))
        print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    main()
