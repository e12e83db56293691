"""The scheduler alone: a token is appended where a step catches up, as a sampler would."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from fake_executor import TABLES, limits

from corral.engine.messages import Submit
from corral.engine.output import TextStream
from corral.engine.prefix import PrefixHash
from corral.engine.request import Request, State
from corral.engine.scheduler import Limits, Part, Scheduler
from corral.engine.turns import MOST_NAMES, Turns
from corral.program.batch import BLOCK_TOKENS
from corral.sampling.chain import Chain
from corral.sampling.params import SamplingParams


def request(
    arrival: int,
    num_prompt: int,
    max_new: int = 4,
    client: str = "",
    connection: str = "",
    tokens: Iterable[int] = (),
    cache_prompt: bool = True,
    id_slot: int = -1,
) -> Request:
    """`tokens` begin the prompt; what follows is like no other request's."""
    prompt = [*tokens, *([100 + arrival] * num_prompt)][:num_prompt]
    submit = Submit(
        id=f"r{arrival}", prompt=prompt, client=client, connection=connection, cache_prompt=cache_prompt,
        id_slot=id_slot,
    )  # fmt: skip
    chain, text = Chain(SamplingParams(), seed=0), TextStream(TABLES)
    return Request(
        submit=submit, arrival=arrival, max_new=max_new, chain=chain, text=text, tokens=list(submit.prompt)
    )


def scheduler_of(*requests: Request, **changes: int) -> Scheduler:
    scheduler = Scheduler(limits(**changes))
    for one in requests:
        scheduler.add(one)
    return scheduler


def step(scheduler: Scheduler) -> list[Part]:
    """Schedule, check what must hold for every step, and do what the engine does."""
    parts = scheduler.schedule()
    scheduler.check()
    counts = [part.num_new for part in parts]
    assert sum(counts) <= scheduler.limits.step_tokens
    assert all(1 <= count <= scheduler.limits.chunk_tokens for count in counts)
    scheduled = [part.request for part in parts]
    assert scheduled == [one for one in scheduler.running if one in scheduled], "by arrival, each once"
    assert {one for one in scheduler.running if one.num_todo == 1} <= set(scheduled), "a stream pauses"
    lagging = [one for one in scheduler.running if one.num_todo > 1]
    assert not lagging or lagging[0] in scheduled, "the oldest that lags does not get on"
    for one, count, _ in parts:
        assert count <= one.num_todo
        scheduler.computed(one, count)
        assert one.num_computed_tokens <= len(one.block_table) * BLOCK_TOKENS
        if one.num_todo == 0:
            one.tokens.append(2)
            if one.num_generated >= one.max_new:
                scheduler.finish(one)
    scheduler.check()
    return parts


def shape(parts: list[Part]) -> dict[str, int]:
    return {part.request.id: part.num_new for part in parts}


def test_a_prompt_is_computed_in_chunks_then_token_by_token() -> None:
    scheduler = scheduler_of(request(1, 20, max_new=3), chunk_tokens=8)
    assert [shape(step(scheduler)) for _ in range(6)] == [
        {"r1": 8}, {"r1": 8}, {"r1": 4}, {"r1": 1}, {"r1": 1}, {}
    ]  # fmt: skip


def test_a_long_prompt_does_not_stop_those_that_generate() -> None:
    talker = request(1, 1, max_new=100)
    scheduler = scheduler_of(talker, step_tokens=16)
    step(scheduler)
    scheduler.add(request(2, 100))
    for done in range(1, 7):
        assert shape(step(scheduler)) == {"r1": 1, "r2": 15}
        assert talker.num_generated == 1 + done


def test_a_quarter_of_the_prompt_budget_is_for_the_oldest_the_rest_for_the_shortest_first() -> None:
    scheduler = scheduler_of(request(1, 90), request(2, 60), request(3, 10), step_tokens=40)
    assert shape(step(scheduler)) == {"r1": 10, "r2": 20, "r3": 10}
    assert shape(step(scheduler)) == {"r1": 10, "r2": 29, "r3": 1}
    assert shape(step(scheduler)) == {"r1": 28, "r2": 11, "r3": 1}


def test_what_the_others_can_not_use_is_for_the_oldest_too() -> None:
    scheduler = scheduler_of(request(1, 90), request(2, 3), step_tokens=40)
    assert shape(step(scheduler)) == {"r1": 37, "r2": 3}


def test_many_short_prompts_do_not_starve_a_long_one() -> None:
    long = request(1, 400)
    scheduler = scheduler_of(long, step_tokens=16)
    for arrival in range(2, 200):
        scheduler.add(request(arrival, 12, max_new=1))
        step(scheduler)
        if long.num_todo <= 1:
            break
    assert arrival <= 400 / (16 / 4) + 2


