"""How many threads should compute: what the container allows, not what the host has.

A thread more than the CPU quota is worse than useless: when the quota of a period is used up, every thread
waits for the next one, and threads that spin use it up faster. So the default is the number of physical
cores within affinity, cpuset and quota, and a larger number is clamped.

Sources: sched_getaffinity(2), `corral.system.cgroup`, and /sys/devices/system/cpu/*/topology (kernel
documentation, admin-guide/cputopology.rst).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from corral.system import cgroup
from corral.system.cgroup import ROOT, parse_cpu_list


@dataclass(frozen=True, slots=True)
class CpuLimits:
    """What this process may use of the machine."""

    visible: int
    """CPUs (hardware threads) of the machine that are online."""
    allowed: frozenset[int]
    """Those that affinity and cpuset leave."""
    cores: int
    """Physical cores among them."""
    quota: float | None
    """CPUs' worth of time a second, or None."""
    quota_source: str = ""

    @property
    def most_threads(self) -> int:
        """Most threads that can run at once: at least 1."""
        return max(1, self._within_quota(len(self.allowed)))

    @property
    def best_threads(self) -> int:
        """One a physical core, within the quota: at least 1."""
        return max(1, self._within_quota(self.cores))

    def _within_quota(self, count: int) -> int:
        return count if self.quota is None else min(count, int(self.quota))

    def describe(self) -> str:
        """One line for the log."""
        quota = f", quota {self.quota:g} ({self.quota_source})" if self.quota is not None else ""
        return f"{self.visible} CPUs visible, {len(self.allowed)} allowed on {self.cores} cores{quota}"


@dataclass(frozen=True, slots=True)
class ThreadDecision:
    """How many threads, why (for the log), and what to warn about (empty: nothing)."""

    threads: int
    reason: str
    warning: str = ""


def limits(root: Path = ROOT, affinity: Collection[int] | None = None) -> CpuLimits:
    """What this process may use. `affinity` is the process's own unless a test gives another."""
    if affinity is None:
        affinity = os.sched_getaffinity(0)
    online = _online(root) or frozenset(affinity)
    allowed = frozenset(affinity)
    in_cpuset = cgroup.cpuset(root)
    if in_cpuset and allowed & in_cpuset:
        allowed &= in_cpuset
    quota = cgroup.cpu_quota(root)
    return CpuLimits(
        visible=max(len(online), len(allowed)),
        allowed=allowed,
        cores=physical_cores(allowed, root),
        quota=quota.value if quota else None,
        quota_source=quota.source if quota else "",
    )


def physical_cores(cpus: Collection[int], root: Path = ROOT) -> int:
    """Physical cores among these CPUs; a CPU whose topology can't be read counts as one."""
    return len({_core(cpu, root) for cpu in cpus})


def decide(requested: int | None, available: CpuLimits, *, force: bool = False) -> ThreadDecision:
    """What to do with `--threads`: None takes the best number, too large a one is clamped unless `force`."""
    shown = available.describe()
    if requested is None:
        return ThreadDecision(available.best_threads, f"one a physical core this process may use: {shown}")
    most = available.most_threads
    if requested <= most:
        return ThreadDecision(requested, f"as asked: {shown}")
    if force:
        warning = f"--threads {requested} is more than the {most} that can run at once ({shown}): forced"
        return ThreadDecision(requested, f"forced: {shown}", warning)
    warning = (
        f"--threads {requested} is more than the {most} that can run at once ({shown}): using {most}; "
        "--force-threads takes it as it is"
    )
    return ThreadDecision(most, f"clamped from {requested}: {shown}", warning)


def _online(root: Path) -> frozenset[int]:
    try:
        return parse_cpu_list((root / "sys/devices/system/cpu/online").read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return frozenset()


def _core(cpu: int, root: Path) -> tuple[str, ...]:
    """Names the core of a CPU: by its siblings, else by package and core, else by the CPU itself."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"

    def read(name: str) -> str:
        try:
            return (topology / name).read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return ""

    for name in ("core_cpus_list", "thread_siblings_list"):
        siblings = read(name)
        if cpu in parse_cpu_list(siblings):
            return ("siblings", siblings)
    package, core = read("physical_package_id"), read("core_id")
    return ("core", package, core) if core else ("cpu", str(cpu))
