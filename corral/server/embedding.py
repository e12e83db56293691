"""Having prompts embedded by the engine, and what is done with the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from corral.engine.messages import INPUTS_AT_ONCE, Submit
from corral.server import generate
from corral.server.reply import new_id
from corral.server.state import ServerState

Vectors = NDArray[np.float32]

LARGEST = 32760.0
"""What the largest number becomes with `embd_normalize` 0: fit for an int16."""


async def embed(state: ServerState, http: Request, prompts: Sequence[list[int]]) -> list[Vectors]:
    """[n, width] of each prompt: n is 1, or without pooling its tokens. Raises what generate.outputs raises.

    Some prompts at a time: however many they are, those of other clients don't wait for all of them.
    """
    _, ready = state.loaded()
    id = new_id("embd-")
    client, connection = generate.client_of(http)
    found: list[Vectors] = []
    for first in range(0, len(prompts), INPUTS_AT_ONCE):
        some = prompts[first : first + INPUTS_AT_ONCE]
        submits = [
            Submit(id=f"{id}-{first + i}", prompt=p, client=client, connection=connection)
            for i, p in enumerate(some)
        ]
        vectors: dict[int, Vectors] = {}
        async with aclosing(generate.outputs(state.engine, http, submits)) as outputs:
            async for index, output in outputs:
                vectors[index] = np.frombuffer(output.embedding, "<f4")
        found += [vectors[i] for i in range(len(some))]
    rows = [len(p) if ready.pooling == "none" else 1 for p in prompts]
    return [flat.reshape(n, -1) for flat, n in zip(found, rows, strict=True)]


def normalized(x: Vectors, norm: int) -> Vectors:
    """Each row of x over its p-norm, or its largest number for p = 0; as it is for -1. Zeros stay zeros."""
    if norm < 0:
        return x
    exact = np.abs(x.astype(np.float64))
    largest = exact.max(axis=1, keepdims=True)
    if norm == 0:
        size = largest / LARGEST
    else:  # of numbers up to 1: none of their powers overflows
        scaled = np.divide(exact, largest, out=np.zeros_like(exact), where=largest > 0)
        size = largest * np.sum(scaled**norm, axis=1, keepdims=True) ** (1 / norm)
    unit: Vectors = np.divide(x, size, out=np.zeros(x.shape), where=size > 0).astype(np.float32)
    return unit
