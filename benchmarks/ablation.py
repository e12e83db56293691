"""Which rounding costs how much? The numpy executor with some of corral's roundings, against float64.

    python benchmarks/ablation.py MODEL.gguf

Weights are what the file says in every row: what is measured is what computing with int8 activations adds.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout, installed or not

from divergence import Scores, score_window
from quality import TEXT, windows
from runners import Corral

from corral.gguf.reader import GGUFFile
from corral.models import trace_program
from corral.program.reference import FLOAT_TYPES, ReferenceExecutor
from corral.tokenizer.tokenizer import load_tokenizer

Float = NDArray[Any]
Round = Callable[[Float], Float]


def int8(group: int, *, half_scale: bool = False) -> Round:
    """Rows as int8 with one scale, max|x| / 127, for `group` numbers; half_scale keeps it in float16."""

    def rounded(x: Float) -> Float:
        groups = x.reshape(len(x), -1, group)
        scale = np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127)
        q = np.rint(np.divide(groups, scale, out=np.zeros_like(groups), where=scale > 0))
        kept = scale.astype(np.float16).astype(np.float32) if half_scale else scale
        return np.asarray(q * kept).reshape(x.shape)

    return rounded


class Rounded(ReferenceExecutor):
    """Rounds the inputs of linears whose tensor name matches; else float32, with a float16 KV cache."""

    def __init__(self, file: GGUFFile, names: str, rounding: Round) -> None:
        super().__init__(trace_program(file), file, quantize_activations=False)
        self.names, self.rounding = re.compile(names), rounding

    def _linear(self, x: Float, weight: int, bias: int | None) -> Float:
        info = self.program.weights[weight]
        if info.type not in FLOAT_TYPES and self.names.search(info.name):
            x = self.rounding(x)
        return super()._linear(x, weight, bias)


VARIANTS: dict[str, tuple[str, Round]] = {
    "none (float16 KV cache only)": ("^$", int8(32)),
    "attn_q, attn_k, attn_v": (r"attn_[qkv]\.", int8(32)),
    "attn_output": (r"attn_output\.", int8(32)),
    "ffn_gate, ffn_up": (r"ffn_(gate|up)\.", int8(32)),
    "ffn_down": (r"ffn_down\.", int8(32)),
    "output": (r"^(output|token_embd)\.", int8(32)),
    "all but output": (r"^blk\.", int8(32)),
    "all": ("", int8(32)),
    "all, scale in float16, as ggml has it": ("", int8(32, half_scale=True)),
    "all, groups of 16": ("", int8(16)),
    "all, groups of 64": ("", int8(64)),
    "all, a scale for the whole row": ("", lambda x: int8(x.shape[1])(x)),
}
"""Row of the table -> names of the tensors whose inputs are rounded, and how."""


def main() -> None:
    parser = argparse.ArgumentParser(description="What each rounding of activations costs.")
    add = parser.add_argument
    add("model", type=Path, help="a GGUF file")
    add("--text", type=Path, default=TEXT, help="what to read (default: text.txt beside this script)")
    add("--tokens", type=int, default=2560, help="how many (default: 2560)")
    add("--window", type=int, default=512, help="tokens of context, each window anew (default: 512)")
    args = parser.parse_args()
    with GGUFFile.open(args.model) as file:
        parts = windows(load_tokenizer(file), args.text.read_text(), args.window, args.tokens)
        reference = Corral.reference(file, args.window)
        # one executor whose rounding changes: the weights are large
        executor = Rounded(file, *VARIANTS["all"])
        runner = Corral(executor, args.window)
        found: dict[str, list[Scores]] = {name: [] for name in VARIANTS}
        for tokens in track(parts, "windows", console=Console(stderr=True)):
            truth = reference.logits(tokens.tolist(), every=True)
            for name, (pattern, rounding) in VARIANTS.items():
                executor.names, executor.rounding = re.compile(pattern), rounding
                found[name] += score_window(truth, [runner.logits(tokens.tolist(), every=True)], tokens)[1:]
    table = Table("inputs rounded to int8", "mean KL", "median", "99th pct", "same top token")
    for name, scores in found.items():
        r = Scores.join(scores).summary()
        table.add_row(name, f"{r.kl_mean:.2e}", f"{r.kl_median:.2e}", f"{r.kl_p99:.2e}", f"{r.same_top:.2%}")
    Console().print(table)


if __name__ == "__main__":
    main()
