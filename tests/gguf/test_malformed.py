"""Every way a file can be wrong has its own line: the file, the field, its value, what would be right."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType, ValueType
from corral.gguf.writer import GGUFWriter


def text(string: str | bytes) -> bytes:
    data = string.encode() if isinstance(string, str) else string
    return struct.pack("<Q", len(data)) + data


def key(name: str | bytes, type: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", type) + value


def array(name: str, type: int, count: int, elements: bytes = b"") -> bytes:
    return key(name, ValueType.ARRAY, struct.pack("<IQ", type, count) + elements)


def tensor(name: str | bytes, dims: tuple[int, ...], type: int = GGMLType.F32, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type, offset)


def gguf_file(
    *keys: bytes,
    tensors: tuple[bytes, ...] = (),
    data: bytes = b"",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A file of these parts; `counts` (tensors, keys) overrides the true ones."""
    counts = counts or (len(tensors), len(keys))
    header = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + data


U8 = struct.pack("<B", 1)
HUGE = 2**64 - 1
SIXTEEN = bytes(64)  # data of a F32 tensor of 16 weights

MALFORMED: dict[str, tuple[bytes, str]] = {
    # what is no GGUF file
    "empty": (b"", "file is empty (0 bytes), expected a GGUF file"),
    "two bytes": (b"GG", "file is truncated after 2 bytes, expected a whole GGUF file"),
    "html": (
        b"\n<!DOCTYPE html><html>..",
        "file is an HTML page, expected the model file itself; use the link",
    ),
    "html without doctype": (b"<HTML><head>", "file is an HTML page, expected"),
    "lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "file is a git-lfs pointer, expected the file it stands for; run `git lfs pull`",
    ),
    "json": (
        b'{"error":"Invalid username or password."}',
        "file is JSON text, expected the model file itself;",
    ),
    "text": (
        b"\nEntry not found\n",
        "file is text ('Entry not found'), expected the model file itself, not a message",
    ),
    "zip": (b"PK\x03\x04....", "file is a zip archive or PyTorch checkpoint, expected a GGUF file; convert"),
    "safetensors": (
        struct.pack("<Q", 99) + b'{"a":{}}',
        "file is a safetensors file, expected a GGUF file; convert",
    ),
    "old ggml": (b"tjgg\x03\0\0\0", "file is a GGML file from before GGUF, expected"),
    "zeros": (
        bytes(1000),
        "magic is zeros, expected 'GGUF'; the download was reserved on disk but not filled",
    ),
    "wrong magic": (b"\x93ABC\x80\0", "magic is b'\\x93ABC', expected b'GGUF'"),
    # version and byte order
    "big-endian": (
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "byte order is big-endian, expected a little-endian file",
    ),
    "version 1": (gguf_file(version=1), "version is 1, expected one of 2, 3; convert the model again"),
    "version 4": (gguf_file(version=4), "version is 4, expected one of 2, 3"),
    "version huge": (gguf_file(version=2**32 - 1), "version is 4294967295, expected one of 2, 3"),
    # counts
    "no counts": (
        b"GGUF\3\0\0\0",
        "number of tensors is beyond the end of the file (8 bytes), expected a whole file",
    ),
    "keys absurd": (
        gguf_file(counts=(0, 2**40)),
        "number of metadata keys is 1099511627776, expected at most 0 (what fits in the 32 bytes",
    ),
    "tensors absurd": (
        gguf_file(counts=(HUGE, 0)),
        f"number of tensors is {HUGE}, expected at most 0 (what fits",
    ),
    "tensors too many": (
        gguf_file(data=bytes(70_000 * 33), counts=(70_000, 0)),
        "number of tensors is 70000, expected at most 65536 (more than any model has)",
    ),
    "keys too many": (
        gguf_file(data=bytes(70_000 * 14), counts=(0, 70_000)),
        "number of metadata keys is 70000, expected at most 65536 (more than any model has)",
    ),
    # keys
    "key length": (
        gguf_file(struct.pack("<Q", 2**50), data=bytes(64), counts=(0, 1)),
        f"length of name of metadata key 0 is {2**50} bytes, expected at most 64 (what is left of the file",
    ),
    "key name too long": (
        gguf_file(key(b"a" * 1025, ValueType.UINT8, U8)),
        "length of name of metadata key 0 is 1025 bytes, expected at most 1024 (longer than any name)",
    ),
    "key empty": (
        gguf_file(key("", ValueType.UINT8, U8)),
        "name of metadata key 0 is empty, expected a name",
    ),
    "key not utf-8": (
        gguf_file(key(b"a\xff", ValueType.UINT8, U8)),
        "name of metadata key 0 is b'a\\xff', expected UTF-8",
    ),
    "key steers the terminal": (
        gguf_file(key("a\x1b[2J", ValueType.UINT8, U8)),
        "name of metadata key 0 is 'a\\x1b[2J', expected printable text",
    ),
    "key twice": (
        gguf_file(key("a", ValueType.UINT8, U8), key("a", ValueType.UINT8, U8)),
        "metadata key is 'a', there twice, expected each key once",
    ),
    "value type": (gguf_file(key("a", 13, U8)), "type of a is 13, expected a value type, 0 to 12"),
    "value cut off": (
        gguf_file(key("a", ValueType.UINT64, b""))[:40],
        "a is beyond the end of the file (40 bytes), expected a whole file; this one is truncated",
    ),
    "bool": (gguf_file(key("a", ValueType.BOOL, b"\2")), "a is the boolean 2, expected 0 or 1"),
    "string length": (
        gguf_file(key("a", ValueType.STRING, struct.pack("<Q", HUGE)), data=bytes(3)),
        f"length of a is {HUGE} bytes, expected at most 22 (what is left of the file; truncated or",
    ),
    # arrays
    "array of arrays": (
        gguf_file(array("a", ValueType.ARRAY, 1)),
        "a is an array of arrays, expected an array of numbers, booleans or strings",
    ),
    "array type": (gguf_file(array("a", 99, 1)), "type of elements of a is 99, expected a value type"),
    "array length": (
        gguf_file(array("a", ValueType.FLOAT32, 2**62), data=bytes(32)),
        f"length of a is {2**62}, expected at most 11 (what fits in the 96 bytes of the file); truncated",
    ),
    "string array length": (
        gguf_file(array("a", ValueType.STRING, HUGE), data=bytes(32)),
        f"length of a is {HUGE}, expected at most 5 (what fits in the 96 bytes of the file); truncated",
    ),
    "string of an array": (
        gguf_file(array("a", ValueType.STRING, 2, text("x") + struct.pack("<Q", HUGE)), data=bytes(32)),
        "string 1 of a is beyond the end of the file, expected inside it; truncated or damaged",
    ),
    "string array cut off": (
        gguf_file(array("a", ValueType.STRING, 2, text("x" * 60)))[:120],
        "string 1 of a is beyond the end of the file, expected inside it; truncated or damaged",
    ),
    "bool array": (
        gguf_file(array("a", ValueType.BOOL, 3, b"\1\0\2")),
        "a is an array with a boolean above 1, expected 0 or 1",
    ),
    # alignment
    "alignment 0": (
        gguf_file(key("general.alignment", ValueType.UINT32, struct.pack("<I", 0))),
        "general.alignment is 0, expected a power of two, at least 8",
    ),
    "alignment 48": (
        gguf_file(key("general.alignment", ValueType.UINT32, struct.pack("<I", 48))),
        "general.alignment is 48, expected a power of two, at least 8",
    ),
    "alignment text": (
        gguf_file(key("general.alignment", ValueType.STRING, text("32"))),
        "general.alignment is '32' (STRING), expected an integer",
    ),
    # tensors
    "name of tensor": (
        gguf_file(tensors=(tensor(b"\xff", (16,)),)),
        "name of tensor 0 is b'\\xff', expected UTF-8",
    ),
    "no dimensions": (
        gguf_file(tensors=(tensor("t", ()),), data=SIXTEEN),
        "number of dimensions of t is 0, expected 1",
    ),
    "five dimensions": (
        gguf_file(tensors=(tensor("t", (1,) * 5),), data=SIXTEEN),
        "number of dimensions of t is 5, expected 1 to 4",
    ),
    "dimension 0": (
        gguf_file(tensors=(tensor("t", (0, 4)),), data=SIXTEEN),
        "shape of t is [0, 4], expected no dimension of 0",
    ),
    "half a block": (
        gguf_file(tensors=(tensor("t", (48, 2), GGMLType.Q4_0),), data=SIXTEEN),
        "shape of t is [48, 2], expected a row length in blocks of 32, as Q4_0 has them",
    ),
    "dimensions overflow": (
        gguf_file(tensors=(tensor("t", (2**62, 2**62, 4, 1)),), data=SIXTEEN),
        f"size is 160 bytes, expected {96 + 2**128} bytes, where t ends",
    ),
    "type unknown": (
        gguf_file(tensors=(tensor("t", (16,), 99),), data=SIXTEEN),
        "type of t is 99, expected one of 0 F32, 1 F16, 2 Q4_0",
    ),
    "type removed": (
        gguf_file(tensors=(tensor("t", (32,), 32),), data=SIXTEEN),
        "type of t is 32 (Q4_0_4_8), expected a type still in use; quantize it to Q4_0",
    ),
    "offset misaligned": (
        gguf_file(tensors=(tensor("t", (16,), offset=8),), data=SIXTEEN * 2),
        "offset of t is 8, expected a multiple of the alignment 32",
    ),
    "offset huge": (
        gguf_file(tensors=(tensor("t", (16,), offset=2**64 - 32),), data=SIXTEEN),
        f"size is 128 bytes, expected {64 + 2**64 - 32 + 64} bytes, where t ends",
    ),
    "overlap": (
        gguf_file(tensors=(tensor("t", (16,)), tensor("u", (16,), offset=32)), data=SIXTEEN * 2),
        "offset of u is 128, expected at least 160, where t ends; they overlap",
    ),
    "name twice": (
        gguf_file(tensors=(tensor("t", (16,)), tensor("t", (16,), offset=64)), data=SIXTEEN * 2),
        "tensor name is 't', there twice, expected each name once",
    ),
    "truncated data": (
        gguf_file(tensors=(tensor("t", (16,)),), data=SIXTEEN)[:-10],
        "size is 118 bytes, expected 128 bytes, where t ends; 10 bytes are missing: truncated or damaged",
    ),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.open(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: {message}")
    assert "\n" not in line


def test_every_truncation_of_a_good_file_is_noticed(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "good.gguf", "llama")
    writer.add("tokens", ["a", "bc", ""])
    writer.add("flags", [True, False])
    writer.add_tensor("t", np.ones((2, 32), np.float32), GGMLType.Q8_0)
    writer.add_tensor("u", np.ones(4, np.float32))
    content = writer.write()[0].read_bytes()
    unpadded = content[: content.rindex(np.float32(1).tobytes()) + 4]
    cut = tmp_path / "cut.gguf"
    for length in range(len(unpadded)):
        cut.write_bytes(unpadded[:length])
        with pytest.raises(ModelFileError):
            GGUFFile.open(cut)
    cut.write_bytes(unpadded)
    GGUFFile.open(cut).close()


def _message(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.open(path)
    return str(caught.value)


def test_missing_file_names_what_exists(tmp_path: Path) -> None:
    path = tmp_path / "models" / "deep" / "m.gguf"
    assert _message(path) == (
        f"{path}: file is missing, expected an existing GGUF file (mounted into the container?); "
        f"{tmp_path} exists, what follows it does not"
    )
    (tmp_path / "file").touch()
    assert "file is missing" in _message(tmp_path / "file" / "m.gguf")


def test_broken_link_names_its_target(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").symlink_to("../blobs/abc")
    assert "file is a link to ../blobs/abc, which is missing" in _message(tmp_path / "m.gguf")


def test_folder_names_the_models_in_it(tmp_path: Path) -> None:
    assert _message(tmp_path).endswith("file is a folder, expected the path of a .gguf file (it is empty)")
    (tmp_path / "x.txt").touch()
    assert _message(tmp_path).endswith("expected the path of a .gguf file (it holds no .gguf file)")
    assert _message(tmp_path / "m.gguf").endswith(f"; {tmp_path} is there (it holds no .gguf file)")
    for name in ("c.gguf", "b.gguf", "d.gguf", "a.gguf", "x.txt"):
        (tmp_path / name).touch()
    assert _message(tmp_path).endswith("a .gguf file (it holds a.gguf, b.gguf, c.gguf, ...)")


def test_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "file is no regular file" in _message(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_permission_denied_names_user_and_mode() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "m.gguf"
        path.write_bytes(gguf_file())
        path.chmod(0o640)
        closed = Path(folder) / "closed"
        closed.mkdir(0o700)
        groups = os.getgroups()
        try:
            os.setgroups([])  # root is often in group 0 besides, which may read the file
            os.setegid(65534)
            os.seteuid(65534)
            assert _message(path) == (
                f"{path}: file is not permitted (mode 0640, owner 0:0), "
                f"expected a file that uid 65534 gid 65534 may read: chmod a+r {path}, or run as its owner "
                "(docker run --user 0:0)"
            )
            assert f"file is behind the closed folder {closed} (mode 0700" in _message(closed / "m.gguf")
            assert f"chmod a+rx {closed}, or run" in _message(closed / "m.gguf")
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)