def test_one_token_for_each_that_runs_even_if_the_budget_is_only_that() -> None:
    scheduler = scheduler_of(*(request(i, 10) for i in range(1, 6)), step_tokens=3, parallel=5)
    assert scheduler.limits.sequences == 3
    seen = [shape(step(scheduler)) for _ in range(100)]
    assert {id for parts in seen for id in parts} == {"r1", "r2", "r3", "r4", "r5"}


def test_at_most_parallel_sequences_and_the_next_follows_at_once() -> None:
    scheduler = scheduler_of(request(1, 1, max_new=1), request(2, 1, max_new=9), request(3, 1), parallel=2)
    assert shape(step(scheduler)) == {"r1": 1, "r2": 1}
    assert shape(step(scheduler)) == {"r2": 1, "r3": 1}


def test_nobody_overtakes_a_request_that_does_not_fit_yet() -> None:
    # 4 blocks: the first takes 3, the second needs 3, the third would fit
    scheduler = scheduler_of(
        request(1, 70, max_new=5), request(2, 70), request(3, 1), num_blocks=4, n_ctx=128
    )
    ran = [shape(step(scheduler)) for _ in range(6)]
    assert ran[0] == {"r1": 70}
    assert ran[4] == {"r1": 1}
    assert ran[5] == {"r2": 70}


def test_clients_take_turns_and_each_is_served_in_order() -> None:
    greedy = [request(i, 1, max_new=3, client="greedy") for i in range(1, 9)]
    scheduler = scheduler_of(*greedy, request(9, 1, max_new=3, client="modest"), parallel=2)
    assert shape(step(scheduler)) == {"r1": 1, "r9": 1}


def serve(scheduler: Scheduler, comes: dict[str, Request] | None = None) -> str:
    """The clients in the order in which their requests run. `comes`: which arrives when one has run."""
    order = ""
    while scheduler.waiting or scheduler.running:
        known = {one.id for one in scheduler.running}
        for part in step(scheduler):
            if part.request.id not in known:
                order += part.request.submit.client
                if one := (comes or {}).pop(part.request.id, None):
                    scheduler.add(one)
    return order


def test_one_at_a_time_clients_take_turns_too() -> None:
    many = [request(i, 1, max_new=1, client="a") for i in range(1, 6)]
    some = [request(i, 1, max_new=1, client="b") for i in range(6, 9)]
    scheduler = scheduler_of(*many, *some, request(9, 1, max_new=1, client="c"), parallel=1)
    assert serve(scheduler) == "abcababaa"


def test_who_comes_again_and_again_does_not_pass_those_that_wait() -> None:
    waiting = [request(i, 1, max_new=1, client="a") for i in range(1, 5)]
    again = {f"r{i}": request(i + 1, 1, max_new=1, client="b") for i in range(5, 9)}
    scheduler = scheduler_of(*waiting, request(5, 1, max_new=1, client="b"), parallel=1)
    assert serve(scheduler, again) == "abababab" + "b"


def test_newcomers_do_not_pass_those_that_wait() -> None:
    regular = [request(i, 1, max_new=1, client="a") for i in range(1, 4)]
    new = {f"r{i}": request(10 + i, 1, max_new=1, client=chr(ord("b") + i)) for i in range(1, 4)}
    new |= {f"r{10 + i}": request(20 + i, 1, max_new=1, client=chr(ord("h") + i)) for i in range(1, 4)}
    order = serve(scheduler_of(*regular, parallel=1), new)
    assert [i for i, client in enumerate(order) if client == "a"][-1] <= 6, order


def test_connections_of_one_client_take_turns() -> None:
    batch = [request(i, 1, max_new=1, connection="batch") for i in range(1, 5)]
    scheduler = scheduler_of(*batch, request(5, 1, max_new=1, connection="chat"), parallel=1)
    assert [list(shape(step(scheduler))) for _ in range(3)] == [["r1"], ["r5"], ["r2"]]


def test_turns_are_not_lost_with_those_that_left() -> None:
    impatient = [request(i, 1, max_new=1, client="a") for i in range(1, 9)]
    scheduler = scheduler_of(*impatient, *[request(i, 1, max_new=1, client="b") for i in (9, 10)], parallel=1)
    for one in impatient[:7]:
        scheduler.finish(one)
    assert serve(scheduler) == "abb"


def test_few_clients_are_remembered() -> None:
    turns = Turns()
    for i in range(3 * MOST_NAMES):
        one = Submit(id="", prompt=[1], client=f"{i}")
        turns.begin(one, [Submit(id="", prompt=[1], client="another")])
        turns.take(one)
    assert len(turns._next) <= MOST_NAMES


