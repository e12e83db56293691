"""The blocks of the KV cache: which are free, how many tables hold each of the others, what is in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class BlockPool:
    """Blocks 0 .. num_blocks - 1, each free or referred to by one block table or more.

    A block whose content is complete is published under the digest of all tokens up to its end
    (`prefix.py`). Anybody may then refer to it, while it is in use and as long as it has not been handed out
    anew. Free blocks are handed out in this order: those with nothing published, then those that have been
    free for the longest time. Being referred to by nobody is all that it takes to be evicted.
    """

    def __init__(self, num_blocks: int) -> None:
        assert num_blocks > 0, f"a pool needs at least one block, got {num_blocks}"
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._free = OrderedDict.fromkeys(range(num_blocks))  # in the order they are handed out
        self._digests: list[bytes | None] = [None] * num_blocks
        self._published: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    @property
    def num_cached(self) -> int:
        """Free blocks with content that can be found."""
        return sum(1 for block in self._free if self._digests[block] is not None)

    def allocate(self, count: int) -> list[int] | None:
        """`count` blocks with one reference each, or None (and nothing taken) when fewer are free."""
        if count > len(self._free):
            return None
        blocks = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
            self._unpublish(block)
        return blocks

    def share(self, block: int) -> None:
        """One more block table refers to a block that is in use or published."""
        if self._references[block] == 0:
            assert self._digests[block] is not None, f"block {block} is free and can't be shared"
            del self._free[block]
        self._references[block] += 1

    def free(self, blocks: Sequence[int]) -> None:
        """Take back one reference of each block; a block without any is free.

        The last goes first: of a prefix, the end is evicted before the beginning, without which it is
        worth nothing.
        """
        for block in reversed(blocks):
            assert self._references[block] > 0, f"block {block} is freed but was free already"
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None
                if self._digests[block] is None:
                    self._free.move_to_end(block, last=False)

    def is_free(self, block: int) -> bool:
        return self._references[block] == 0

    def publish(self, block: int, digest: bytes) -> None:
        """The content of a block in use is complete: what it is can be found under `digest` from now on.

        Two requests may have computed the same at the same time; the first block is the one that is found.
        """
        assert self._references[block] > 0, f"block {block} is free and can't be published"
        if self._digests[block] is None and digest not in self._published:
            self._digests[block] = digest
            self._published[digest] = block

    def find(self, digest: bytes) -> int | None:
        """The block published under a digest."""
        return self._published.get(digest)

    def find_prefix(self, digests: Iterable[bytes]) -> list[int]:
        """The blocks of the longest beginning of `digests` of which all are published."""
        found = []
        for digest in digests:
            if (block := self._published.get(digest)) is None:
                break
            found.append(block)
        return found

    def forget(self, digest: bytes) -> bool:
        """Let nobody find a block any more, if it is free; whether there was one."""
        block = self._published.get(digest)
        if block is None or self._references[block] > 0:
            return False
        self._unpublish(block)
        self._free.move_to_end(block, last=False)
        return True

    def _unpublish(self, block: int) -> None:
        digest = self._digests[block]
        if digest is not None:
            self._digests[block] = None
            del self._published[digest]

    def check(self, block_tables: Iterable[list[int]]) -> None:
        """Assert the invariants, given every block table that exists."""
        references = [0] * self.num_blocks
        for table in block_tables:
            assert len(set(table)) == len(table), f"a block is twice in the block table {table}"
            for block in table:
                references[block] += 1
        assert references == self._references, "the references don't add up to the block tables"
        assert all(references[block] == 0 for block in self._free), "a free block is in a block table"
        used = sum(1 for count in references if count)
        assert len(self._free) + used == self.num_blocks, (
            f"{len(self._free)} free + {used} used blocks, expected {self.num_blocks}"
        )
        published = {digest: i for i, digest in enumerate(self._digests) if digest is not None}
        assert published == self._published, "a digest leads to a block of another"
