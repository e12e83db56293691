"""Limits of control groups, read from made-up trees of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from corral.system import cgroup

Files = dict[str, str]

V2 = {
    "proc/self/cgroup": "0::/\n",
    "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
}
V2_NESTED = {**V2, "proc/self/cgroup": "0::/kubepods/pod1/c1\n"}
V1 = {
    "proc/self/cgroup": "4:memory:/\n3:cpuset:/\n2:cpu,cpuacct:/\n1:name=systemd:/\n",
    "proc/self/mountinfo": (
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    ),
}
V1_CPU = "sys/fs/cgroup/cpu,cpuacct"
# a container without a cgroup namespace: the path is the host's, and the mount's root is that path
V1_DOCKER = {
    "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n",
    "proc/self/mountinfo": (
        "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    ),
}
HYBRID = {
    "proc/self/cgroup": V1["proc/self/cgroup"] + "0::/unit\n",
    "proc/self/mountinfo": V1["proc/self/mountinfo"]
    + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Files], Path]:
    def build(files: Files) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return build


Tree = Callable[[Files], Path]


@pytest.mark.parametrize(
    ("files", "quota", "source"),
    [
        ({**V2, "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5, "/sys/fs/cgroup/cpu.max"),
        ({**V2, "sys/fs/cgroup/cpu.max": "max 100000\n"}, None, ""),
        ({**V2, "sys/fs/cgroup/cpu.max": "50000\n"}, 0.5, "/sys/fs/cgroup/cpu.max"),
        # the tightest of the chain, wherever it is
        (
            {
                **V2_NESTED,
                "sys/fs/cgroup/kubepods/cpu.max": "400000 100000",
                "sys/fs/cgroup/kubepods/pod1/cpu.max": "200000 100000",
                "sys/fs/cgroup/kubepods/pod1/c1/cpu.max": "max 100000",
            },
            2.0,
            "/sys/fs/cgroup/kubepods/pod1/cpu.max",
        ),
        (
            {
                **V2_NESTED,
                "sys/fs/cgroup/kubepods/cpu.max": "100000 100000",
                "sys/fs/cgroup/kubepods/pod1/c1/cpu.max": "300000 100000",
            },
            1.0,
            "/sys/fs/cgroup/kubepods/cpu.max",
        ),
        (
            {**V1, f"{V1_CPU}/cpu.cfs_quota_us": "250000\n", f"{V1_CPU}/cpu.cfs_period_us": "100000\n"},
            2.5,
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
        ),
        ({**V1, f"{V1_CPU}/cpu.cfs_quota_us": "-1\n", f"{V1_CPU}/cpu.cfs_period_us": "100000\n"}, None, ""),
        ({**V1, f"{V1_CPU}/cpu.cfs_quota_us": "100000\n"}, None, ""),
        (
            {**V1_DOCKER, f"{V1_CPU}/cpu.cfs_quota_us": "200000", f"{V1_CPU}/cpu.cfs_period_us": "100000"},
            2.0,
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
        ),
        # both versions at once
        (
            {
                **HYBRID,
                f"{V1_CPU}/cpu.cfs_quota_us": "300000",
                f"{V1_CPU}/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/unified/unit/cgroup.procs": "",
            },
            3.0,
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
        ),
        # nonsense limits nothing
        ({}, None, ""),
        ({**V2, "sys/fs/cgroup/cpu.max": ""}, None, ""),
        ({**V2, "sys/fs/cgroup/cpu.max": "abc def"}, None, ""),
        ({**V2, "sys/fs/cgroup/cpu.max": "0 100000"}, None, ""),
        ({**V2, "sys/fs/cgroup/cpu.max": "100000 0"}, None, ""),
        ({**V2, "proc/self/mountinfo": "garbage\n1 2 3 - \n", "sys/fs/cgroup/cpu.max": "1 1"}, None, ""),
        # a path that the namespace can't show leaves the mount point
        (
            {**V2, "proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "100000 100000"},
            1.0,
            "/sys/fs/cgroup/cpu.max",
        ),
        (
            {**V2, "proc/self/cgroup": "0::/gone/away\n", "sys/fs/cgroup/cpu.max": "100000 100000"},
            1.0,
            "/sys/fs/cgroup/cpu.max",
        ),
    ],
)
def test_cpu_quota(files: Files, quota: float | None, source: str, tree: Tree) -> None:
    limit = cgroup.cpu_quota(tree(files))
    assert (limit.value if limit else None) == quota
    assert (limit.source if limit else "") == source


MEMORY = "sys/fs/cgroup/memory"
NO_LIMIT_V1 = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({**V2, "sys/fs/cgroup/memory.max": "8589934592\n"}, 8589934592),
        ({**V2, "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({**V2, "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.high": "1000\n"}, 1000),
        ({**V2, "sys/fs/cgroup/memory.max": "900\n", "sys/fs/cgroup/memory.high": "1000\n"}, 900),
        (
            {
                **V2_NESTED,
                "sys/fs/cgroup/kubepods/pod1/memory.max": "700",
                "sys/fs/cgroup/kubepods/pod1/c1/memory.max": "800",
            },
            700,
        ),
        ({**V1, f"{MEMORY}/memory.limit_in_bytes": "4096\n"}, 4096),
        ({**V1, f"{MEMORY}/memory.limit_in_bytes": NO_LIMIT_V1}, None),
        (
            {
                **V1_DOCKER,
                f"{MEMORY}/memory.limit_in_bytes": NO_LIMIT_V1,
                f"{MEMORY}/memory.stat": "cache 5\nhierarchical_memory_limit 2048\ntotal_cache 5\n",
            },
            2048,
        ),
        ({**V1, f"{MEMORY}/memory.limit_in_bytes": "lots\n"}, None),
        ({**V1, f"{MEMORY}/memory.limit_in_bytes": "-5\n"}, None),
        ({}, None),
    ],
)
def test_memory_limit(files: Files, limit: int | None, tree: Tree) -> None:
    found = cgroup.memory_limit(tree(files))
    assert (found.value if found else None) == limit


STAT_V2 = "anon 300\nfile 90\nfile_mapped 10\ninactive_file 60\nactive_file 30\n"
STAT_V1 = "mapped_file 0\nhierarchical_memory_limit 1000\ntotal_mapped_file 10\n"
STAT_V1 += "total_inactive_file 60\ntotal_active_file 30\n"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({**V2, "sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "400",
          "sys/fs/cgroup/memory.stat": STAT_V2}, 1000 - 400 + 60 + 30 - 10),
        ({**V1, f"{MEMORY}/memory.limit_in_bytes": "1000", f"{MEMORY}/memory.usage_in_bytes": "400",
          f"{MEMORY}/memory.stat": STAT_V1}, 1000 - 400 + 60 + 30 - 10),
        ({**V2, "sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "1001"}, 0),
        ({**V2, "sys/fs/cgroup/memory.max": "1000"}, 1000),
        ({**V2, "sys/fs/cgroup/memory.max": "max"}, None),
    ],
)  # fmt: skip
def test_memory_left(files: Files, left: int | None, tree: Tree) -> None:
    assert cgroup.memory_left(tree(files)) == left


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({**V2, "sys/fs/cgroup/cpuset.cpus.effective": "0-2,5\n"}, {0, 1, 2, 5}),
        ({**V1, "sys/fs/cgroup/cpuset/cpuset.cpus": "1\n"}, {1}),
        (
            {
                **V1,
                "sys/fs/cgroup/cpuset/cpuset.effective_cpus": "1-2\n",
                "sys/fs/cgroup/cpuset/cpuset.cpus": "1-9\n",
            },
            {1, 2},
        ),
        (
            {
                **V2_NESTED,
                "sys/fs/cgroup/cpuset.cpus.effective": "0-7",
                "sys/fs/cgroup/kubepods/pod1/c1/cpuset.cpus.effective": "3",
            },
            {3},
        ),
        ({**V2, "sys/fs/cgroup/cpuset.cpus.effective": "\n"}, None),
        ({**V2, "sys/fs/cgroup/cpuset.cpus.effective": "0-x\n"}, None),
        ({}, None),
    ],
)
def test_cpuset(files: Files, cpus: set[int] | None, tree: Tree) -> None:
    assert cgroup.cpuset(tree(files)) == cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", {0}),
        ("0-3", {0, 1, 2, 3}),
        ("0-1, 4", {0, 1, 4}),
        ("", set()),
        ("a", set()),
        ("3-1", set()),
        ("1-", set()),
    ],
)
def test_cpu_list(text: str, cpus: set[int]) -> None:
    assert cgroup.parse_cpu_list(text) == cpus


def test_a_mount_point_with_a_space(tree: Tree) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/my\\040groups rw - cgroup2 cgroup2 rw\n",
        "sys/my groups/cpu.max": "100000 100000",
    }
    limit = cgroup.cpu_quota(tree(files))
    assert limit is not None
    assert limit.value == 1.0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({**V2, "sys/fs/cgroup/cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_usec 5\n"}, None),
        (
            {
                **V2_NESTED,
                "sys/fs/cgroup/kubepods/pod1/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/kubepods/pod1/cpu.stat": (
                    "usage_usec 77\nnr_periods 9\nnr_throttled 3\nthrottled_usec 1500000\n"
                ),
                "sys/fs/cgroup/kubepods/pod1/c1/cpu.max": "max 100000\n",
            },
            cgroup.Throttling(9, 3, 1.5, "/sys/fs/cgroup/kubepods/pod1/cpu.max"),
        ),
        (
            {
                **V1,
                f"{V1_CPU}/cpu.cfs_quota_us": "100000\n",
                f"{V1_CPU}/cpu.cfs_period_us": "100000\n",
                f"{V1_CPU}/cpu.stat": "nr_periods 20\nnr_throttled 4\nthrottled_time 2500000000\n",
            },
            cgroup.Throttling(20, 4, 2.5, f"/{V1_CPU}/cpu.cfs_quota_us"),
        ),
        ({**V2, "sys/fs/cgroup/cpu.max": "100000 100000\n"}, None),
    ],
)
def test_cpu_throttling(files: Files, expected: cgroup.Throttling | None, tree: Tree) -> None:
    assert cgroup.cpu_throttling(tree(files)) == expected
