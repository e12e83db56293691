"""Toy models: a GGUF file of random weights for exactly the tensors that a model's classes declare."""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType
from corral.gguf.writer import GGUFWriter
from corral.program.module import Embedding, LayerNorm, Layers, Linear, Module

VOCAB = 97
Array = NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """What shapes are made of, from the metadata of a toy."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    rotated: int
    context: int

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Sizes:
        width, heads = meta["embedding_length"], meta["attention.head_count"]
        head_dim = meta.get("attention.key_length", width // heads)
        return cls(
            meta["block_count"],
            width,
            heads,
            meta.get("attention.head_count_kv", heads),
            head_dim,
            meta["feed_forward_length"],
            meta.get("rope.dimension_count", head_dim),
            meta["context_length"],
        )

    def shape(self, name: str, kind: Any) -> tuple[int, ...]:
        """Of the tensor of a field; add the fields of a new architecture here."""
        width, queries, keys = self.width, self.heads * self.head_dim, self.kv_heads * self.head_dim
        if kind is LayerNorm:  # over all columns
            return {"attn_q_norm": (queries,), "attn_k_norm": (keys,)}.get(name, (width,))
        return {
            "token_embd": (VOCAB, width),
            "token_types": (2, width),
            "position_embd": (self.context, width),
            "output": (VOCAB, width),
            "attn_q": (queries, width),
            "attn_k": (keys, width),
            "attn_v": (keys, width),
            "attn_qkv": (queries + 2 * keys, width),
            "attn_output": (width, queries),
            "ffn_gate": (self.feed_forward, width),
            "ffn_up": (self.feed_forward, width),
            "ffn_down": (width, self.feed_forward),
            "attn_norm": (width,),
            "attn_q_norm": (self.head_dim,),
            "attn_k_norm": (self.head_dim,),
            "post_attention_norm": (width,),
            "ffn_norm": (width,),
            "post_ffw_norm": (width,),
            "output_norm": (width,),
            "rope_freqs": (self.rotated // 2,),
        }[name]


@dataclass(frozen=True)
class Declared:
    """A tensor that a class asks for."""

    name: str
    """Without .weight."""
    shape: tuple[int, ...]
    needed: bool
    takes_bias: bool


def declared(model: type[Module], sizes: Sizes, prefix: str = "") -> Iterator[Declared]:
    """Walk the annotations as the binder does."""
    for name, hint in typing.get_type_hints(model).items():
        if typing.get_origin(hint) is ClassVar:
            continue
        optional = isinstance(hint, types.UnionType)
        kind = typing.get_args(hint)[0] if optional else hint
        if typing.get_origin(kind) is Layers:
            for i in range(sizes.layers):
                yield from declared(typing.get_args(kind)[0], sizes, f"{prefix}{name}.{i}.")
            continue
        needed = not optional and not hasattr(model, name)
        yield Declared(prefix + name, sizes.shape(name, kind), needed, kind in (Linear, LayerNorm))
        assert kind is not Embedding or len(sizes.shape(name, kind)) == 2


@dataclass
class Toy:
    """A toy model to be written; change what a test is about."""

    arch: str
    types: tuple[GGMLType, ...] = (GGMLType.F32,)
    """Of the matrices, in turn."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """To the metadata; None leaves a key out."""
    optional: bool = False
    """With an output of its own, and biases everywhere."""
    weights: dict[str, Array] = field(default_factory=dict)
    """By their full names, as they were drawn."""

    def __post_init__(self) -> None:
        module = importlib.import_module(f"corral.models.{self.arch.replace('-', '_')}")
        meta = {**module.TINY, **self.changes}
        self.meta: dict[str, Any] = {key: value for key, value in meta.items() if value is not None}
        self.model: type[Module] = module.Model
        self.sizes = Sizes.of({**module.TINY, **self.meta})
        self.declared = list(declared(self.model, self.sizes))
        rng = np.random.default_rng(len(self.arch))
        for tensor in self.declared:
            optional = self.optional and (len(tensor.shape) == 2 or tensor.takes_bias)
            if not (tensor.needed or optional):
                continue
            scale = tensor.shape[-1] ** -0.5 if len(tensor.shape) == 2 else 0.2
            values = rng.standard_normal(tensor.shape) * scale + (len(tensor.shape) == 1)
            self.weights[f"{tensor.name}.weight"] = values.astype(np.float32)
            if self.optional and tensor.takes_bias:
                self.weights[f"{tensor.name}.bias"] = (
                    rng.standard_normal(tensor.shape[0]).astype(np.float32) / 4
                )

    def write(self, folder: Path) -> GGUFFile:
        path = folder / f"{len(list(folder.iterdir()))}.gguf"
        writer = GGUFWriter(path, self.arch)
        for key, value in self.meta.items():
            writer.add(f"{self.arch}.{key}", value)
        matrices = [name for name, values in self.weights.items() if values.ndim == 2]
        kinds = {name: self.types[i % len(self.types)] for i, name in enumerate(matrices)}
        for name, values in self.weights.items():
            writer.add_tensor(name, values.astype(np.float32), kinds.get(name, GGMLType.F32))
        writer.write()
        return GGUFFile.open(path)
