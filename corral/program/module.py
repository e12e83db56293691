"""Binding a model's classes to the tensors of a file.

A model is a class whose annotated fields are named as the GGUF tensors:

    class Layer(Module):
        attn_norm: Norm                      blk.{i}.attn_norm.weight
        attn_q: Linear                       blk.{i}.attn_q.weight and, if the file has it, .bias
        attn_q_norm: Norm | None             None when the file has no such tensor

    class Model(Module):
        token_embd: Embedding
        blk: Layers[Layer]
        output: Linear = or_else("token_embd")      a tied output
        rope_freqs: Vector | None                   its numbers, for the tracing code to use

A tensor that no field claimed is an error that lists the names; a class may name what it leaves alone in
`ignored`.
"""

from __future__ import annotations

import fnmatch
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from corral.errors import ModelFileError
from corral.gguf.quants import FORMATS, dequantize
from corral.gguf.reader import GGUFFile
from corral.program import trace as t
from corral.program.program import IndexedBy, Weight
from corral.program.trace import Tensor, Trace

M = TypeVar("M", bound="Module")


@dataclass(frozen=True)
class Norm:
    """RMS norm with the model's epsilon."""

    weight: Weight
    eps: float

    def __call__(self, x: Tensor, head_dim: int | None = None) -> Tensor:
        """Over all columns, or over each head."""
        return t.rms_norm(x, self.weight, self.eps, head_dim)


@dataclass(frozen=True)
class LayerNorm:
    """Mean and variance taken out, with the model's epsilon."""

    weight: Weight
    bias: Weight | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return t.layer_norm(x, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Linear:
    weight: Weight
    bias: Weight | None

    def __call__(self, x: Tensor) -> Tensor:
        return t.linear(x, self.weight, self.bias)

    def split(self, *rows: int) -> list[Linear]:
        """Linears of so many rows each, which the file keeps in one tensor."""
        for weight in (self.weight, self.bias) if self.bias else (self.weight,):
            found, wanted = weight.shape[0], " + ".join(map(str, rows))
            t.fits(found == sum(rows), f"{weight.name} has {found} rows, expected {wanted}")
        starts = [sum(rows[:i]) for i in range(len(rows))]
        return [
            Linear(
                replace(self.weight, shape=(count, self.weight.shape[1]), first=start),
                replace(self.bias, shape=(count,), first=start) if self.bias else None,
            )
            for start, count in zip(starts, rows, strict=True)
        ]


@dataclass(frozen=True)
class Embedding:
    weight: Weight

    def __call__(self, step: Trace, scale: float = 1.0, by: IndexedBy = "token") -> Tensor:
        return t.embed(step, self.weight, scale, by)


@dataclass(frozen=True)
class Vector:
    """A tensor whose numbers the tracing code wants."""

    values: NDArray[np.float32]


class Layers(Generic[M]):
    """The blocks blk.0 to blk.{block_count - 1}."""

    def __init__(self, items: list[M]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[M]:
        return iter(self.items)


@dataclass(frozen=True)
class OrElse:
    other: str


def or_else(other: str) -> Any:
    """As a field's default: use the tensor `other` when the field's own is missing."""
    return OrElse(other)


class Binder:
    """Hands out the tensors of one file and remembers which were claimed."""

    def __init__(self, file: GGUFFile, norm_eps: float, block_count: int) -> None:
        self.file, self.norm_eps, self.block_count = file, norm_eps, block_count
        self.claimed: set[str] = set()

    def weight(self, name: str) -> Weight | None:
        info = self.file.tensors.get(name)
        if info is None:
            return None
        self.claimed.add(name)
        return Weight(name, info.shape, info.type)

    def leaf(self, kind: type, name: str) -> Any:
        """The field's value, or None when the file has no such tensor."""
        weight = self.weight(f"{name}.weight")
        if weight is None:
            return None
        if kind in (Linear, LayerNorm):
            self._expect(weight, 2 if kind is Linear else 1)
            bias = self.weight(f"{name}.bias")
            if bias:
                self._expect(bias, 1)
            return Linear(weight, bias) if kind is Linear else LayerNorm(weight, bias, self.norm_eps)
        if kind is Embedding:
            self._expect(weight, 2)
            return Embedding(weight)
        self._expect(weight, 1)
        if kind is Norm:
            return Norm(weight, self.norm_eps)
        return Vector(dequantize(self.file.data(weight.name), weight.type, weight.shape))

    def _expect(self, weight: Weight, dims: int) -> None:
        if len(weight.shape) != dims:
            raise ModelFileError(
                self.file.path, f"shape of {weight.name}", list(weight.shape), f"{dims} dimensions"
            )
        if dims == 1 and weight.type not in FORMATS:  # its numbers are read here, not by a kernel
            known = ", ".join(kind.name for kind in FORMATS)
            raise ModelFileError(
                self.file.path, f"type of {weight.name}", weight.type.name, f"one of {known}"
            )

    def finish(self, ignored: tuple[str, ...]) -> None:
        """Every tensor of the file must have found its field."""
        left = [n for n in self.file.tensors if n not in self.claimed]
        left = [n for n in left if not any(fnmatch.fnmatchcase(n, pattern) for pattern in ignored)]
        if left:
            shown = f"{len(left)} unknown: {', '.join(left)}"
            raise ModelFileError(
                self.file.path,
                "tensors",
                shown,
                f"only tensors that this version's '{self.file.architecture}' uses",
            )


class Module:
    """A group of tensors under one prefix; subclasses annotate the fields."""

    ignored: ClassVar[tuple[str, ...]] = ()

    def __init__(self, binder: Binder, prefix: str = "") -> None:
        for field, hint in typing.get_type_hints(type(self)).items():
            if typing.get_origin(hint) is ClassVar:
                continue
            setattr(self, field, self._bind(binder, prefix, field, hint))

    def _bind(self, binder: Binder, prefix: str, field: str, hint: Any) -> Any:
        optional = isinstance(hint, types.UnionType)
        kind = typing.get_args(hint)[0] if optional else hint
        if typing.get_origin(kind) is Layers:
            (layer,) = typing.get_args(kind)
            return Layers([layer(binder, f"{prefix}{field}.{i}.") for i in range(binder.block_count)])
        value = binder.leaf(kind, prefix + field)
        default = getattr(type(self), field, None)
        if value is None and isinstance(default, OrElse):
            value = binder.leaf(kind, prefix + default.other)
        if value is None and not optional:
            raise ModelFileError(
                binder.file.path,
                f"tensor {prefix}{field}.weight",
                "missing",
                f"a tensor every '{binder.file.architecture}' file has",
            )
        return value
