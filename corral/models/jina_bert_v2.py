"""jina-bert-v2: jina-embeddings-v2 and jina-reranker-v1. BERT with ALiBi for positions and a gated GELU.

The code model norms queries, keys and once more behind the attention.
"""

from __future__ import annotations

from corral.program.config import Config
from corral.program.module import Embedding, LayerNorm, Layers, Linear, Module
from corral.program.trace import Tensor, Trace, activate, alibi_slopes, attention, glu, take_rows


class Layer(Module):
    attn_q: Linear
    attn_k: Linear
    attn_v: Linear
    attn_q_norm: LayerNorm | None
    attn_k_norm: LayerNorm | None
    attn_output: Linear
    attn_output_norm: LayerNorm
    attn_norm_2: LayerNorm | None
    ffn_gate: Linear | None
    ffn_up: Linear
    ffn_down: Linear
    layer_output_norm: LayerNorm

    def forward(self, x: Tensor, cfg: Config) -> Tensor:  # x [T, D]
        q, k, v = self.attn_q(x), self.attn_k(x), self.attn_v(x)
        q = self.attn_q_norm(q) if self.attn_q_norm else q
        k = self.attn_k_norm(k) if self.attn_k_norm else k
        h = attention(q, k, v, cfg.head_dim, causal=False, slopes=alibi_slopes(cfg.heads))
        h = self.attn_output_norm(x + self.attn_output(h))
        x = self.attn_norm_2(x + h) if self.attn_norm_2 else h
        return self.layer_output_norm(x + self.ffn_down(self.inner(x)))

    def inner(self, x: Tensor) -> Tensor:
        """[T, F]; the gate is a tensor of its own, the upper half of `ffn_up`, or missing."""
        if self.ffn_gate:
            return glu(self.ffn_gate(x), self.ffn_up(x), "gelu")
        width = self.ffn_down.weight.shape[1]
        if self.ffn_up.weight.shape[0] == width:
            return activate(self.ffn_up(x), "gelu")
        gate, up = self.ffn_up.split(width, width)
        return glu(gate(x), up(x), "gelu")


class Model(Module):
    token_embd: Embedding
    token_types: Embedding
    token_embd_norm: LayerNorm
    blk: Layers[Layer]

    def forward(self, step: Trace, cfg: Config) -> Tensor:
        x = self.token_embd(step) + self.token_types(step, by="nothing")  # all of the first type
        x = self.token_embd_norm(x)
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
