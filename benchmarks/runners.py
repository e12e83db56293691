"""What the quality benchmarks compare: three ways to compute the logits of the same file, behind one method.

`logits(tokens, start, every)`: tokens at positions start.. of the one sequence there is; start 0 begins anew.
Returns float32 [len(tokens), V], or with `every` false [1, V] of the last token; valid until the next call.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from widen import Widened

from corral import __version__
from corral.gguf.quants import dequantize
from corral.gguf.reader import GGUFFile
from corral.gguf.types import ValueType
from corral.gguf.writer import GGUFWriter
from corral.models import trace_program
from corral.program.batch import BLOCK_TOKENS, Batch
from corral.program.native import NativeExecutor
from corral.program.reference import ReferenceExecutor


class Runner(Protocol):
    def logits(self, tokens: Sequence[int], start: int = 0, every: bool = False) -> NDArray[np.float32]: ...


class Corral:
    """One of corral's executors, with one sequence."""

    def __init__(self, executor: ReferenceExecutor | NativeExecutor, ctx: int) -> None:
        self.executor = executor
        self.about = {"version": __version__, "isa": executor.isa}
        self.blocks = -(-ctx // BLOCK_TOKENS)

    @classmethod
    def reference(cls, file: GGUFFile, ctx: int) -> Self:
        """The model itself: float64 from the dequantized weights on, KV cache included."""
        program = trace_program(file)
        return cls(ReferenceExecutor(program, file, quantize_activations=False, dtype=np.float64), ctx)

    @classmethod
    def native(cls, file: GGUFFile, ctx: int, threads: int, isa: str = "auto") -> Self:
        program = trace_program(file)
        executor = NativeExecutor(program, file, threads=threads, isa=isa, max_tokens=ctx, max_logits=ctx)
        return cls(executor, ctx)

    def logits(self, tokens: Sequence[int], start: int = 0, every: bool = False) -> NDArray[np.float32]:
        if start == 0:
            self.executor.allocate(self.blocks)
        n = len(tokens)
        return self.executor.step(
            Batch(
                tokens=np.array(tokens, np.int32),
                positions=np.arange(start, start + n, dtype=np.int32),
                query_start=np.array([0, n], np.int32),
                context_len=np.array([start + n], np.int32),
                block_tables=np.arange(self.blocks, dtype=np.int32)[None, :].copy(),
                logit_rows=np.arange(0 if every else n - 1, n, dtype=np.int32),
            )
        )


class LlamaCpp:
    """llama.cpp in a process of its own; see llama_cpp_logits.py. To be used in a `with` statement."""

    def __init__(
        self, python: str, model: Path, ctx: int, threads: int, *, flash: bool = True, kv32: bool = False
    ) -> None:
        """flash: whether llama.cpp may choose flash attention; kv32: KV cache in float32, not float16."""
        script = Path(__file__).with_name("llama_cpp_logits.py")
        command = [python, str(script), str(model), f"--ctx={ctx}", f"--threads={threads}"]
        command += ["--no-flash"] * (not flash) + ["--kv32"] * kv32
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "logits.npy"
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about: dict[str, Any] = self._answer()
        """Its version, and the instruction sets it was built for."""

    def logits(self, tokens: Sequence[int], start: int = 0, every: bool = False) -> NDArray[np.float32]:
        assert self._process.stdin
        asked = {"tokens": [int(t) for t in tokens], "start": start, "all": every, "to": str(self._file)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        self._answer()
        found: NDArray[np.float32] = np.load(self._file)
        return found

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the llama.cpp process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


def find_llama_cpp(python: str | None) -> str | None:
    """The interpreter to run llama.cpp with: `python`, else this one; None if it has no llama_cpp.

    Raises SystemExit if an interpreter was named and can't be used.
    """
    tried = python or sys.executable
    try:
        ended = subprocess.run([tried, "-c", "import llama_cpp"], capture_output=True, check=False)
    except OSError as error:
        raise SystemExit(f"--peer-python is {tried}, expected an interpreter ({error.strerror})") from None
    if ended.returncode == 0:
        return tried
    if python:
        raise SystemExit(f"--peer-python is {tried}, expected one with the package llama-cpp-python")
    return None


def write_float32(file: GGUFFile, path: Path, widened: Widened | None = None) -> None:
    """The same model with its weights dequantized: any other program can compute it from this unrounded."""
    changed = {"general.file_type": 0} | (widened.metadata if widened else {})
    writer = GGUFWriter(path)
    for key in file.metadata:
        kind = file.metadata.value_type(key)
        value = file.metadata[key]
        if kind is ValueType.ARRAY:
            kind = file.metadata.array_type(key)[0]
            if kind is ValueType.STRING:
                value = file.metadata.raw_strings(key)
        writer.add(key, changed.get(key, value), kind)
    for name, tensor in file.tensors.items():
        weights = dequantize(file.data(name), tensor.type, tensor.shape)
        writer.add_tensor(name, np.ascontiguousarray(widened.change(name, weights)) if widened else weights)
    writer.write()


def machine() -> dict[str, Any]:
    """The processor's name and how many of it this process may use."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return {"cpu": names[0] if names else "unknown", "cpus": len(os.sched_getaffinity(0))}
