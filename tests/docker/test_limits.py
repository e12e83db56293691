"""What the container may use: CPUs, a cpuset, memory just above and below what is needed, locked memory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from containers import Container, chat

Start = Callable[..., Container]
CPUS = len(os.sched_getaffinity(0))
SMALL = ("--ctx-size", "1024")


def threads(container: Container) -> int:
    found = re.search(r"engine: .*, (\d+) thread", container.logs())
    assert found, container.logs()
    return int(found[1])


@pytest.mark.skipif(CPUS < 2, reason="with one CPU there is nothing to limit")
@pytest.mark.parametrize(
    ("options", "arguments", "expected"),
    [
        (("--cpus", "1"), (), 1),
        (("--cpus", "1.5"), (), 1),
        (("--cpuset-cpus", "0"), (), 1),
        (("--cpus", "2"), ("--threads", "1"), 1),
        (("--cpus", "1"), ("--threads", "2", "--force-threads"), 2),
    ],
)
def test_threads_follow_the_limits(
    start: Start, options: tuple[str, ...], arguments: tuple[str, ...], expected: int
) -> None:
    container = start(*SMALL, *arguments, options=options)
    container.wait_ready()
    assert threads(container) == expected
    assert container.logs().count("more than the 1 that can run at once") == ("--force-threads" in arguments)


@pytest.mark.skipif(CPUS < 2, reason="with one CPU there is nothing to limit")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cpus", "1"), r"quota 1 \(/sys/fs/cgroup/.*\)\): using 1"),
        (("--cpuset-cpus", "1"), r"CPUs visible, 1 allowed on 1 cores\): using 1"),
    ],
)
def test_more_threads_than_cpus_are_clamped_with_a_warning(
    start: Start, options: tuple[str, ...], said: str
) -> None:
    container = start(*SMALL, "--threads", "8", options=options)
    container.wait_ready()
    assert threads(container) == 1
    assert re.search(
        r"warning: --threads 8 is more than the 1 that can run at once .*" + said, container.logs()
    )


def needed(container: Container) -> int:
    """MiB, as planned."""
    found = re.search(r"= (\d+) MiB of", container.logs())
    assert found, container.logs()
    return int(found[1])


def test_memory_just_above_the_need_is_enough_and_just_below_is_refused(start: Start) -> None:
    first = start("--ctx-size", "2048", options=("--memory", "2g"))
    first.wait_ready()
    need = needed(first)

    # just above: it loads, and long prompts on all slots do not kill it
    above = start("--ctx-size", "2048", "--parallel", "2", options=memory(need + 8))
    url = above.wait_ready()
    words = "one two three four five six seven eight nine ten " * 90
    for _ in range(2):
        assert chat(url, words, max_tokens=8).status_code == 200
    assert not above.state["OOMKilled"]
    assert f"of {need + 8} MiB (/sys/fs/cgroup/memory" in above.logs()

    below = start("--ctx-size", "2048", options=memory(need - 8))
    assert below.wait_exit() == 1
    assert not below.state["OOMKilled"]
    last = below.logs().splitlines()[-1]
    assert last.startswith("error: the model does not fit in memory: weights ")
    assert f"limit {need - 8} MiB" in last
    assert "expected --ctx-size" in last

    # without --ctx-size it takes what fits
    shrunk = start(options=memory(need + 70))
    assert chat(shrunk.wait_ready()).status_code == 200
    assert re.search(r"memory: context \d+ instead of the model's \d+, so that it fits", shrunk.logs())


@pytest.mark.parametrize("mib", [100, 64, 32])
def test_hardly_any_memory_is_refused_with_numbers(start: Start, mib: int) -> None:
    container = start(options=memory(mib))
    assert container.wait_exit() == 1
    assert not container.state["OOMKilled"]
    assert f"{mib} MiB" in container.logs().splitlines()[-1]


def test_a_body_for_which_there_is_no_memory_is_refused_and_the_server_lives(start: Start) -> None:
    container = start("--ctx-size", "2048", options=memory(340))
    url = container.wait_ready()
    for size, status in ((30_000_000, 413), (1_000_000, 400)):
        assert chat(url, "word " * (size // 5)).status_code == status
    assert chat(url).status_code == 200
    assert not container.state["OOMKilled"]


def memory(mib: int) -> tuple[str, ...]:
    return ("--memory", f"{mib}m", "--memory-swap", f"{mib}m")


def test_locked_memory(start: Start) -> None:
    """Either it is allowed and happens, or the log says which option of docker run allows it."""
    container = start(*SMALL, "--mlock", "--no-mmap")
    container.wait_ready()
    if "--mlock has no effect" in container.logs():
        assert "docker run --ulimit memlock=-1:-1, or --cap-add IPC_LOCK --user 0" in container.logs()
    else:
        assert locked(container)


def locked(container: Container) -> bool:
    lines = container.exec("sh", "-c", "grep -h VmLck /proc/[0-9]*/status").splitlines()
    return any(int(line.split()[1]) > 0 for line in lines)


def test_locked_memory_as_root_with_the_capability(start: Start) -> None:
    container = start(*SMALL, "--mlock", options=("--user", "0", "--cap-add", "IPC_LOCK"))
    container.wait_ready()
    assert "--mlock has no effect" not in container.logs()
    assert locked(container)
