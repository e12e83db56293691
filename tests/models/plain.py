"""The models in plain numpy, from their papers: a whole sequence at once, no Program, no cache.

Weights are float64 by their GGUF names; metadata lack the architecture's prefix; tokens [n] -> logits
[n, V], or the hidden states [n, D] of an encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Weights = Mapping[str, Array]
Meta = Mapping[str, Any]


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """arXiv:1910.07467, over the last axis."""
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight


def linear(w: Weights, name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def frequencies(dims: int, base: float) -> Array:
    return np.array([base ** (-2 * i / dims) for i in range(dims // 2)])


def rotate(x: Array, freqs: Array, *, neighbours: bool) -> Array:
    """arXiv:2104.09864. x [n, heads, Dh]; a pair is two neighbours (llama) or in both halves (NeoX)."""
    half = len(freqs)
    a, b = (x[..., 0::2], x[..., 1::2]) if neighbours else (x[..., :half], x[..., half:])
    turned = (a + 1j * b) * np.exp(1j * np.arange(len(x))[:, None, None] * freqs)
    out = np.empty_like(x)
    if neighbours:
        out[..., 0::2], out[..., 1::2] = turned.real, turned.imag
    else:
        out[..., :half], out[..., half:] = turned.real, turned.imag
    return out


def layer_norm(w: Weights, name: str, x: Array, eps: float) -> Array:
    """arXiv:1607.06450"""
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return x * w[f"{name}.weight"] + w.get(f"{name}.bias", 0.0)


def attend_both_ways(q: Array, k: Array, v: Array, bias: Array | float = 0.0) -> Array:
    """arXiv:1706.03762: q, k, v [n, H, Dh], bias [H, n, n] -> [n, H * Dh]."""
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[-1]) + bias
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v).reshape(len(q), -1)


def attend(q: Array, k: Array, v: Array, scale: float, window: int = 0) -> Array:
    """Causal, grouped queries (arXiv:2305.13245): q [n, H, Dh], k and v [n, Hkv, Dh] -> [n, H * Dh]."""
    n, heads, _ = q.shape
    k, v = (np.repeat(x, heads // x.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) * scale
    i, j = np.indices((n, n))
    scores[:, (j > i) | ((window > 0) & (j <= i - window))] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v).reshape(n, -1)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    """arXiv:1606.08415, the tanh form."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def heads(x: Array, count: int) -> Array:
    return x.reshape(len(x), count, -1)


def llama(w: Weights, meta: Meta, tokens: Array, freqs: Array | None = None) -> Array:
    """arXiv:2302.13971 and 2307.09288; the gated unit is arXiv:2002.05202."""
    eps, n_heads = meta["attention.layer_norm_rms_epsilon"], meta["attention.head_count"]
    kv_heads, head_dim = meta["attention.head_count_kv"], meta["embedding_length"] // n_heads
    if freqs is None:
        freqs = frequencies(head_dim, meta["rope.freq_base"])
    x = w["token_embd.weight"][tokens]
    for i in range(meta["block_count"]):
        blk = f"blk.{i}."
        h = rms_norm(x, w[blk + "attn_norm.weight"], eps)
        q = rotate(heads(linear(w, blk + "attn_q", h), n_heads), freqs, neighbours=True)
        k = rotate(heads(linear(w, blk + "attn_k", h), kv_heads), freqs, neighbours=True)
        v = heads(linear(w, blk + "attn_v", h), kv_heads)
        x = x + linear(w, blk + "attn_output", attend(q, k, v, head_dim**-0.5))
        h = rms_norm(x, w[blk + "ffn_norm.weight"], eps)
        gated = silu(linear(w, blk + "ffn_gate", h)) * linear(w, blk + "ffn_up", h)
        x = x + linear(w, blk + "ffn_down", gated)
    x = rms_norm(x, w["output_norm.weight"], eps)
    return linear(w, "output" if "output.weight" in w else "token_embd", x)


def gemma3(w: Weights, meta: Meta, tokens: Array) -> Array:
    """arXiv:2503.19786: five layers that see a window, with a rope base of 10 k, to one that sees all."""
    eps, n_heads = meta["attention.layer_norm_rms_epsilon"], meta["attention.head_count"]
    kv_heads, head_dim = meta["attention.head_count_kv"], meta["attention.key_length"]
    x = w["token_embd.weight"][tokens] * np.sqrt(meta["embedding_length"])
    for i in range(meta["block_count"]):
        blk, sees_all = f"blk.{i}.", i % 6 == 5
        freqs = frequencies(head_dim, meta["rope.freq_base"] if sees_all else 10000.0)
        h = rms_norm(x, w[blk + "attn_norm.weight"], eps)
        q, k, v = (
            heads(linear(w, blk + name, h), count)
            for name, count in (("attn_q", n_heads), ("attn_k", kv_heads), ("attn_v", kv_heads))
        )
        q = rotate(rms_norm(q, w[blk + "attn_q_norm.weight"], eps), freqs, neighbours=False)
        k = rotate(rms_norm(k, w[blk + "attn_k_norm.weight"], eps), freqs, neighbours=False)
        h = attend(q, k, v, head_dim**-0.5, 0 if sees_all else meta["attention.sliding_window"])
        h = linear(w, blk + "attn_output", h)
        x = x + rms_norm(h, w[blk + "post_attention_norm.weight"], eps)
        h = rms_norm(x, w[blk + "ffn_norm.weight"], eps)
        h = linear(w, blk + "ffn_down", gelu(linear(w, blk + "ffn_gate", h)) * linear(w, blk + "ffn_up", h))
        x = x + rms_norm(h, w[blk + "post_ffw_norm.weight"], eps)
    x = rms_norm(x, w["output_norm.weight"], eps)
    logits = linear(w, "output" if "output.weight" in w else "token_embd", x)
    cap = meta.get("final_logit_softcapping", 0.0)
    return cap * np.tanh(logits / cap) if cap else logits


