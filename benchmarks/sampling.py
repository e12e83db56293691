"""What sampling and text cost in a step: CPU time of the engine's thread for eight streams.

    python benchmarks/sampling.py

Logits are made up: normal with a standard deviation of 3, which leaves a few dozen likely tokens.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import numpy as np

from corral.engine.output import TextStream, TextTables
from corral.sampling.chain import Chain
from corral.sampling.constraint import Grammars
from corral.sampling.params import SamplingParams

STREAMS, STEPS = 8, 60
VOCABULARIES = (32_000, 128_256, 262_144)
CASES = {
    "default": SamplingParams(),
    "greedy": SamplingParams(temperature=0),
    "penalties": SamplingParams(repeat_penalty=1.1, presence_penalty=0.2),
    "logit_bias, DRY": SamplingParams(logit_bias={5: 2.0}, dry_multiplier=0.8),
    "top_k off": SamplingParams(top_k=0),
    "only temperature": SamplingParams(samplers=("temperature",)),
    "top_n_sigma": SamplingParams(samplers=("top_n_sigma", "temperature"), top_n_sigma=1.5),
    "mirostat 2": SamplingParams(mirostat=2),
    "10 probabilities": SamplingParams(n_probs=10),
    "JSON schema": SamplingParams(),
}
SCHEMA = json.dumps({"type": "array", "items": {"type": "string"}})


def measure(name: str, params: SamplingParams, tables: TextTables, rows: np.ndarray) -> float:
    """Milliseconds of a step."""
    grammars = Grammars(tables.special, tables.control, tables.eog)
    chains, texts, tokens = [], [], []
    for i in range(STREAMS):
        matcher = grammars.compile_now("json_schema", SCHEMA) if name == "JSON schema" else None
        chains.append(Chain(params, i, tables.eog, tables.special, matcher, 100))
        texts.append(TextStream(tables))
        tokens.append(list(range(100)))
    times = []
    for step in range(STEPS):
        began = time.thread_time()
        for i, chain in enumerate(chains):
            if chain.is_complete or tokens[i][-1] in tables.eog:
                continue
            token = chain.sample(rows[(step + i) % len(rows)], tokens[i])
            chain.log_probs(token)
            texts[i].feed(token)
            tokens[i].append(token)
        times.append(time.thread_time() - began)
    return 1e3 * float(np.median(times))


def vocabulary(size: int) -> TextTables:
    """All bytes, then words of letters; two control tokens at the end, the last of which ends a text."""
    rng = np.random.default_rng(0)
    pieces: list[bytes] = [bytes([i]) for i in range(256)]
    pieces += [rng.integers(97, 123, rng.integers(2, 9), np.uint8).tobytes() for _ in range(size - 258)]
    return TextTables([*pieces, b"", b""], [*pieces, b"<|a|>", b"<|end|>"], frozenset({size - 1}))


def main(sizes: Sequence[int] = VOCABULARIES) -> None:
    print(f"{'ms a step of 8 rows':20}" + "".join(f"{f'V = {size}':>14}" for size in sizes))
    results: dict[str, list[float]] = {name: [] for name in CASES}
    for size in sizes:
        tables = vocabulary(size)
        rows = (np.random.default_rng(1).standard_normal((11, size)) * 3).astype(np.float32)
        for name, params in CASES.items():
            results[name].append(measure(name, params, tables, rows))
    for name, values in results.items():
        print(f"{name:20}" + "".join(f"{value:14.2f}" for value in values))


if __name__ == "__main__":
    main()
