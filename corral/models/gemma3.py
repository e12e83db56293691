"""gemma3: pre and post norms, QK norm, five sliding-window layers to a global one, two rope bases, GeGLU."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.program import config
from corral.program.module import Embedding, Layers, Linear, Module, Norm, or_else
from corral.program.trace import Tensor, Trace, attention, glu, rope, rope_table, softcap, take_rows

GLOBAL_EVERY = 6
LAYERS_OF_27B = 62


@dataclass(frozen=True)
class Config(config.Config):
    local_base: float
    """The sliding-window layers' rope base; these layers are never scaled to longer contexts."""
    final_softcap: float

    @classmethod
    def read(cls, file: GGUFFile) -> Config:
        common = config.Config.read(file)
        local_base = file.get("gemma3.rope.freq_base_swa", float, 10000.0)
        if not 0 < local_base < math.inf:
            raise ModelFileError(file.path, "gemma3.rope.freq_base_swa", local_base, "a positive number")
        softcap = file.get("gemma3.final_logit_softcapping", float, 0.0)
        if not 0 <= softcap < math.inf:
            raise ModelFileError(
                file.path, "gemma3.final_logit_softcapping", softcap, "0 or a positive number"
            )
        return cls(**vars(common), local_base=local_base, final_softcap=softcap)

    @property
    def scale(self) -> float:
        """Of the scores; the 27B model takes a head's width in the residual instead of its own."""
        per_head = self.width // self.heads if self.block_count == LAYERS_OF_27B else self.head_dim
        return 1 / math.sqrt(per_head)


class Layer(Module):
    attn_norm: Norm
    attn_q: Linear
    attn_k: Linear
    attn_v: Linear
    attn_q_norm: Norm
    attn_k_norm: Norm
    attn_output: Linear
    post_attention_norm: Norm
    ffn_norm: Norm
    ffn_gate: Linear
    ffn_up: Linear
    ffn_down: Linear
    post_ffw_norm: Norm

    def forward(self, x: Tensor, angles: Tensor, window: int, cfg: Config) -> Tensor:  # x [T, D]
        h = self.attn_norm(x)
        q, k, v = self.attn_q(h), self.attn_k(h), self.attn_v(h)
        q = rope(self.attn_q_norm(q, cfg.head_dim), angles, cfg.head_dim, interleaved=False)
        k = rope(self.attn_k_norm(k, cfg.head_dim), angles, cfg.head_dim, interleaved=False)
        h = attention(q, k, v, cfg.head_dim, scale=cfg.scale, window=window)
        x = x + self.post_attention_norm(self.attn_output(h))
        h = self.ffn_norm(x)
        return x + self.post_ffw_norm(self.ffn_down(glu(self.ffn_gate(h), self.ffn_up(h), "gelu")))


class Model(Module):
    token_embd: Embedding
    blk: Layers[Layer]
    output_norm: Norm
    output: Linear = or_else("token_embd")

    def forward(self, step: Trace, cfg: Config) -> Tensor:
        local = replace(cfg.rope, base=cfg.local_base, scaling="none")
        global_angles = rope_table(step, *cfg.rope.frequencies())
        local_angles = rope_table(step, *local.frequencies())
        x = self.token_embd(step, scale=math.sqrt(cfg.width))
        for i, layer in enumerate(self.blk):
            is_global = (i + 1) % GLOBAL_EVERY == 0 or not cfg.window
            angles = global_angles if is_global else local_angles
            x = layer.forward(x, angles, 0 if is_global else cfg.window, cfg)
        logits = self.output(take_rows(self.output_norm(x)))
        return softcap(logits, cfg.final_softcap) if cfg.final_softcap else logits


TINY = {
    "block_count": 7,
    "context_length": 256,
    "embedding_length": 64,
    "feed_forward_length": 160,
    "attention.head_count": 4,
    "attention.head_count_kv": 1,
    "attention.key_length": 32,
    "attention.value_length": 32,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "attention.sliding_window": 40,
    "rope.freq_base": 1000000.0,
}
"""Metadata of a toy model, for the tests that run every architecture."""
