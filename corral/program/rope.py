"""Rotary frequencies as a GGUF file's metadata asks for them.

Every scaling form is a fixed set of frequencies and one magnitude, so that a step only multiplies positions
by them. Sources: RoPE (arXiv:2104.09864), position interpolation (arXiv:2306.15595), YaRN (arXiv:2309.00071,
section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.program.trace import fits


@dataclass(frozen=True)
class RopeConfig:
    """The `{arch}.rope.*` keys."""

    dims: int
    """n_rot: how many numbers of a head are rotated."""
    base: float
    scaling: str = "none"
    """none, linear or yarn"""
    factor: float = 1.0
    original_context: int = 0
    attn_factor: float = 1.0
    ext_factor: float = -1.0
    """YaRN's mix of extrapolation; negative: 1 with yarn, else 0."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    @classmethod
    def read(cls, file: GGUFFile, head_dim: int) -> RopeConfig:
        arch = file.architecture
        dims = file.get(f"{arch}.rope.dimension_count", int, head_dim)
        if not 0 < dims <= head_dim or dims % 2:
            raise ModelFileError(
                file.path, f"{arch}.rope.dimension_count", dims, f"an even number up to {head_dim}"
            )
        base = file.get(f"{arch}.rope.freq_base", float, 10000.0)
        if not (math.isfinite(base) and base > 0):
            raise ModelFileError(file.path, f"{arch}.rope.freq_base", base, "a positive number")
        factor = file.get(f"{arch}.rope.scaling.factor", float, 0.0)
        legacy = file.get(f"{arch}.rope.scale_linear", float, 0.0)
        scaling = file.get(f"{arch}.rope.scaling.type", str, "linear" if factor or legacy else "none")
        if scaling not in ("none", "linear", "yarn"):
            raise ModelFileError(
                file.path, f"{arch}.rope.scaling.type", scaling, "none, linear or yarn for this architecture"
            )
        if not (math.isfinite(factor or legacy) and (factor or legacy) >= 0):
            raise ModelFileError(
                file.path, f"{arch}.rope.scaling.factor", factor or legacy, "a positive number"
            )
        context = file.get(f"{arch}.context_length", int, 0)
        config = cls(
            dims=dims,
            base=base,
            scaling=scaling,
            factor=factor or legacy or 1.0,
            original_context=file.get(f"{arch}.rope.scaling.original_context_length", int, context),
            attn_factor=file.get(f"{arch}.rope.scaling.attn_factor", float, 1.0),
            ext_factor=file.get(f"{arch}.rope.scaling.yarn_ext_factor", float, -1.0),
            beta_fast=file.get(f"{arch}.rope.scaling.yarn_beta_fast", float, 32.0),
            beta_slow=file.get(f"{arch}.rope.scaling.yarn_beta_slow", float, 1.0),
        )
        # what the ramp divides by
        for key, value, least in (
            ("rope.scaling.yarn_beta_fast", config.beta_fast, 0.0),
            ("rope.scaling.yarn_beta_slow", config.beta_slow, 0.0),
            ("rope.freq_base", config.base, 1.0),
        ):
            if config.mix and not value > least:
                raise ModelFileError(file.path, f"{arch}.{key}", value, f"more than {least:g}, with YaRN")
        return config

    @property
    def mix(self) -> float:
        """How much of the extrapolation the fast pairs keep: the whole with yarn unless it says less."""
        return self.ext_factor if self.ext_factor >= 0 else float(self.scaling == "yarn")

    def frequencies(self, factors: NDArray[np.float32] | None = None) -> tuple[NDArray[np.float64], float]:
        """(inverse frequencies [dims / 2], magnitude). `factors`, the tensor `rope_freqs`, divides them."""
        half = np.arange(self.dims // 2)
        extrapolated = self.base ** (-2.0 * half / self.dims)
        if factors is not None:
            fits(len(factors) == len(half), f"{len(factors)} rope_freqs for {len(half)} rotated pairs")
            sound = bool((factors > 0).all() and np.isfinite(factors).all())
            fits(sound, "rope_freqs has numbers that are not positive")
            extrapolated = extrapolated / factors.astype(np.float64)
        factor = 1.0 if self.scaling == "none" else self.factor
        interpolated = extrapolated / factor
        if not self.mix:
            return interpolated, self.attn_factor
        mix = self._ramp(half) * self.mix
        magnitude = self.attn_factor * (1.0 + 0.1 * math.log(factor))
        return interpolated * (1.0 - mix) + extrapolated * mix, magnitude

    def _ramp(self, half: NDArray[np.int_]) -> NDArray[np.float64]:
        """1 where a pair turns often enough in the original context to be left alone, 0 if interpolated."""

        def pair_that_turns(times: float) -> float:
            turns = self.original_context / (times * 2 * math.pi)
            return self.dims * math.log(max(turns, 1e-9)) / (2 * math.log(self.base))

        low = max(0.0, math.floor(pair_that_turns(self.beta_fast)))
        high = min(self.dims - 1.0, math.ceil(pair_that_turns(self.beta_slow)))
        ramp: NDArray[np.float64] = 1.0 - np.clip((half - low) / max(0.001, high - low), 0.0, 1.0)
        return ramp
