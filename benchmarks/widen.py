"""A llama model whose matrices are as wide as every format needs: K a multiple of 256, by zeros.

SmolLM2-135M has rows of 576 weights, which no K-quant and few IQ formats can hold: the quantizer takes other
types instead, and what is measured is those. Zeros in the residual stream change nothing but the mean that a
norm divides by, so the norms' weights and epsilon make up for it; a head whose output nobody reads fills each
group of heads. In exact arithmetic the logits are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corral.gguf.reader import GGUFFile

SUPER_BLOCK = 256
"""Weights in the largest block of a format."""

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Widened:
    """What changes: keys of the metadata, and tensors."""

    metadata: dict[str, Any]
    change: Callable[[str, Float], Float]


def widen(file: GGUFFile, multiple: int = SUPER_BLOCK) -> Widened | None:
    """How to widen the model; None if it is wide enough. ValueError if it can't be."""
    arch = file.architecture
    width, heads = (
        file.require(f"{arch}.{key}", int) for key in ("embedding_length", "attention.head_count")
    )
    kv_heads = file.metadata.get(f"{arch}.attention.head_count_kv", heads)
    inner = file.require(f"{arch}.feed_forward_length", int)
    if width % multiple == inner % multiple == 0:
        return None
    head_dim, group = width // heads, heads // kv_heads
    wide = -(-width // multiple) * multiple
    if arch != "llama" or inner % multiple or wide % (head_dim * kv_heads):
        shape = f"{width} columns, {heads} heads, ffn of {inner}"
        raise ValueError(f"{file.path} is {arch} of {shape}, expected one that zeros can widen")
    more = wide // head_dim // kv_heads  # heads of a group
    share = width / wide

    def of_heads(w: Float) -> Float:
        """Rows of all heads, with those of the new ones zero, at the end of their group."""
        rows = w.reshape(kv_heads, group * head_dim, -1)
        return np.pad(rows, ((0, 0), (0, (more - group) * head_dim), (0, 0))).reshape(wide, -1)

    def change(name: str, w: Float) -> Float:
        if w.ndim == 1:
            return np.pad(w * np.float32(share**0.5), (0, wide - width))
        match name.split(".")[-2]:
            case "ffn_down":
                return np.pad(w, ((0, wide - width), (0, 0)))
            case "attn_output":
                return np.pad(of_heads(np.ascontiguousarray(w.T)).T, ((0, wide - width), (0, 0)))
            case "attn_q":
                w = of_heads(w)
        return np.pad(w, ((0, 0), (0, wide - width)))

    epsilon = f"{arch}.attention.layer_norm_rms_epsilon"
    metadata = {
        f"{arch}.embedding_length": wide,
        f"{arch}.attention.head_count": more * kv_heads,
        epsilon: file.require(epsilon, float) * share,
    }
    return Widened(metadata, change)
