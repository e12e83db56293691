"""The batch of a step is defined beside the executors that read it."""

from corral.program.batch import BLOCK_TOKENS, Batch, Executor

__all__ = ["BLOCK_TOKENS", "Batch", "Executor"]
