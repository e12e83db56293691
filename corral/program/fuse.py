"""Rewrites of a Program that leave its results as they are."""

from __future__ import annotations

from dataclasses import replace

from corral.program.program import Linear, Op, Program


def merge_linears(program: Program) -> Program:
    """Linears in a row that share their input become one op: threads meet once for all of them."""
    ops: list[Op] = []
    for op in program.ops:
        last = ops[-1] if ops else None
        if isinstance(op, Linear) and isinstance(last, Linear) and last.x == op.x:
            ops[-1] = Linear(last.outs + op.outs, op.x, last.weights + op.weights, last.biases + op.biases)
        else:
            ops.append(op)
    return replace(program, ops=tuple(ops))


def fuse(program: Program) -> Program:
    """All rewrites, in order."""
    fused = merge_linears(program)
    fused.check()
    return fused
