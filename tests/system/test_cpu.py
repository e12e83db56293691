"""How many threads, on made-up machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.system import cpu
from corral.system.cpu import CpuLimits


def machine(root: Path, cores: int, threads_per_core: int = 1, quota: str = "", cpus: str = "") -> Path:
    """CPUs i and i + cores are hyperthreads of core i, as most x86 machines number them."""
    count = cores * threads_per_core
    for index in range(count):
        topology = root / f"sys/devices/system/cpu/cpu{index}/topology"
        topology.mkdir(parents=True)
        siblings = ",".join(str(index % cores + cores * thread) for thread in range(threads_per_core))
        (topology / "core_cpus_list").write_text(siblings + "\n")
    (root / "sys/devices/system/cpu/online").write_text(f"0-{count - 1}\n")
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n")
    (root / "proc/self/mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    if quota:
        (group / "cpu.max").write_text(quota)
    if cpus:
        (group / "cpuset.cpus.effective").write_text(cpus)
    return root


@pytest.mark.parametrize(
    ("cores", "per_core", "quota", "cpus", "affinity", "threads"),
    [
        (8, 1, "", "", range(8), 8),
        (8, 2, "", "", range(16), 8),
        (8, 2, "400000 100000", "", range(16), 4),
        (8, 2, "1200000 100000", "", range(16), 8),
        (96, 1, "765000 100000", "", range(96), 7),
        (8, 1, "50000 100000", "", range(8), 1),
        (8, 2, "", "0-3", range(16), 4),
        (8, 2, "", "0,8", range(16), 1),
        (8, 2, "", "", (0, 8, 1), 2),
        (8, 1, "", "0-3", (2, 3, 4, 5), 2),
        # a cpuset that has nothing in common with the affinity is stale: the affinity is what the kernel does
        (8, 1, "", "0-3", (6, 7), 2),
    ],
)
def test_default_threads(
    cores: int,
    per_core: int,
    quota: str,
    cpus: str,
    affinity: tuple[int, ...],
    threads: int,
    tmp_path: Path,
) -> None:
    root = machine(tmp_path, cores, per_core, quota, cpus)
    decision = cpu.decide(None, cpu.limits(root, affinity))
    assert decision.threads == threads
    assert not decision.warning


def limits(allowed: int, cores: int, quota: float | None = None) -> CpuLimits:
    return CpuLimits(96, frozenset(range(allowed)), cores, quota, "/sys/fs/cgroup/cpu.max" if quota else "")


@pytest.mark.parametrize(
    ("requested", "available", "force", "threads", "warns"),
    [
        (None, limits(16, 8), False, 8, False),
        (4, limits(16, 8), False, 4, False),
        (16, limits(16, 8), False, 16, False),
        (17, limits(16, 8), False, 16, True),
        (17, limits(16, 8), True, 17, True),
        (8, limits(96, 48, 7.65), False, 7, True),
        (7, limits(96, 48, 7.65), False, 7, False),
        (1, limits(4, 4, 0.2), False, 1, False),
        (2, limits(4, 4, 0.2), False, 1, True),
    ],
)
def test_decide(requested: int | None, available: CpuLimits, force: bool, threads: int, warns: bool) -> None:
    decision = cpu.decide(requested, available, force=force)
    assert decision.threads == threads
    assert bool(decision.warning) == warns
    if warns:
        assert f"--threads {requested}" in decision.warning


def test_the_numbers_are_told() -> None:
    text = limits(96, 48, 7.65).describe()
    assert text == "96 CPUs visible, 96 allowed on 48 cores, quota 7.65 (/sys/fs/cgroup/cpu.max)"


def test_cores_by_package_and_id(tmp_path: Path) -> None:
    for index, (package, core) in enumerate([(0, 0), (0, 0), (0, 1), (1, 0)]):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{index}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "core_id").write_text(f"{core}\n")
    assert cpu.physical_cores(range(4), tmp_path) == 3


@pytest.mark.parametrize("content", [None, "", "garbage", "4-5"])
def test_unreadable_topology_counts_every_cpu(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        for index in range(2):
            topology = tmp_path / f"sys/devices/system/cpu/cpu{index}/topology"
            topology.mkdir(parents=True)
            (topology / "core_cpus_list").write_text(content)
    assert cpu.physical_cores(range(2), tmp_path) == 2


def test_a_bare_root_counts_the_affinity(tmp_path: Path) -> None:
    assert cpu.limits(tmp_path, {0, 1, 2}) == CpuLimits(3, frozenset({0, 1, 2}), 3, None)


def test_this_machine() -> None:
    decision = cpu.decide(None, cpu.limits())
    assert 1 <= decision.threads <= cpu.limits().visible
