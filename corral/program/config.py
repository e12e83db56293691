"""The hyper-parameters that most architectures share, read from `{arch}.*` keys and checked."""

from __future__ import annotations

from dataclasses import dataclass

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.program.rope import RopeConfig

MOST_LAYERS = 1024
MOST_WIDTH = 1 << 20


@dataclass(frozen=True)
class Config:
    block_count: int
    width: int
    """D"""
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    context_length: int
    window: int
    """Tokens a sliding-window layer sees; 0 when there is none."""
    rope: RopeConfig

    @classmethod
    def read(cls, file: GGUFFile) -> Config:
        arch = file.architecture

        def count(key: str, default: int | None = None, most: int = MOST_WIDTH, least: int = 1) -> int:
            name = f"{arch}.{key}"
            value = file.require(name, int) if default is None else file.get(name, int, default)
            if not least <= value <= most:
                raise ModelFileError(file.path, name, value, f"a number from {least} to {most}")
            return int(value)

        width = count("embedding_length")
        heads = count("attention.head_count", most=65536)
        kv_heads = count("attention.head_count_kv", heads, most=heads)
        if heads % kv_heads:
            raise ModelFileError(
                file.path, f"{arch}.attention.head_count_kv", kv_heads, f"a divisor of the {heads} heads"
            )
        head_dim = count("attention.key_length", max(1, width // heads), most=4096)
        value_dim = count("attention.value_length", head_dim, most=4096)
        if value_dim != head_dim:
            raise ModelFileError(
                file.path, f"{arch}.attention.value_length", value_dim, f"the key length, {head_dim}"
            )
        key = f"{arch}.attention.layer_norm_epsilon"  # with the mean taken out
        if key not in file.metadata:
            key = f"{arch}.attention.layer_norm_rms_epsilon"
        eps = file.require(key, float)
        if not 0 <= eps < 1:
            raise ModelFileError(file.path, key, eps, "a number from 0 to 1")
        return cls(
            block_count=count("block_count", most=MOST_LAYERS),
            width=width,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            norm_eps=eps,
            context_length=count("context_length", most=1 << 30),
            window=count("attention.sliding_window", 0, most=1 << 30, least=0),
            rope=RopeConfig.read(file, head_dim),
        )
