"""A GGUF file with a small model of random weights and a vocabulary of bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from corral.gguf.types import GGMLType, ValueType
from corral.gguf.writer import GGUFWriter
from corral.models.llama import TINY
from corral.tokenizer.token_type import TokenType

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TRAIN_CTX = int(TINY["context_length"])


def write_toy_model(
    path: Path, *, type: GGMLType = GGMLType.F32, logits: int = len(SPECIAL) + len(BYTES)
) -> Path:
    """`type` is that of the matrices."""
    arch = "llama"
    width, feed_forward, kv_width = int(TINY["embedding_length"]), int(TINY["feed_forward_length"]), 32
    writer = GGUFWriter(path, arch)
    for key, value in TINY.items():
        writer.add(f"{arch}.{key}", value)
    writer.add("tokenizer.ggml.model", "llama")
    writer.add("tokenizer.ggml.tokens", SPECIAL + BYTES)
    writer.add("tokenizer.ggml.scores", [0.0] * (len(SPECIAL) + len(BYTES)), ValueType.FLOAT32)
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * len(BYTES)
    writer.add("tokenizer.ggml.token_type", [int(kind) for kind in types], ValueType.INT32)
    writer.add("tokenizer.ggml.bos_token_id", 1)
    writer.add("tokenizer.ggml.eos_token_id", 2)

    rng = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = rng.standard_normal(shape) / np.sqrt(shape[-1]) if len(shape) == 2 else np.ones(shape)
        kind = type if len(shape) == 2 else GGMLType.F32
        writer.add_tensor(f"{name}.weight", values.astype(np.float32), kind)

    add("token_embd", logits, width)
    add("output_norm", width)
    for i in range(int(TINY["block_count"])):
        for norm in ("attn_norm", "ffn_norm"):
            add(f"blk.{i}.{norm}", width)
        for name, rows in (
            ("attn_q", width),
            ("attn_k", kv_width),
            ("attn_v", kv_width),
            ("attn_output", width),
        ):
            add(f"blk.{i}.{name}", rows, width)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{i}.{name}", feed_forward, width)
        add(f"blk.{i}.ffn_down", width, feed_forward)
    (written,) = writer.write()
    return written
