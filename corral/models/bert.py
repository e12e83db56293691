"""bert: BERT and what descends from it (bge, e5, gte, MiniLM). Both ways, post-norm, GELU, learned
positions.
"""

from __future__ import annotations

from corral.program.config import Config
from corral.program.module import Embedding, LayerNorm, Layers, Linear, Module
from corral.program.trace import Tensor, Trace, activate, attention, take_rows


class Layer(Module):
    attn_q: Linear
    attn_k: Linear
    attn_v: Linear
    attn_output: Linear
    attn_output_norm: LayerNorm
    ffn_up: Linear
    ffn_down: Linear
    layer_output_norm: LayerNorm

    def forward(self, x: Tensor, cfg: Config) -> Tensor:  # x [T, D]
        q, k, v = self.attn_q(x), self.attn_k(x), self.attn_v(x)
        h = attention(q, k, v, cfg.head_dim, causal=False)
        x = self.attn_output_norm(x + self.attn_output(h))
        h = self.ffn_down(activate(self.ffn_up(x), "gelu"))
        return self.layer_output_norm(x + h)


class Model(Module):
    token_embd: Embedding
    token_types: Embedding | None
    position_embd: Embedding
    token_embd_norm: LayerNorm
    blk: Layers[Layer]

    def forward(self, step: Trace, cfg: Config) -> Tensor:
        x = self.token_embd(step)
        if self.token_types:  # every token is of the first type: "sentence A"
            x = x + self.token_types(step, by="nothing")
        x = self.token_embd_norm(x + self.position_embd(step, by="position"))
        for layer in self.blk:
            x = layer.forward(x, cfg)
        return take_rows(x)


TINY = {
    "block_count": 2,
    "context_length": 256,
    "embedding_length": 64,
    "feed_forward_length": 160,
    "attention.head_count": 4,
    "attention.layer_norm_epsilon": 1e-12,
    "attention.causal": False,
    "pooling_type": 1,
}
"""Metadata of a toy model, for the tests that run every architecture."""
