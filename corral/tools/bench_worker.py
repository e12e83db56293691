"""One side of a benchmark: a process with one engine and one model, told what to time over a pipe.

A line of JSON in, a line out: `{"op": "prefill", "tokens": 512, "depth": 0}` or
`{"op": "decode", "tokens": 128, "streams": 8, "depth": 0}` gives `{"seconds": ...}`. Both fill the cache to
`depth` first, untimed. The first line out describes the side. `"setting"` is of the side's own: for llama.cpp
a Setting of bench_peer.py.

    bench_worker.py corral|llama.cpp MODEL THREADS ISA STREAMS CONTEXT

The llama.cpp side may run in another interpreter, so only the standard library is imported before a side
is chosen.
"""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from typing import Any

CHUNK = 512
"""Most tokens of a step: llama.cpp's default physical batch, and corral's."""


class Side(ABC):
    """An engine with a cache for `streams` sequences of `context` tokens."""

    name: str
    vocab_size: int

    def use(self, setting: dict[str, Any]) -> None:  # noqa: B027  (a side without settings)
        """Go on with these settings and an empty cache."""

    @abstractmethod
    def step(self, tokens: list[int], streams: int, position: int) -> None:
        """Compute tokens, laid end to end for `streams` sequences, each from `position` on."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a reader of the table should know."""

    @abstractmethod
    def share(self, streams: int, depth: int) -> None:
        """Let the other sequences begin with the first one's `depth` tokens."""

    def token(self, i: int) -> int:
        """Some token: speed does not depend on which, but a repeated row would stay in the caches."""
        return 100 + i * 7919 % (self.vocab_size - 200)

    def prefill(self, count: int, depth: int) -> None:
        for start in range(0, count, CHUNK):
            n = min(CHUNK, count - start)
            self.step([self.token(start + i) for i in range(n)], 1, depth + start)

    def decode(self, count: int, streams: int, depth: int) -> None:
        for i in range(count):
            self.step([self.token(i * streams + s) for s in range(streams)], streams, depth + i)


