"""nomic-bert: nomic-embed-text v1 and v1.5. BERT with rope on halves for positions, fused QKV and SwiGLU."""

from __future__ import annotations

from corral.program.config import Config
from corral.program.module import Embedding, LayerNorm, Layers, Linear, Module
from corral.program.trace import Tensor, Trace, attention, glu, rope, rope_table, take_rows


class Layer(Module):
    attn_qkv: Linear
    attn_output: Linear
    attn_output_norm: LayerNorm
    ffn_gate: Linear
    ffn_up: Linear
    ffn_down: Linear
    layer_output_norm: LayerNorm

    def forward(self, x: Tensor, angles: Tensor, cfg: Config) -> Tensor:  # x [T, D]
        queries, keys = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
        q, k, v = (part(x) for part in self.attn_qkv.split(queries, keys, keys))
        q = rope(q, angles, cfg.head_dim, interleaved=False)
        k = rope(k, angles, cfg.head_dim, interleaved=False)
        h = attention(q, k, v, cfg.head_dim, causal=False)
        x = self.attn_output_norm(x + self.attn_output(h))
        h = self.ffn_down(glu(self.ffn_gate(x), self.ffn_up(x), "silu"))
        return self.layer_output_norm(x + h)


class Model(Module):
    token_embd: Embedding
    token_types: Embedding | None
    token_embd_norm: LayerNorm
    blk: Layers[Layer]

    def forward(self, step: Trace, cfg: Config) -> Tensor:
        angles = rope_table(step, *cfg.rope.frequencies())
        x = self.token_embd(step)
        if self.token_types:  # every token is of the first type: "sentence A"
            x = x + self.token_types(step, by="nothing")
        x = self.token_embd_norm(x)
        for layer in self.blk:
            x = layer.forward(x, angles, cfg)
        return take_rows(x)


TINY = {
    "block_count": 2,
    "context_length": 256,
    "embedding_length": 64,
    "feed_forward_length": 160,
    "attention.head_count": 4,
    "attention.layer_norm_epsilon": 1e-12,
    "attention.causal": False,
    "rope.freq_base": 1000.0,
    "pooling_type": 1,
}
"""Metadata of a toy model, for the tests that run every architecture."""
