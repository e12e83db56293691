"""What the metadata of a model file says about the model, for /v1/models and the banner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corral.config import ModelConfig
from corral.gguf.reader import GGUFFile
from corral.gguf.types import file_type_name
from corral.server.state import ModelInfo

VOCAB_TYPES = {"llama": 1, "gpt2": 2, "bert": 3, "t5": 4, "rwkv": 5, "plamo2": 6, "gemma4": 2}
"""`tokenizer.ggml.model` -> llama.cpp's number for it; 0: no vocabulary."""


def model_info(config: ModelConfig, file: GGUFFile, n_vocab: int) -> ModelInfo:
    """Reads only small metadata and the sizes of the tensors. Raises ModelFileError."""
    arch = file.architecture
    file_type = file.get("general.file_type", int, None)
    meta: dict[str, Any] = {
        "vocab_type": VOCAB_TYPES.get(file.get("tokenizer.ggml.model", str, ""), 0),
        "n_vocab": n_vocab,
        "n_ctx_train": file.get(f"{arch}.context_length", int, 0),
        "n_embd": file.get(f"{arch}.embedding_length", int, 0),
        "n_params": sum(t.n_elements for t in file.tensors.values()),
        "size": sum(t.nbytes for t in file.tensors.values()),
        "ftype": "unknown" if file_type is None else file_type_name(file_type),
    }
    aliases = tuple(sorted(set(config.aliases))) or (Path(config.path).name,)
    return ModelInfo(aliases[0], aliases, config.path, n_vocab, meta, arch)