def test_without_blocks_the_youngest_is_preempted_and_resumes() -> None:
    # 5 blocks: each prompt takes 2, and the first to need a third block gets the last
    old, young = request(1, 63, max_new=60), request(2, 63, max_new=60)
    scheduler = scheduler_of(old, young, num_blocks=5, n_ctx=160)
    while len(step(scheduler)) == 2:
        assert scheduler.preemptions == 0
    assert scheduler.preemptions == 1
    assert (young.state, young.num_computed_tokens, young.block_table) == (State.WAITING, 0, [])
    kept = list(young.tokens)
    assert len(kept) > 63
    while old.state is State.RUNNING:
        assert shape(step(scheduler)) == {"r1": 1}
    assert shape(step(scheduler)) == {"r2": len(kept) - 32}  # its first block is still there
    assert young.tokens[: len(kept)] == kept
    while scheduler.running:
        step(scheduler)
    assert (old.num_generated, young.num_generated, scheduler.pool.num_used) == (60, 60, 0)


def test_a_preempted_request_is_first_in_line() -> None:
    old, young = request(1, 63, max_new=60, client="a"), request(2, 63, max_new=60, client="a")
    scheduler = scheduler_of(old, young, num_blocks=5, n_ctx=160)
    step(scheduler)
    scheduler.add(request(3, 1, client="b"))
    while scheduler.preemptions == 0:
        assert "r3" not in shape(step(scheduler))  # no block to spare for it yet
    while old.state is State.RUNNING:
        assert shape(step(scheduler)) == {"r1": 1}
    assert next(iter(shape(step(scheduler)))) == "r2"


def test_a_pool_that_holds_just_one_request_still_serves_all() -> None:
    requests = [request(i, 31, max_new=97) for i in range(1, 6)]
    scheduler = scheduler_of(*requests, num_blocks=4, n_ctx=128, parallel=4)
    for _ in range(5 * 98 * 2):
        step(scheduler)
    assert [one.num_generated for one in requests] == [97] * 5


@pytest.mark.parametrize("when", ["waiting", "in its prompt", "generating", "preempted"])
def test_a_request_can_be_ended_at_any_time(when: str) -> None:
    old, young = request(1, 63, max_new=60), request(2, 63, max_new=60)
    scheduler = scheduler_of(old, young, num_blocks=5, n_ctx=160, chunk_tokens=40)
    reached = {
        "waiting": lambda: True,
        "in its prompt": lambda: 0 < young.num_computed_tokens < 63,
        "generating": lambda: young.num_generated > 0,
        "preempted": lambda: young.preemptions > 0,
    }[when]
    while not reached():
        step(scheduler)
    scheduler.finish(young)
    scheduler.check()
    while scheduler.running or scheduler.waiting:
        assert "r2" not in shape(step(scheduler))
    assert (old.num_generated, scheduler.pool.num_used) == (60, 0)


# -- the prefix cache --


def test_a_request_begins_behind_the_longest_prefix_that_is_there() -> None:
    scheduler = scheduler_of(request(1, 100, max_new=1))
    step(scheduler)
    same, longer, other = (
        request(2, 100, tokens=[101] * 100),
        request(3, 100, tokens=[101] * 70),
        request(4, 100),
    )
    for one in (same, longer, other):
        scheduler.add(one)
    assert shape(step(scheduler)) == {"r2": 4, "r3": 36, "r4": 100}
    assert [one.num_cached for one in (same, longer, other)] == [96, 64, 0]
    assert same.block_table[:2] == longer.block_table[:2]
    assert scheduler.pool.num_used == 4 + 2 + 4


def test_a_token_is_left_to_compute() -> None:
    scheduler = scheduler_of(request(1, 64, max_new=1))
    step(scheduler)
    scheduler.add(request(2, 64, tokens=[101] * 64))
    assert shape(step(scheduler)) == {"r2": 32}


def test_what_was_generated_is_found_too() -> None:
    first = request(1, 40, max_new=60)
    scheduler = scheduler_of(first)
    while first.state is not State.FINISHED:
        step(scheduler)
    scheduler.add(request(2, 120, tokens=first.tokens))
    assert shape(step(scheduler)) == {"r2": 120 - 96}


def test_nothing_is_taken_from_the_cache_by_one_that_asks_for_that() -> None:
    scheduler = scheduler_of(request(1, 100, max_new=1))
    step(scheduler)
    scheduler.add(request(2, 100, tokens=[101] * 100, cache_prompt=False))
    assert shape(step(scheduler)) == {"r2": 100}