def bert(w: Weights, meta: Meta, tokens: Array) -> Array:
    """arXiv:1810.04805, to the last hidden states [n, D]; every token is of segment A."""
    eps, n_heads = meta["attention.layer_norm_epsilon"], meta["attention.head_count"]
    x = w["token_embd.weight"][tokens] + w["position_embd.weight"][: len(tokens)]
    if "token_types.weight" in w:
        x = x + w["token_types.weight"][0]
    x = layer_norm(w, "token_embd_norm", x, eps)
    for i in range(meta["block_count"]):
        blk = f"blk.{i}."
        q, k, v = (heads(linear(w, f"{blk}attn_{name}", x), n_heads) for name in "qkv")
        x = x + linear(w, f"{blk}attn_output", attend_both_ways(q, k, v))
        x = layer_norm(w, f"{blk}attn_output_norm", x, eps)
        x = x + linear(w, f"{blk}ffn_down", gelu(linear(w, f"{blk}ffn_up", x)))
        x = layer_norm(w, f"{blk}layer_output_norm", x, eps)
    return x


def nomic_bert(w: Weights, meta: Meta, tokens: Array) -> Array:
    """arXiv:2402.01613: BERT with rotary positions and SwiGLU."""
    eps, n_heads = meta["attention.layer_norm_epsilon"], meta["attention.head_count"]
    freqs = frequencies(meta["embedding_length"] // n_heads, meta["rope.freq_base"])
    x = w["token_embd.weight"][tokens]
    if "token_types.weight" in w:
        x = x + w["token_types.weight"][0]
    x = layer_norm(w, "token_embd_norm", x, eps)
    for i in range(meta["block_count"]):
        blk = f"blk.{i}."
        q, k, v = (heads(x, n_heads) for x in np.split(linear(w, f"{blk}attn_qkv", x), 3, axis=1))
        q, k = (rotate(x, freqs, neighbours=False) for x in (q, k))
        x = x + linear(w, f"{blk}attn_output", attend_both_ways(q, k, v))
        x = layer_norm(w, f"{blk}attn_output_norm", x, eps)
        gated = silu(linear(w, f"{blk}ffn_gate", x)) * linear(w, f"{blk}ffn_up", x)
        x = layer_norm(w, f"{blk}layer_output_norm", x + linear(w, f"{blk}ffn_down", gated), eps)
    return x


def jina_bert_v2(w: Weights, meta: Meta, tokens: Array) -> Array:
    """arXiv:2310.19923: BERT with a bias that grows with the distance (ALiBi, arXiv:2108.12409) and GeGLU."""
    eps, n_heads = meta["attention.layer_norm_epsilon"], meta["attention.head_count"]
    # the paper's code: where their number is no power of two, the rest are between those of half as many
    power = 2 ** int(np.log2(n_heads))
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    slopes += [2 ** (-4 * (2 * h + 1) / power) for h in range(n_heads - power)]
    i, j = np.indices((len(tokens), len(tokens)))
    away = -np.array(slopes)[:, None, None] * np.abs(i - j)
    x = layer_norm(w, "token_embd_norm", w["token_embd.weight"][tokens] + w["token_types.weight"][0], eps)
    for i in range(meta["block_count"]):
        blk = f"blk.{i}."
        q, k, v = (linear(w, f"{blk}attn_{name}", x) for name in "qkv")
        if f"{blk}attn_q_norm.weight" in w:
            q, k = (layer_norm(w, f"{blk}attn_{name}_norm", x, eps) for name, x in (("q", q), ("k", k)))
        h = attend_both_ways(*(heads(x, n_heads) for x in (q, k, v)), bias=away)
        h = layer_norm(w, f"{blk}attn_output_norm", x + linear(w, f"{blk}attn_output", h), eps)
        x = layer_norm(w, f"{blk}attn_norm_2", x + h, eps) if f"{blk}attn_norm_2.weight" in w else h
        h = linear(w, f"{blk}ffn_up", x)
        h = gelu(linear(w, f"{blk}ffn_gate", x)) * h if f"{blk}ffn_gate.weight" in w else gelu(h)
        x = layer_norm(w, f"{blk}layer_output_norm", x + linear(w, f"{blk}ffn_down", h), eps)
    return x


MODELS: Mapping[str, Callable[..., Array]] = {
    "llama": llama,
    "gemma3": gemma3,
    "bert": bert,
    "nomic-bert": nomic_bert,
    "jina-bert-v2": jina_bert_v2,
}
