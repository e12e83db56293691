"""What a model will take, against what there is: decided and printed before anything is loaded.

All amounts are bytes unless the name says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from corral.errors import OptionError
from corral.system import cgroup
from corral.system.cgroup import ROOT

MIB = 1 << 20
CTX_STEP = 256
"""The context is a multiple of this."""
PROCESS_BYTES = 100 * MIB
"""Two Python processes with their libraries, buffers of connections. Measured: 48 + 37 MiB before a model."""
TOKEN_BYTES = 950
"""A token of the vocabulary. Measured with 262 k of them: 340 in the server, 170 in the engine,
where 420 more go with the first grammar."""
MERGE_BYTES = 330
"""A merge of two tokens (BPE). Measured with 49 k of them 330, with 280 k 270."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The memory this process may use, and who says so."""

    bytes: int
    source: str


def process_overhead(vocab_size: int, merges: int) -> int:
    """What the processes take beside the model, for a vocabulary of so many tokens and merges of tokens."""
    return PROCESS_BYTES + TOKEN_BYTES * vocab_size + MERGE_BYTES * merges


def memory_limit(root: Path = ROOT) -> MemoryLimit | None:
    """The tighter of the container's limit and what the machine has available; None if neither is known."""
    found = []
    group = cgroup.memory_limit(root)
    if group:
        found.append(MemoryLimit(int(group.value), group.source))
    available = _available(root)
    if available is not None:
        found.append(MemoryLimit(available, "MemAvailable of /proc/meminfo"))
    return min(found, key=lambda limit: limit.bytes, default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that can still be taken, in the container and on the machine; None if neither is known."""
    known = [left for left in (cgroup.memory_left(root), _available(root)) if left is not None]
    return min(known, default=None)


def expect_room(limit: MemoryLimit | None) -> None:
    """Raises OptionError if not even the processes fit: they would be killed before they read the model."""
    if limit is not None and limit.bytes < PROCESS_BYTES:
        raise OptionError(
            f"error: there are {mib(limit.bytes)} of memory ({limit.source}), and the server takes "
            f"{mib(PROCESS_BYTES)} without a model; expected more, as by docker run --memory"
        )


def _available(root: Path) -> int | None:
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


@dataclass(frozen=True, slots=True)
class Demand:
    """What a model needs."""

    weights: int
    """As packed in memory."""
    kv_per_token: int
    """Keys and values of all layers for one token."""
    train_ctx: int
    """The context the model was made for, tokens."""
    activations: int
    """Buffers of one step, of at most `step_tokens`."""
    overhead: int
    """See `process_overhead`."""
    activations_per_token: int = 0
    """Of each token of the context beyond `step_tokens`, where a step must hold the whole of it."""
    step_tokens: int = 0

    def activations_for(self, ctx_size: int) -> int:
        longest = min(ctx_size, self.train_ctx)  # text
        return self.activations + self.activations_per_token * max(0, longest - self.step_tokens)

    def total(self, ctx_size: int) -> int:
        fixed = self.weights + self.overhead
        return fixed + self.activations_for(ctx_size) + self.kv_per_token * ctx_size

    def fits(self, room: int) -> int:
        """Tokens of context whose total is `room` or less; below 0: not even the fixed parts fit."""
        less = (room - self.total(0)) // max(self.kv_per_token, 1)
        if less <= self.step_tokens:
            return less
        more = room - self.total(self.step_tokens)
        return self.step_tokens + more // max(self.kv_per_token + self.activations_per_token, 1)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What will be used; printed at start."""

    ctx_size: int
    """Tokens."""
    pool: int
    """Tokens that the KV cache holds: `ctx_size`, or a multiple of it where there is memory for that."""
    weights: int
    kv_cache: int
    activations: int
    overhead: int
    margin: int
    """Left free on purpose."""
    limit: MemoryLimit | None
    shrunk_from: int | None = None
    """The context that was wanted, if it had to shrink."""

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.activations + self.overhead

    @property
    def headroom(self) -> int | None:
        """Left over, margin included; None without a limit."""
        return self.limit.bytes - self.total if self.limit else None

    def describe(self) -> list[str]:
        """Lines for the log."""
        lines = [
            f"memory: weights {mib(self.weights)} + KV cache {mib(self.kv_cache)} ({self.pool} tokens) + "
            f"activations {mib(self.activations)} + processes {mib(self.overhead)} = {mib(self.total)}"
        ]
        if self.limit and self.headroom is not None:
            lines[0] += f" of {mib(self.limit.bytes)} ({self.limit.source}), {mib(self.headroom)} left"
        if self.shrunk_from is not None:
            lines.append(
                f"memory: context {self.ctx_size} instead of the model's {self.shrunk_from}, so that "
                "it fits; --ctx-size sets it"
            )
        return lines


def plan(
    demand: Demand,
    limit: MemoryLimit | None,
    *,
    ctx_size: int | None = None,
    fit: bool = True,
    margin: int | None = None,
    min_ctx: int = 512,
    contexts: int = 1,
) -> MemoryPlan:
    """Decides the context.

    `ctx_size` None takes the model's own, shrunk to a multiple of 256 that fits, down to `min_ctx`, if
    `fit`; if it need not shrink, half of the memory that is left may go into up to `contexts` of them. A set
    one is taken as it is. `margin` None leaves a twentieth of the limit free, 64 MiB at least.

    Raises:
        OptionError: it does not fit. The message has the numbers and the flag to change.
    """
    if margin is None:
        margin = max(64 * MIB, limit.bytes // 20) if limit else 0
    wanted = ctx_size if ctx_size is not None else max(demand.train_ctx, 1)
    chosen = wanted
    spare = 0
    if limit is not None:
        fits = demand.fits(limit.bytes - margin)
        if ctx_size is None and fit and fits < wanted:
            chosen = fits // CTX_STEP * CTX_STEP
            if chosen < min_ctx:
                raise OptionError(_too_big(demand, min(min_ctx, wanted), limit, margin, fits))
        elif demand.total(wanted) > limit.bytes:  # one that was set needs no margin
            raise OptionError(_too_big(demand, wanted, limit, 0, demand.fits(limit.bytes)))
        if ctx_size is None:
            spare = min(max(0, fits - chosen) // 2, (contexts - 1) * chosen) // CTX_STEP * CTX_STEP
    return MemoryPlan(
        ctx_size=chosen,
        pool=chosen + spare,
        weights=demand.weights,
        kv_cache=demand.kv_per_token * (chosen + spare),
        activations=demand.activations_for(chosen),
        overhead=demand.overhead,
        margin=margin,
        limit=limit,
        shrunk_from=wanted if chosen < wanted else None,
    )


def _too_big(demand: Demand, ctx_size: int, limit: MemoryLimit, margin: int, fits: int) -> str:
    most = fits // CTX_STEP * CTX_STEP
    if most >= CTX_STEP:
        advice = f"expected --ctx-size {most} or less, or more memory"
    else:
        advice = "expected a smaller model or quantization, or more memory"
    kept = f", {mib(margin)} of it kept free" if margin else ""
    return (
        f"error: the model does not fit in memory: weights {mib(demand.weights)} + KV cache "
        f"{mib(demand.kv_per_token * ctx_size)} ({ctx_size} tokens of {demand.kv_per_token} bytes) + "
        f"activations {mib(demand.activations_for(ctx_size))} + processes {mib(demand.overhead)} = "
        f"{mib(demand.total(ctx_size))}, limit {mib(limit.bytes)} ({limit.source}){kept}; {advice}"
    )


def mib(amount: int) -> str:
    """`1234 MiB`; rounded up, so that nothing that exists is shown as zero."""
    return f"{-(-amount // MIB)} MiB"
