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


def test_the_block_freed_last_is_reused_last() -> None:
    pool = BlockPool(4)
    table = pool.allocate(2) or []
    pool.free(table)
    assert pool.allocate(4) == [2, 3, *table]


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


@pytest.mark.parametrize("seed", range(20))
def test_random_walk(seed: int) -> None:
    """Sequences start, grow, fork and end in any order; the invariants hold after every operation."""
    rng = random.Random(seed)
    pool = BlockPool(rng.randint(1, 24))
    tables: list[list[int]] = []
    for _ in range(400):
        choice = rng.random()
        if choice < 0.6 or not tables:
            count, free = rng.randint(0, 5), pool.num_free
            blocks = pool.allocate(count)
            assert (blocks is None) == (count > free)
            if blocks is not None:
                if tables and choice < 0.3:
                    rng.choice(tables).extend(blocks)
                else:
                    tables.append(blocks)
        elif choice < 0.7:
            table = rng.choice(tables)
            shared = table[: rng.randint(0, len(table))]
            for block in shared:
                pool.share(block)
            tables.append(shared)
        else:
            pool.free(tables.pop(rng.randrange(len(tables))))
        pool.check(tables)
        assert pool.num_free + pool.num_used == pool.num_blocks
