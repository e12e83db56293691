"""What a step gives back of a model: logits, hidden states to make embeddings of, or scores of a ranking.

A model file ends in logits or, as an encoder has none, in hidden states. Here that end becomes what is
wanted.
"""

from __future__ import annotations

from typing import Literal

from corral.program.module import Binder, Linear
from corral.program.program import Linear as LinearOp
from corral.program.program import Program, TakeRows
from corral.program.trace import Tensor, softcap

Output = Literal["logits", "hidden", "scores"]


class Head:
    """The layers of a ranking model that make a score of a hidden state, as far as the file has them."""

    def __init__(self, binder: Binder) -> None:
        self.dense: Linear | None = binder.leaf(Linear, "cls")
        self.output: Linear | None = binder.leaf(Linear, "cls.output")

    def __bool__(self) -> bool:
        return self.dense is not None or self.output is not None

    def __call__(self, x: Tensor) -> Tensor:
        """x [S, D] -> [S, labels]: a dense layer with tanh, then a linear one."""
        if self.dense:
            x = softcap(self.dense(x), 1.0)
        return self.output(x) if self.output else x


def hidden_states(result: Tensor) -> Tensor:
    """What the output matrix would make logits of, [S, D]; all that comes behind is taken off the trace."""
    trace = result.trace
    for i, op in enumerate(trace.ops):
        if isinstance(op, LinearOp) and trace.buffers[op.x].rows == "S":
            del trace.ops[i:]
            return Tensor(trace, op.x, "S", trace.buffers[op.x].cols)
    return result


def has_logits(program: Program) -> bool:
    """Whether this model can generate; an encoder ends with its hidden states."""
    return not isinstance(program.ops[-1], TakeRows)
