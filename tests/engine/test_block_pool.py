from __future__ import annotations

import random

import pytest

from corral.engine.block_pool import BlockPool


def test_hands_out_each_block_once_and_then_none() -> None:
    pool = BlockPool(3)
    table = pool.allocate(2)
    assert table is not None
    assert pool.allocate(2) is None  # and takes nothing
    assert (pool.num_free, pool.num_used) == (1, 2)
    rest = pool.allocate(1)
    assert rest is not None
    assert sorted(table + rest) == [0, 1, 2]
    pool.check([table, rest])


def test_free_blocks_without_content_are_used_first_then_the_one_free_for_longest() -> None:
    pool = BlockPool(4)
    first, second, third, fourth = pool.allocate(4) or []
    pool.publish(second, b"2")
    pool.publish(fourth, b"4")
    for block in (second, first, fourth, third):
        pool.free([block])
    assert pool.num_cached == 2
    assert pool.allocate(4) == [third, first, second, fourth]
    assert pool.num_cached == 0


def test_the_end_of_a_prefix_is_evicted_before_its_beginning() -> None:
    pool = BlockPool(3)
    table = pool.allocate(3) or []
    for block in table:
        pool.publish(block, bytes([block]))
    pool.free(table)
    assert pool.allocate(1) == table[-1:]
    assert pool.find_prefix(bytes([block]) for block in table) == table[:-1]


def test_a_free_block_with_content_can_be_taken_back() -> None:
    pool = BlockPool(2)
    (block,) = pool.allocate(1) or []
    pool.publish(block, b"a")
    pool.free([block])
    pool.share(block)
    pool.check([[block]])
    assert (pool.num_used, pool.allocate(2)) == (1, None)


def test_the_first_of_two_blocks_with_the_same_content_is_found() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2) or []
    pool.publish(first, b"a")
    pool.publish(second, b"a")
    assert pool.find(b"a") == first
    pool.free([first, second])
    assert pool.allocate(1) == [second]
    assert pool.find(b"a") == first


@pytest.mark.parametrize("in_use", [False, True])
def test_forgetting_leaves_blocks_in_use_alone(in_use: bool) -> None:
    pool = BlockPool(1)
    table = pool.allocate(1) or []
    pool.publish(table[0], b"a")
    if not in_use:
        pool.free(table)
    assert pool.forget(b"a") is not in_use
    assert pool.find(b"a") == (table[0] if in_use else None)
    pool.check([table] if in_use else [])
    assert not pool.forget(b"b")


def test_a_shared_block_is_free_after_its_last_user() -> None:
    pool = BlockPool(1)
    (block,) = pool.allocate(1) or []
    pool.share(block)
    pool.check([[block], [block]])
    pool.free([block])
    assert pool.num_free == 0
    pool.free([block])
    assert pool.num_free == 1
    pool.check([])


@pytest.mark.parametrize("misuse", ["free", "share"])
def test_a_free_block_cannot_be_freed_or_shared(misuse: str) -> None:
    pool = BlockPool(2)
    with pytest.raises(AssertionError, match="block 1 is"):
        pool.free([1]) if misuse == "free" else pool.share(1)


@pytest.mark.parametrize(
    ("tables", "message"),
    [([[0], [0]], "add up"), ([[]], "add up"), ([[0, 0]], "twice"), ([[0, 1]], "add up")],
)
def test_check_finds_tables_that_do_not_match(tables: list[list[int]], message: str) -> None:
    pool = BlockPool(2)
    pool.allocate(1)  # block 0
    with pytest.raises(AssertionError, match=message):
        pool.check(tables)


class Twin:
    """The same rules, the slow way: a block holds its whole prefix and the time when it became free."""

    def __init__(self, num_blocks: int) -> None:
        self.time = 0
        self.references = [0] * num_blocks
        self.content: list[bytes | None] = [None] * num_blocks
        self.freed_at = list(range(num_blocks))

    def allocate(self, count: int) -> list[int] | None:
        free = [block for block, users in enumerate(self.references) if users == 0]
        if count > len(free):
            return None
        taken = sorted(free, key=lambda block: (self.content[block] is not None, self.freed_at[block]))[
            :count
        ]
        for block in taken:
            self.references[block], self.content[block] = 1, None
        return taken

    def free(self, blocks: list[int]) -> None:
        for block in reversed(blocks):
            self.references[block] -= 1
            if self.references[block] == 0:
                self.time += 1
                # of those without content the last comes first
                self.freed_at[block] = 1000 + self.time if self.content[block] else -self.time

    def publish(self, block: int, prefix: bytes) -> None:
        if self.content[block] is None and prefix not in self.content:
            self.content[block] = prefix

    def find_prefix(self, prefixes: list[bytes]) -> list[int]:
        found = [self.content.index(prefix) if prefix in self.content else None for prefix in prefixes]
        return [block for i, block in enumerate(found) if block is not None and None not in found[:i]]


@pytest.mark.parametrize("seed", range(30))
def test_random_walk(seed: int) -> None:
    """Sequences start (behind what is cached of them), grow, and end in any order, as in the slow twin; the
    invariants hold after every operation."""
    rng = random.Random(seed)
    pool = BlockPool(rng.randint(1, 24))
    twin = Twin(pool.num_blocks)
    sequences: list[tuple[bytes, list[int]]] = []  # a block for each letter
    hits = 0
    for _ in range(400):
        choice = rng.random()
        if choice < 0.5 or not sequences:
            text = bytes(rng.choice(b"ab") for _ in range(rng.randint(1, 6)))
            prefixes = [text[: i + 1] for i in range(len(text))]
            cached = pool.find_prefix(prefixes)
            assert cached == twin.find_prefix(prefixes)
            for block in cached:
                pool.share(block)
                twin.references[block] += 1
            hits += len(cached)
            fresh = pool.allocate(len(text) - len(cached))
            assert fresh == twin.allocate(len(text) - len(cached))
            table = cached + (fresh or [])
            sequences.append((text[: len(table)], table))
        elif choice < 0.7:
            text, table = rng.choice(sequences)
            for i, block in enumerate(table[: rng.randint(0, len(table))]):
                pool.publish(block, text[: i + 1])
                twin.publish(block, text[: i + 1])
        else:
            _, table = sequences.pop(rng.randrange(len(sequences)))
            pool.free(table)
            twin.free(table)
        pool.check([table for _, table in sequences])
        assert pool.num_free == twin.references.count(0)
        assert pool.num_cached == sum(
            1 for block, content in enumerate(twin.content) if content and not twin.references[block]
        )
    assert hits or pool.num_blocks < 4