class Corral(Side):
    name = "corral"

    def __init__(self, path: str, threads: int, isa: str, streams: int, context: int) -> None:
        import numpy as np

        from corral.gguf.reader import GGUFFile
        from corral.models import trace_program
        from corral.program.batch import BLOCK_TOKENS, Batch
        from corral.program.native import NativeExecutor
        from corral.program.program import Linear

        self.np, self.Batch, self.block = np, Batch, BLOCK_TOKENS
        file = GGUFFile.open(path)
        program = trace_program(file)
        self.executor = NativeExecutor(
            program,
            file,
            threads=threads,
            isa=isa,
            max_tokens=max(CHUNK, streams),
            max_logits=max(streams, 1),
        )
        self.vocab_size = program.vocab_size
        multiplied = {w for op in program.ops if isinstance(op, Linear) for w in op.weights}
        shapes = [program.weights[w].shape for w in multiplied]
        self.weights = sum(rows * cols for rows, cols in shapes)
        per_sequence = -(-context // BLOCK_TOKENS)
        self.executor.allocate(per_sequence * streams)
        self.tables = np.arange(per_sequence * streams, dtype=np.int32).reshape(streams, per_sequence)

    def describe(self) -> dict[str, Any]:
        from corral import __version__

        return {
            "version": __version__,
            "isa": self.executor.isa,
            "weights": self.weights,
            "weight_bytes": self.executor.weights_bytes,
            "vocab_size": self.vocab_size,
        }

    def share(self, streams: int, depth: int) -> None:
        whole = depth // self.block
        self.tables[:, :whole] = self.tables[0, :whole]

    def step(self, tokens: list[int], streams: int, position: int) -> None:
        np, n = self.np, len(tokens) // streams
        self.executor.step(
            self.Batch(
                tokens=np.array(tokens, np.int32),
                positions=np.tile(np.arange(position, position + n, dtype=np.int32), streams),
                query_start=np.arange(streams + 1, dtype=np.int32) * n,
                context_len=np.full(streams, position + n, np.int32),
                block_tables=self.tables[:streams],
                logit_rows=np.arange(1, streams + 1, dtype=np.int32) * n - 1,
            )
        )


class LlamaCpp(Side):
    """llama.cpp by llama-cpp-python's low-level interface, with the settings that `use` is given."""

    name = "llama.cpp"

    def __init__(self, path: str, threads: int, isa: str, streams: int, context: int) -> None:
        import llama_cpp

        self.api: Any = llama_cpp
        self.silence = llama_cpp.llama_log_callback(lambda *_: None)  # kept: the library keeps only a pointer
        llama_cpp.llama_log_set(self.silence, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        assert self.model, f"llama.cpp can't load {path}"
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.threads, self.streams, self.tokens = threads, streams, context
        self.context: Any = None

    def use(self, setting: dict[str, Any]) -> None:
        api = self.api
        if self.context:
            api.llama_free(self.context)
        params = api.llama_context_default_params()
        params.n_ctx = self.tokens * self.streams
        params.n_batch, params.n_ubatch = max(2048, self.streams), setting["ubatch"]
        params.n_seq_max = self.streams
        params.kv_unified = setting["unified"]
        flash = "ENABLED" if setting["flash"] else "DISABLED"
        params.flash_attn_type = getattr(api, f"LLAMA_FLASH_ATTN_TYPE_{flash}")
        params.n_threads = params.n_threads_batch = self.threads
        self.context = api.llama_init_from_model(self.model, params)
        assert self.context, f"llama.cpp can't make a context of {params.n_ctx} tokens"
        self.memory = api.llama_get_memory(self.context)

    def describe(self) -> dict[str, Any]:
        words = self.api.llama_print_system_info().decode().replace("CPU :", "").split("|")
        on = [word.split("=")[0].strip() for word in words if word.strip().endswith("= 1")]
        version = f"llama-cpp-python {self.api.__version__}"
        return {"version": version, "isa": " ".join(on), "vocab_size": self.vocab_size}

    def share(self, streams: int, depth: int) -> None:
        api = self.api
        api.llama_memory_seq_rm(self.memory, 0, depth, -1)
        for s in range(1, streams):
            api.llama_memory_seq_rm(self.memory, s, -1, -1)
            if depth:  # a cache for each stream can only be copied whole
                api.llama_memory_seq_cp(self.memory, 0, s, -1, -1)
        if depth and streams > 1:  # copied by the next step
            self.decode(1, streams, depth)

    def step(self, tokens: list[int], streams: int, position: int) -> None:
        n = len(tokens) // streams
        for s in range(streams):
            self.api.llama_memory_seq_rm(self.memory, s, position, -1)
        batch = self.api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, position + i % n
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, i // n
            batch.logits[i] = i % n == n - 1
        code = self.api.llama_decode(self.context, batch)
        self.api.llama_batch_free(batch)
        assert code == 0, f"llama_decode returned {code}"
        self.api.llama_synchronize(self.context)


SIDES = {side.name: side for side in (Corral, LlamaCpp)}


def main(name: str, path: str, threads: str, isa: str, streams: str, context: str) -> None:
    start = time.perf_counter()
    side = SIDES[name](path, int(threads), isa, int(streams), int(context))
    print(json.dumps({**side.describe(), "load_seconds": time.perf_counter() - start}), flush=True)
    filled, setting = 0, None
    for line in sys.stdin:
        job = json.loads(line)
        depth = job["depth"]
        if job["setting"] != setting:
            setting = job["setting"]
            side.use(setting)
            filled = 0
        if depth and filled != depth:  # a deep cache is filled once: what follows writes behind it
            side.prefill(depth, 0)
            filled = depth
        if job["op"] == "decode":
            side.share(job["streams"], depth)
        start = time.perf_counter()
        if job["op"] == "prefill":
            side.prefill(job["tokens"], depth)
        else:
            side.decode(job["tokens"], job["streams"], depth)
        seconds = time.perf_counter() - start
        if not depth:
            filled = 0
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}), flush=True)


def peak_bytes() -> int:
    """The most memory this process had. Not getrusage's: that begins with what the parent has."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
