"""--mlock: keep what is in memory there."""

from __future__ import annotations

import ctypes
import os
import resource

MCL_CURRENT = 1
MCL_ONFAULT = 4
"""linux/mman.h: lock pages as they come into use, so that an empty KV cache takes nothing."""


def lock_memory() -> str:
    """Lock the memory of this process; returns what to tell the user, empty if all is well. Never fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_ONFAULT) == 0:
        return ""
    reason = os.strerror(ctypes.get_errno())
    soft, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limit = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft >> 10} KiB"
    return (
        f"--mlock has no effect: {reason} (locked memory is limited to {limit}); "
        "expected: docker run --ulimit memlock=-1:-1, or --cap-add IPC_LOCK --user 0"
    )
