"""One file per architecture, named as `general.architecture` (with `_` for `-`).

Such a file has a class `Model` (a `Module` with `forward(step, cfg)`), the metadata `TINY` of a toy model for
the tests, and a `Config` with `read(file)` when the common one in `program/config.py` is not enough.
"""

from __future__ import annotations

import importlib
import pkgutil

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.program import config
from corral.program.module import Binder
from corral.program.outputs import Head, Output, has_logits, hidden_states
from corral.program.program import Attention, Embed, Program
from corral.program.trace import ShapeMismatch, Trace, fits


def architectures() -> list[str]:
    """The names this version can run, as they stand in `general.architecture`."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def trace_program(file: GGUFFile, output: Output = "logits") -> Program:
    """Run the file's model once on symbolic tensors. An encoder has hidden states for "logits" too.

    Raises ModelFileError for an unknown architecture, missing or left-over tensors, and shapes that don't fit
    together.
    """
    arch = file.architecture
    if arch not in architectures():
        raise ModelFileError(
            file.path, "general.architecture", repr(arch), "one of " + ", ".join(architectures())
        )
    module = importlib.import_module(f"{__name__}.{arch.replace('-', '_')}")
    cfg = getattr(module, "Config", config.Config).read(file)
    binder = Binder(file, cfg.norm_eps, cfg.block_count)
    trace = Trace()
    model = module.Model(binder)
    head = Head(binder)
    binder.finish(model.ignored)
    if output == "scores" and not head:
        raise ModelFileError(file.path, "tensors", "without cls and cls.output", "a head, to rank with")
    try:
        result = model.forward(trace, cfg)
        program = trace.program(result)
        _expect_of_metadata(program, cfg)
        if output != "logits":
            hidden = hidden_states(result)
            program = trace.program(head(hidden) if output == "scores" else hidden)
    except ShapeMismatch as error:
        wanted = "shapes that follow from the metadata"
        raise ModelFileError(file.path, "tensor shapes", str(error), wanted) from None
    return program


def _expect_of_metadata(program: Program, cfg: config.Config) -> None:
    """Tensors that fit one another may still be another model's than the metadata describe."""
    for op in program.ops:
        if isinstance(op, Embed):
            name, (vocabulary, width) = program.weights[op.weight].name, program.weights[op.weight].shape
            fits(width == cfg.width, f"{name} has {width} columns, embedding_length is {cfg.width}")
            if op.by == "position":
                positions = f"{name} has {vocabulary} positions, context_length is {cfg.context_length}"
                fits(vocabulary >= cfg.context_length, positions)
            elif op.by == "token" and has_logits(program):
                fits(
                    vocabulary == program.width,
                    f"{name} has {vocabulary} tokens, the output {program.width}",
                )
        if isinstance(op, Attention):
            found = (op.heads, program.kv_layers[op.layer].kv_heads)
            fits(
                found == (cfg.heads, cfg.kv_heads),
                f"layer {op.layer} has {found[0]} heads and {found[1]} key heads of {cfg.head_dim}, "
                f"head_count is {cfg.heads}, head_count_kv {cfg.kv_heads}",
            )
