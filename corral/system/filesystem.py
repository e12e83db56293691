"""What file system a file is on, and whether it is better read in order than by page faults.

A page fault of a mapped file waits for a piece of 128 KiB or less. On a disk the kernel reads ahead of it;
over a network each piece is a round trip, and the threads that pack weights fault in several places at once.
Source: proc(5) for /proc/self/mountinfo.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from corral.system.cgroup import ROOT

REMOTE = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse", "fuseblk", "gfs2", "glusterfs", "gpfs",
    "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
})  # fmt: skip
"""Types of file systems that answer over a network, or by another process or machine."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    type: str
    """As `nfs4`, `ext4`, `fuse.s3fs`; empty if nobody knows."""
    mount_point: str = ""

    @property
    def remote(self) -> bool:
        """Whether somebody else must be there for a page to come."""
        return self.type.partition(".")[0] in REMOTE

    @property
    def read_in_order(self) -> bool:
        """Whether page faults are slow: also in a container's own layers."""
        return self.remote or self.type == "overlay"


def of(path: Path, root: Path = ROOT) -> FileSystem:
    """The file system of an existing file: that of the innermost mount point above it."""
    try:
        text = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        resolved = path.resolve()
    except (OSError, RuntimeError):
        return FileSystem("")
    found = FileSystem("")
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        left = before.split(" ")
        if not dash or len(left) < 5:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), left[4])
        # a later line with the same mount point lies on top
        if resolved.is_relative_to(point) and len(point) >= len(found.mount_point):
            found = FileSystem(after.split(" ")[0], point)
    return found
