"""GET /metrics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_engine import READY, FakeEngine, fake_state
from prometheus_client.parser import text_string_to_metric_families

from corral.engine.messages import Output, Stats, Status, Submit, Timings
from corral.server.metrics import Metrics
from corral.server.observer import Histogram, Observer

LLAMA_SERVER = {
    "prompt_tokens_total": 10, "prompt_tokens_cached_total": 30, "prompt_seconds_total": 0.5,
    "tokens_predicted_total": 8, "tokens_predicted_seconds_total": 2, "n_decode_total": 4, "n_tokens_max": 99,
    "spec_decode_num_draft_tokens_total": 6, "spec_decode_num_accepted_tokens_total": 5,
    "spec_decode_num_drafts_total": 2, "prompt_tokens_seconds": 20, "predicted_tokens_seconds": 4,
    "requests_processing": 1, "requests_deferred": 3, "n_busy_slots_per_decode": 2.5,
}  # fmt: skip
STATS = Stats(
    running=1, waiting=3, waiting_tokens=77, blocks_used=5, blocks_cached=2, blocks_total=20,
    prompt_tokens=10, cached_tokens=30, prompt_ms=500, predicted_tokens=8, predicted_ms=2000, steps=4,
    step_sequences=10, most_tokens=99, drafts=2, draft_tokens=6, draft_accepted=5, draft_accepted_at=[2, 1],
    cache_hits=3, cache_misses=1, preemptions=6, rejected=7,
)  # fmt: skip


def state(stats: Stats = STATS, **config: Any) -> Any:
    engine = FakeEngine()
    engine.status = Status(state="ready", ready=READY, stats=stats)
    return fake_state(engine, metrics=True, **config)


def samples(text: str) -> dict[str, float]:
    """By name, with the labels behind it."""
    return {
        s.name + "".join(f",{k}={v}" for k, v in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


async def test_llama_servers_numbers(connected: Any) -> None:
    async with connected(state()) as client:
        response: httpx.Response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert int(response.headers["process-start-time-unix"]) > 1_700_000_000
    found = samples(response.text)
    for name, value in LLAMA_SERVER.items():
        assert found["llamacpp:" + name] == value, name
    at = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total"
    assert (found[at + ",position=0"], found[at + ",position=1"]) == (2, 1)


async def test_every_metric_has_help_and_a_type(connected: Any) -> None:
    async with connected(state()) as client:
        await client.post("/completion", json={"prompt": "a"})
        lines = (await client.get("/metrics")).text.splitlines()
    described = {line.split()[2] for line in lines if line.startswith("# HELP")}
    assert described == {line.split()[2] for line in lines if line.startswith("# TYPE")}
    for line in lines:
        if not line.startswith("#"):
            name = line.split("{")[0].split()[0]
            assert any(name.removesuffix(s) in described for s in ("", "_bucket", "_sum", "_count")), name


async def test_rates_are_those_since_the_last_scrape(connected: Any) -> None:
    made = state()
    engine = made.engine.engine
    async with connected(made) as client:
        rates = []
        for stats in (STATS, STATS, Stats(steps=9, prompt_tokens=20, prompt_ms=600), Stats(steps=1)):
            engine.status = Status(state="ready", ready=READY, stats=stats)
            rates.append(samples((await client.get("/metrics")).text)["llamacpp:prompt_tokens_seconds"])
    assert rates == [20, 0, 100, 0]


async def test_requests_are_counted_by_route_and_status(connected: Any) -> None:
    async with connected(state(api_keys=("k",))) as client:
        headers = {"X-Api-Key": "k"}
        for path, key in (("/health", {}), ("/props", headers), ("/props", {}), ('/a"b', headers)):
            await client.get(path, headers=key)
        await client.get("/v1/models/other", headers=headers)
        await client.post("/completion", json={}, headers=headers)
        found = samples((await client.get("/metrics", headers=headers)).text)
    counts = {name: n for name, n in found.items() if name.startswith("corral_responses_total")}
    assert counts == {
        f"corral_responses_total,route={route},status={status}": 1
        for route, status in (
            ("/health", 200), ("/props", 200), ("/props", 401), ("other", 404), ("/v1/models/{id:path}", 404),
            ("/completion", 400),
        )
    }  # fmt: skip


async def test_latencies_and_endings(connected: Any) -> None:
    async with connected(state()) as client:
        await client.post("/completion", json={"prompt": "a", "n": 2})
        found = samples((await client.get("/metrics")).text)
    for name in ("time_to_first_token", "inter_token_latency", "request_latency"):
        assert found[f"corral_{name}_seconds_count"] == found[f"corral_{name}_seconds_bucket,le=+Inf"] == 2
        assert found[f"corral_{name}_seconds_sum"] > 0
    assert found["corral_queue_time_seconds_sum"] == pytest.approx(0.006)
    assert found["corral_generations_total,finish_reason=stop"] == 2


async def test_the_rest(connected: Any) -> None:
    async with connected(state()) as client:
        found = samples((await client.get("/metrics")).text)
    expected = {
        "kv_blocks": 20, "kv_blocks_used": 5, "kv_blocks_cached": 2, "kv_usage_ratio": 0.25,
        "prefix_cache_hit_ratio": 0.75, "prefix_cache_hits_total": 3, "prefix_cache_misses_total": 1,
        "preemptions_total": 6, "rejected_requests_total": 7, "engine_restarts_total": 0,
        "waiting_tokens": 77,
    }  # fmt: skip
    assert {name: found["corral_" + name] for name in expected} == expected
    assert found["corral_resident_memory_bytes,process=server"] > 1e6
    (build,) = (name for name in found if name.startswith("corral_build_info"))
    assert "model=tiny" in build
    assert "isa=avx2" in build


def test_memory_of_both_processes_and_throttled_time(tmp_path: Path) -> None:
    files = {
        "proc/self/statm": "100 10 0",
        "proc/42/statm": "100 30 0",
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_usec 1500000\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    made = state()
    made.engine.engine.pid = 42
    found = samples(Metrics(made, tmp_path).render().decode())
    page = os.sysconf("SC_PAGE_SIZE")
    assert found["corral_resident_memory_bytes,process=server"] == 10 * page
    assert found["corral_resident_memory_bytes,process=engine"] == 30 * page
    assert found["corral_cpu_throttled_seconds_total"] == 1.5
    assert found["corral_cpu_throttled_periods_total"] == 3


async def test_they_are_off_by_default(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")
    assert (response.status_code, response.json()["error"]["type"]) == (501, "not_supported_error")
    assert "--metrics" in response.json()["error"]["message"]


def test_buckets() -> None:
    histogram = Histogram((1, 2))
    for value in (0, 1, 1.5, 2, 3):
        histogram.observe(value)
    assert (histogram.counts, histogram.sum) == ([2, 2, 1], 7.5)


async def test_what_the_observer_times() -> None:
    times = iter([0.0, 2.0, 5.0, 9.0, 10.0])
    observer = Observer(clock=lambda: next(times))
    end = Output(id="", tokens=[3], finish_reason="length", timings=Timings(queue_ms=500))
    words = [Output(id="", tokens=[1]), Output(id="", tokens=[2], text="a"), end]
    engine: Any = FakeEngine(words)
    outputs = [o async for o in observer.watch(engine).generate(Submit(id="x", prompt=[1]))]
    assert outputs == words
    assert (observer.first_token.sum, observer.next_token.sum, observer.whole.sum) == (2, 7, 10)
    assert observer.queue.sum == 0.5
    assert observer.endings == {"length": 1}


async def test_who_leaves_is_cancelled_behind_the_observer() -> None:
    engine = FakeEngine(["a", "b", "c"])
    watched: Any = Observer().watch(engine)
    outputs = watched.generate(Submit(id="x", prompt=[1]))
    await anext(outputs)
    await outputs.aclose()
    assert engine.cancelled == ["x"]
