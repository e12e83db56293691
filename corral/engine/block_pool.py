"""The blocks of the KV cache: which are free, and how many block tables hold each of the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class BlockPool:
    """Blocks 0 .. num_blocks - 1, each free or referred to by one block table or more.

    Free blocks are handed out in the order they were freed, so the content of a block outlives its last
    user for as long as possible: a prefix cache only has to remember which free blocks hold what, and take
    those back.
    """

    def __init__(self, num_blocks: int) -> None:
        assert num_blocks > 0, f"a pool needs at least one block, got {num_blocks}"
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._free = deque(range(num_blocks))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def allocate(self, count: int) -> list[int] | None:
        """`count` blocks with one reference each, or None (and nothing taken) when fewer are free."""
        if count > len(self._free):
            return None
        blocks = [self._free.popleft() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def share(self, block: int) -> None:
        """One more block table refers to a block in use."""
        assert self._references[block] > 0, f"block {block} is free and can't be shared"
        self._references[block] += 1

    def free(self, blocks: Iterable[int]) -> None:
        """Take back one reference of each block; a block without any is free."""
        for block in blocks:
            assert self._references[block] > 0, f"block {block} is freed but was free already"
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)

    def check(self, block_tables: Iterable[list[int]]) -> None:
        """Assert the invariants, given every block table that exists."""
        references = [0] * self.num_blocks
        for table in block_tables:
            assert len(set(table)) == len(table), f"a block is twice in the block table {table}"
            for block in table:
                references[block] += 1
        assert references == self._references, "the references don't add up to the block tables"
        assert len(set(self._free)) == len(self._free), "a block is free twice"
        assert all(references[block] == 0 for block in self._free), "a free block is in a block table"
        used = sum(1 for count in references if count)
        assert len(self._free) + used == self.num_blocks, (
            f"{len(self._free)} free + {used} used blocks, expected {self.num_blocks}"
        )