def test_the_same_prompt_at_the_same_time_is_computed_once() -> None:
    same = [request(i, 200, max_new=9, tokens=[7] * 200) for i in range(1, 5)]
    scheduler = scheduler_of(*same, chunk_tokens=64)
    assert [shape(step(scheduler)) for _ in range(4)] == [
        {"r1": 64}, {"r1": 64}, {"r1": 64}, {"r1": 8, "r2": 8, "r3": 8, "r4": 8}
    ]  # fmt: skip
    assert scheduler.pool.num_used == 6 + 4


def test_those_that_wait_for_the_block_of_another_go_on_without_it() -> None:
    first, second = (request(i, 200, max_new=9, tokens=[7] * 200) for i in (1, 2))
    scheduler = scheduler_of(first, second, chunk_tokens=40)
    assert shape(step(scheduler)) == {"r1": 40}
    scheduler.finish(first)
    assert shape(step(scheduler)) == {"r2": 40}  # from its second block on
    assert second.num_computed_tokens == 72


def test_blocks_of_the_cache_are_evicted_when_they_are_needed() -> None:
    scheduler = scheduler_of(request(1, 90, max_new=1), n_ctx=128, num_blocks=4)
    step(scheduler)
    assert scheduler.pool.num_cached == 2
    scheduler.add(request(2, 90, max_new=1))
    step(scheduler)
    scheduler.add(request(3, 90, max_new=1, tokens=[101] * 90))
    assert shape(step(scheduler)) == {"r3": 58}  # the first block of the two is left


def test_clients_can_not_make_digests_collide() -> None:
    """Whatever is known of one process's digests says nothing of another's."""
    found = []
    for hash in (PrefixHash(), PrefixHash(), PrefixHash(b"1"), PrefixHash(b"1")):
        digests: list[bytes] = []
        hash.extend(digests, [1] * 70)
        assert len(digests) == len(set(digests)) == 2
        found.append(digests)
    assert found[0] != found[1]
    assert found[2] == found[3]


# -- slots --


def test_each_that_runs_has_a_slot_and_the_one_it_likes_if_it_is_free() -> None:
    requests = [request(i, 5, max_new=i, id_slot=slot) for i, slot in ((1, 2), (2, 2), (3, -1), (4, 0))]
    scheduler = scheduler_of(*requests, parallel=3)
    step(scheduler)
    assert [one.slot for one in requests] == [2, 0, 1, -1]
    step(scheduler)
    assert requests[3].slot == 2  # the first is done
    slots = scheduler.slots.stats()
    assert [(one.id, one.is_processing, one.request) for one in slots] == [
        (0, False, "r2"), (1, True, "r3"), (2, True, "r4")
    ]  # fmt: skip
    assert [(one.n_decoded, one.n_remain, one.n_prompt_tokens) for one in slots] == [
        (0, -1, 5), (2, 1, 5), (1, 3, 5)
    ]  # fmt: skip


def test_limits_that_could_never_work_are_refused() -> None:
    with pytest.raises(AssertionError, match="can't hold one request"):
        Limits(n_ctx=33, num_blocks=1, parallel=1)


@pytest.mark.parametrize("seed", range(30))
def test_random_walk(seed: int) -> None:
    """Requests of all sizes come and go; every step keeps its promises, and all that stay are served."""
    rng = random.Random(seed)
    num_blocks = rng.randint(2, 30)
    scheduler = Scheduler(
        Limits(
            n_ctx=rng.randint(40, num_blocks * BLOCK_TOKENS),
            num_blocks=num_blocks,
            parallel=rng.randint(1, 8),
            step_tokens=rng.choice([1, 3, 16, 64, 512]),
            chunk_tokens=rng.choice([1, 7, 512]),
        )
    )
    n_ctx = scheduler.limits.n_ctx
    alive: list[Request] = []
    kept: list[Request] = []
    for arrival in range(1, 40):
        num_prompt = rng.randint(1, n_ctx - 1)
        new = request(
            arrival,
            num_prompt,
            rng.randint(1, n_ctx - num_prompt),
            client=rng.choice("abc"),
            tokens=[rng.choice([8, 9])] * rng.randint(0, num_prompt),
            cache_prompt=rng.random() < 0.9,
            id_slot=rng.randint(-1, 9),
        )
        scheduler.add(new)
        alive.append(new)
        for _ in range(rng.randint(0, 12)):
            step(scheduler)
        if rng.random() < 0.3:
            gone = alive.pop(rng.randrange(len(alive)))
            scheduler.finish(gone)
            scheduler.check()
        kept = alive
    # at least one token a step, and the oldest is never preempted: this bounds what preemption can waste
    for _ in range(200_000):
        if not (scheduler.running or scheduler.waiting):
            break
        assert step(scheduler), "work to do, but an empty step"
    assert all(one.state is State.FINISHED and one.num_generated == one.max_new for one in kept)
    assert scheduler.pool.num_used == 0
