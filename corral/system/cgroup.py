"""What the control groups of this process allow: CPU time, CPUs, memory. Versions 1, 2 and both at once.

A limit may sit on any ancestor of the process's group, so each is read from the group up to the mount point
and the tightest wins. Formats: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/{memory,cpusets}.rst,
scheduler/sched-bwc.rst, proc(5) for /proc/self/cgroup and /proc/self/mountinfo. A file that is missing or
makes no sense limits nothing.

Every function takes the root of the file system, so tests can build one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
UNLIMITED = 1 << 60
"""Bytes. Version 1 says 'no limit' with a number near 2**63, rounded down to a page."""


@dataclass(frozen=True, slots=True)
class Limit:
    """An amount and the file that sets it."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of groups, and where this process is in it."""

    version: int
    mount: Path
    """Under the given root."""
    groups: tuple[Path, ...]
    """The folders of the process's group and its ancestors, innermost first; those that exist."""


def hierarchies(controller: str, root: Path = ROOT) -> list[Hierarchy]:
    """The trees that may limit this controller (`cpu`, `cpuset`, `memory`), of either version."""
    paths = _own_paths(root)
    found = []
    for mount_root, mount_point, kind, options in _mounts(root):
        if kind == "cgroup2":
            version, path = 2, paths.get("")
        elif kind == "cgroup" and controller in options:
            version, path = 1, paths.get(controller)
        else:
            continue
        mount = root / mount_point.lstrip("/")
        found.append(Hierarchy(version, mount, _ancestry(mount, mount_root, path)))
    return found


def cpu_quota(root: Path = ROOT) -> Limit | None:
    """CPUs' worth of time a second (`cpu.max`, `cpu.cfs_quota_us`), or None if it is not limited."""
    readers = {2: ("cpu.max", _quota_v2), 1: ("cpu.cfs_quota_us", _quota_v1)}
    return _tightest("cpu", readers, root)


@dataclass(frozen=True, slots=True)
class Throttling:
    """How often and how long the CPU quota stopped the group, since it was made."""

    periods: int
    """Periods in which something ran."""
    throttled: int
    """Those in which the quota was used up."""
    seconds: float
    """Time without running that this cost, of all CPUs together."""
    source: str


def cpu_throttling(root: Path = ROOT) -> Throttling | None:
    """The counters of the group that sets the quota (`cpu.stat` beside it); None without a quota."""
    quota = cpu_quota(root)
    if quota is None:
        return None
    path = (root / quota.source.lstrip("/")).with_name("cpu.stat")
    counters = dict(re.findall(r"^(\w+) (\d+)$", _read(path) or "", re.MULTILINE))
    if "nr_throttled" not in counters:
        return None
    nanoseconds = int(counters.get("throttled_time", 0)) + 1000 * int(counters.get("throttled_usec", 0))
    return Throttling(
        periods=int(counters.get("nr_periods", 0)),
        throttled=int(counters["nr_throttled"]),
        seconds=nanoseconds / 1e9,
        source=quota.source,
    )


