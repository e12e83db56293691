"""What Prometheus scrapes: llama-server's numbers under their names, and more of our own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from corral import __version__
from corral.engine.messages import Stats
from corral.server.observer import Histogram, Observer
from corral.server.state import ServerState
from corral.system import cgroup
from corral.system.cgroup import ROOT

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Metrics(Collector):
    """One server's numbers, in a registry of their own. Nothing is counted here: `render` only reads."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, state: ServerState, root: Path = ROOT) -> None:
        """`root`: of the file system with proc and the control groups."""
        self._state, self._root = state, root
        self._scraped = Stats()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self.start_time = int(time.time())
        """Seconds since 1970."""

    def render(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()  # else registering would collect once, which counts as a scrape

    def collect(self) -> Iterator[Metric]:
        stats = self._state.engine.status.stats
        yield from _llama_server(stats, self._since_last_scrape(stats))
        yield from _engine(stats, self._state.engine.restarts)
        yield from _requests(self._state.observer)
        yield from self._process()

    def _since_last_scrape(self, stats: Stats) -> tuple[float, float]:
        """Tokens a second of prompts and of text, since the last scrape."""
        before = self._scraped
        if stats.steps < before.steps:  # another engine counts from the start
            before = Stats()
        self._scraped = stats
        return (
            _rate(stats.prompt_tokens - before.prompt_tokens, stats.prompt_ms - before.prompt_ms),
            _rate(stats.predicted_tokens - before.predicted_tokens, stats.predicted_ms - before.predicted_ms),
        )

    def _process(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "corral_resident_memory_bytes", "Memory of the processes that is in RAM.", labels=["process"]
        )
        for name, pid in (("server", "self"), ("engine", self._state.engine.pid)):
            resident = _resident_bytes(self._root / f"proc/{pid}/statm")
            if resident is not None:
                memory.add_metric([name], resident)
        yield memory
        throttled = cgroup.cpu_throttling(self._root)
        if throttled is not None:
            yield CounterMetricFamily(
                "corral_cpu_throttled_seconds",
                "Time that the control group was kept from running because its quota was used up.",
                throttled.seconds,
            )
            yield CounterMetricFamily(
                "corral_cpu_throttled_periods", "Periods in which that happened.", throttled.throttled
            )
        yield GaugeMetricFamily(
            "corral_start_time_seconds", "When the server started, since 1970.", self.start_time
        )
        info = {"version": __version__}
        ready = self._state.engine.status.ready
        if ready is not None:
            info |= {"isa": ready.isa, "executor": ready.executor, "threads": str(ready.threads)}
        if self._state.model is not None:
            info["model"] = self._state.model.info.id
        yield InfoMetricFamily("corral_build", "What runs here.", info)


def _llama_server(stats: Stats, rates: tuple[float, float]) -> Iterator[Metric]:
    """Names and meanings of llama-server."""
    counters = {
        "prompt_tokens": ("Prompt tokens computed, without the cached ones.", stats.prompt_tokens),
        "prompt_tokens_cached": ("Prompt tokens found in the cache.", stats.cached_tokens),
        "prompt_seconds": ("Time spent computing prompts.", stats.prompt_ms / 1e3),
        "tokens_predicted": ("Tokens generated.", stats.predicted_tokens),
        "tokens_predicted_seconds": ("Time spent generating tokens.", stats.predicted_ms / 1e3),
        "n_decode": ("Steps of the model.", stats.steps),
        "spec_decode_num_draft_tokens": ("Speculation: tokens that were guessed.", stats.draft_tokens),
        "spec_decode_num_accepted_tokens": ("Speculation: those that were right.", stats.draft_accepted),
        "spec_decode_num_drafts": ("Speculation: guesses that were checked.", stats.drafts),
    }
    gauges = {
        "n_tokens_max": ("Longest sequence seen, prompt and text.", stats.most_tokens),
        "prompt_tokens_seconds": ("Prompt tokens a second, since the last scrape.", rates[0]),
        "predicted_tokens_seconds": ("Generated tokens a second, since the last scrape.", rates[1]),
        "requests_processing": ("Requests that run.", stats.running),
        "requests_deferred": ("Requests that wait.", stats.waiting),
        "n_busy_slots_per_decode": (
            "Requests in a step, on average.",
            stats.step_sequences / max(1, stats.steps),
        ),
    }
    for name, (text, value) in counters.items():
        yield CounterMetricFamily("llamacpp:" + name, text, value)
    for name, (text, value) in gauges.items():
        yield GaugeMetricFamily("llamacpp:" + name, text, value)
    if stats.draft_accepted_at:
        at = CounterMetricFamily(
            "llamacpp:spec_decode_num_accepted_tokens_per_pos",
            "Speculation: tokens that were right, by their place in the guess.",
            labels=["position"],
        )
        for position, count in enumerate(stats.draft_accepted_at):
            at.add_metric([str(position)], count)
        yield at


def _engine(stats: Stats, restarts: int) -> Iterator[Metric]:
    gauges = {
        "kv_blocks": ("Blocks of the KV cache.", stats.blocks_total),
        "kv_blocks_used": ("Blocks that requests hold.", stats.blocks_used),
        "kv_blocks_cached": ("Free blocks whose contents can be found again.", stats.blocks_cached),
        "kv_usage_ratio": (
            "Share of the KV cache that requests hold.",
            stats.blocks_used / max(1, stats.blocks_total),
        ),
        "prefix_cache_hit_ratio": (
            "Share of all prompt tokens that were found in the cache.",
            stats.cached_tokens / max(1, stats.cached_tokens + stats.prompt_tokens),
        ),
        "waiting_tokens": ("Prompt tokens of the requests that wait.", stats.waiting_tokens),
    }
    counters = {
        "prefix_cache_hits": ("Requests that began behind a cached prefix.", stats.cache_hits),
        "prefix_cache_misses": ("Requests that had to begin at the start.", stats.cache_misses),
        "preemptions": ("Requests that gave their blocks back, to be computed again.", stats.preemptions),
        "rejected_requests": ("Requests turned away because of the queue.", stats.rejected),
        "engine_restarts": ("New starts of an engine that had died.", restarts),
    }
    for name, (text, value) in gauges.items():
        yield GaugeMetricFamily("corral_" + name, text, value)
    for name, (text, value) in counters.items():
        yield CounterMetricFamily("corral_" + name, text, value)


def _requests(observer: Observer) -> Iterator[Metric]:
    histograms = {
        "time_to_first_token": ("From a request to its first token.", observer.first_token),
        "inter_token_latency": ("From one token to the next.", observer.next_token),
        "queue_time": ("From a request to its first step.", observer.queue),
        "request_latency": ("From a request to its end.", observer.whole),
    }
    for name, (text, histogram) in histograms.items():
        yield HistogramMetricFamily(
            f"corral_{name}_seconds", text, buckets=_buckets(histogram), sum_value=histogram.sum
        )
    endings = CounterMetricFamily(
        "corral_generations", "Generations by how they ended.", labels=["finish_reason"]
    )
    for reason, count in observer.endings.items():
        endings.add_metric([reason], count)
    yield endings
    responses = CounterMetricFamily("corral_responses", "HTTP responses.", labels=["route", "status"])
    for (route, status), count in observer.responses.items():
        responses.add_metric([route, str(status)], count)
    yield responses


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """(upper end, count of all values up to there)."""
    total, buckets = 0, []
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _rate(count: float, milliseconds: float) -> float:
    return 1e3 * count / milliseconds if count > 0 and milliseconds > 0 else 0.0


def _resident_bytes(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None
