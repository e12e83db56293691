"""llama: Llama 2 and 3, Mistral, TinyLlama, SmolLM2. Pre-norm, GQA, rope on interleaved pairs, SwiGLU."""

from __future__ import annotations

from corral.program.config import Config
from corral.program.module import Embedding, Layers, Linear, Module, Norm, Vector, or_else
from corral.program.trace import Tensor, Trace, attention, glu, rope, rope_table, take_rows


class Layer(Module):
    attn_norm: Norm
    attn_q: Linear
    attn_k: Linear
    attn_v: Linear
    attn_output: Linear
    ffn_norm: Norm
    ffn_gate: Linear
    ffn_up: Linear
    ffn_down: Linear

    def forward(self, x: Tensor, angles: Tensor, cfg: Config) -> Tensor:  # x [T, D]
        h = self.attn_norm(x)
        q, k, v = self.attn_q(h), self.attn_k(h), self.attn_v(h)
        q = rope(q, angles, cfg.head_dim, interleaved=True)
        k = rope(k, angles, cfg.head_dim, interleaved=True)
        x = x + self.attn_output(attention(q, k, v, cfg.head_dim))
        h = self.ffn_norm(x)
        return x + self.ffn_down(glu(self.ffn_gate(h), self.ffn_up(h), "silu"))


class Model(Module):
    token_embd: Embedding
    blk: Layers[Layer]
    output_norm: Norm
    output: Linear = or_else("token_embd")
    rope_freqs: Vector | None

    ignored = ("blk.*.attn_rot_embd.weight",)

    def forward(self, step: Trace, cfg: Config) -> Tensor:
        factors = self.rope_freqs.values if self.rope_freqs else None
        angles = rope_table(step, *cfg.rope.frequencies(factors))
        x = self.token_embd(step)
        for layer in self.blk:
            x = layer.forward(x, angles, cfg)
        return self.output(take_rows(self.output_norm(x)))


TINY = {
    "block_count": 2,
    "context_length": 256,
    "embedding_length": 64,
    "feed_forward_length": 160,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 10000.0,
}
"""Metadata of a toy model, for the tests that run every architecture."""