def memory_limit(root: Path = ROOT) -> Limit | None:
    """Bytes (`memory.max`, `memory.high`, `memory.limit_in_bytes`), or None if they are not limited.

    `memory.high` counts as a limit because a group above it is slowed until it is useless. Version 1 also
    reports the tightest ancestor in `memory.stat`, even one outside the mount.
    """
    limits = [
        _tightest("memory", {2: ("memory.max", _bytes), 1: ("memory.limit_in_bytes", _bytes)}, root),
        _tightest("memory", {2: ("memory.high", _bytes), 1: ("memory.stat", _hierarchical_bytes)}, root),
    ]
    return min((limit for limit in limits if limit), key=lambda limit: limit.value, default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes up to the limit; pages of files that nobody has mapped count as free. None without a limit."""
    limit = memory_limit(root)
    if limit is None:
        return None
    group = (root / limit.source.lstrip("/")).parent
    used = next(filter(None, (_bytes(group / f"memory.{name}") for name in ("current", "usage_in_bytes"))), 0)
    stat = dict(re.findall(r"^(?:total_)?(\w+) (\d+)$", _read(group / "memory.stat") or "", re.MULTILINE))
    cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    mapped = int(stat.get("mapped_file") or stat.get("file_mapped") or 0)
    return max(0, int(limit.value - used) + max(0, cached - mapped))


def cpuset(root: Path = ROOT) -> frozenset[int] | None:
    """The CPUs of the innermost group that lists any, or None. An inner set is part of the outer ones."""
    for hierarchy in hierarchies("cpuset", root):
        names = (
            ("cpuset.cpus.effective",) if hierarchy.version == 2 else ("cpuset.effective_cpus", "cpuset.cpus")
        )
        for group in hierarchy.groups:
            for name in names:
                cpus = parse_cpu_list(_read(group / name) or "")
                if cpus:
                    return cpus
    return None


def parse_cpu_list(text: str) -> frozenset[int]:
    """`0-3,8` as a set; anything else is empty."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip())
        if not match:
            return frozenset()
        first, last = int(match[1]), int(match[2] or match[1])
        cpus.update(range(first, last + 1))
    return frozenset(cpus)


# -- reading -------------------------------------------------------------------------------------------------


def _tightest(
    controller: str, readers: Mapping[int, tuple[str, Callable[[Path], float | None]]], root: Path
) -> Limit | None:
    limits = []
    for hierarchy in hierarchies(controller, root):
        name, reader = readers[hierarchy.version]
        for group in hierarchy.groups:
            value = reader(group / name)
            if value is not None:
                limits.append(Limit(value, "/" + (group / name).relative_to(root).as_posix()))
    return min(limits, key=lambda limit: limit.value, default=None)


def _quota_v2(path: Path) -> float | None:
    quota, _, period = (_read(path) or "").partition(" ")
    return _ratio(quota, period or "100000")


def _quota_v1(path: Path) -> float | None:
    return _ratio(_read(path) or "", _read(path.with_name("cpu.cfs_period_us")) or "")


def _ratio(quota: str, period: str) -> float | None:
    # 'max' and -1 are no quota, and isdecimal() is false for both
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None
    return int(quota) / int(period)


def _bytes(path: Path) -> float | None:
    text = _read(path) or ""
    return int(text) if text.isdecimal() and 0 < int(text) < UNLIMITED else None


def _hierarchical_bytes(path: Path) -> float | None:
    match = re.search(r"^hierarchical_memory_limit (\d+)$", _read(path) or "", re.MULTILINE)
    return int(match[1]) if match and 0 < int(match[1]) < UNLIMITED else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _own_paths(root: Path) -> dict[str, str]:
    """The process's group by controller of version 1; the one of version 2 under the empty name."""
    paths: dict[str, str] = {}
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if number and colon:
            paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def _mounts(root: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """(root inside the tree, mount point, file system, its options) of each line of mountinfo."""
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        before, dash, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if dash and len(left) >= 6 and len(right) >= 3:
            yield _unescape(left[3]), _unescape(left[4]), right[0], right[2].split(",")


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _ancestry(mount: Path, mount_root: str, path: str | None) -> tuple[Path, ...]:
    """The folders from the group up to the mount point.

    A container without a cgroup namespace sees its path on the host and a mount whose root is that path;
    one with a namespace sees '/'. A path outside the mount (`/../..`) leaves only the mount point.
    """
    inside = PurePosixPath(path or "/")
    if inside.is_relative_to(mount_root):
        inside = PurePosixPath("/") / inside.relative_to(mount_root)
    if ".." in inside.parts:
        inside = PurePosixPath("/")
    folders = [mount.joinpath(*level.parts[1:]) for level in (inside, *inside.parents)]
    return tuple(folder for folder in folders if folder.is_dir())
