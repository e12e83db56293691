"""Mount tables, made up, and the one of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.system import filesystem

MOUNTS = """\
21 1 8:1 / / rw,relatime - ext4 /dev/vda rw
22 21 0:30 / /models rw - nfs4 server:/models rw
23 22 0:31 / /models/local rw - xfs /dev/vdb rw
24 21 0:32 / /a\\040b rw shared:7 - fuse.s3fs s3fs rw
25 21 0:33 / /over rw - ext4 /dev/vdc rw
26 21 0:34 / /over rw - overlay overlay rw,lowerdir=/x
a line of another kind
"""


@pytest.mark.parametrize(
    ("path", "type", "remote", "in_order"),
    [
        ("/m.gguf", "ext4", False, False),
        ("/models/m.gguf", "nfs4", True, True),
        ("/models", "nfs4", True, True),
        ("/modelsother/m.gguf", "ext4", False, False),
        ("/models/local/m.gguf", "xfs", False, False),
        ("/a b/m.gguf", "fuse.s3fs", True, True),
        ("/over/m.gguf", "overlay", False, True),
    ],
)
def test_the_innermost_mount_counts(
    path: str, type: str, remote: bool, in_order: bool, tmp_path: Path
) -> None:
    table = tmp_path / "proc/self/mountinfo"
    table.parent.mkdir(parents=True)
    table.write_text(MOUNTS)
    found = filesystem.of(Path(path), tmp_path)
    assert (found.type, found.remote, found.read_in_order) == (type, remote, in_order)


def test_without_a_table_nothing_is_known(tmp_path: Path) -> None:
    assert not filesystem.of(Path("/m.gguf"), tmp_path).read_in_order


def test_this_machine() -> None:
    assert filesystem.of(Path("/proc/self/stat")).type == "proc"
