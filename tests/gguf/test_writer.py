"""Files go round: our writer to our reader, ours to the `gguf` package, the package's to our reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from corral.gguf.quants import dequantize
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType, ValueType
from corral.gguf.writer import GGUFWriter

VALUES: list[tuple[str, Any, ValueType | None, ValueType]] = [  # key, value, type given, type in the file
    ("bool", True, None, ValueType.BOOL),
    ("uint", 7, None, ValueType.UINT32),
    ("int", -7, None, ValueType.INT32),
    ("big", 2**40, None, ValueType.UINT64),
    ("small", -(2**40), None, ValueType.INT64),
    ("float", 0.5, None, ValueType.FLOAT32),
    ("double", 0.1, ValueType.FLOAT64, ValueType.FLOAT64),
    ("byte", 255, ValueType.UINT8, ValueType.UINT8),
    ("sbyte", -128, ValueType.INT8, ValueType.INT8),
    ("short", 65535, ValueType.UINT16, ValueType.UINT16),
    ("sshort", -5, ValueType.INT16, ValueType.INT16),
    ("text", "žluťoučký 🐎", None, ValueType.STRING),
    ("nothing", "", None, ValueType.STRING),
]
ARRAYS: list[tuple[str, Any, ValueType]] = [
    ("strings", ["a", "", "中文", "x" * 300], ValueType.STRING),
    ("bools", [True, False, True], ValueType.BOOL),
    ("ints", [1, -2, 3], ValueType.INT32),
    ("floats", [0.5, -1.0], ValueType.FLOAT32),
    ("none", [], ValueType.UINT32),
    ("numpy", np.arange(5, dtype=np.int64), ValueType.INT64),
]


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_round_trip(tmp_path: Path, version: int) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama", version=version)
    for key, value, given, _ in VALUES:
        writer.add(key, value, given)
    for key, value, _ in ARRAYS:
        writer.add(key, value)
    writer.write()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert file.version == version
        assert list(file.metadata) == [
            "general.architecture",
            *(v[0] for v in VALUES),
            *(a[0] for a in ARRAYS),
        ]
        for key, value, _, type in VALUES:
            assert file.metadata[key] == value
            assert isinstance(file.metadata[key], bool) == isinstance(value, bool)
            assert file.metadata.value_type(key) is type
        for key, value, type in ARRAYS:
            assert list(file.metadata[key]) == list(value)
            assert file.metadata.array_type(key) == (type, len(value))


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_tensors_round_trip(tmp_path: Path, alignment: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 64), np.float32)
    raw = np.arange(2 * 66, dtype=np.uint8)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama", alignment=alignment)
    writer.add_tensor("f32", x)
    writer.add_tensor("one", x[0, :1])
    writer.add_tensor("q8", x, GGMLType.Q8_0)
    writer.add_tensor("f16", x.reshape(1, 3, 2, 32), GGMLType.F16)
    writer.add_raw("iq2", raw, GGMLType.IQ2_XXS, (2, 256))
    writer.write()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert file.alignment == alignment
        assert {n: (t.shape, t.type) for n, t in file.tensors.items()} == {
            "f32": ((3, 64), GGMLType.F32),
            "one": ((1,), GGMLType.F32),
            "q8": ((3, 64), GGMLType.Q8_0),
            "f16": ((1, 3, 2, 32), GGMLType.F16),
            "iq2": ((2, 256), GGMLType.IQ2_XXS),
        }
        assert all(t.offset % alignment == 0 for t in file.tensors.values())
        assert np.array_equal(file.data("f32").view(np.float32).reshape(3, 64), x)
        assert np.array_equal(file.data("iq2"), raw)
        assert np.abs(dequantize(file.data("q8"), GGMLType.Q8_0, (3, 64)) - x).max() < 0.02


def test_same_calls_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        writer = GGUFWriter(tmp_path / name, "llama")
        writer.add("tokens", ["x", "y"])
        writer.add_tensor("t", np.ones((2, 256), np.float32), GGMLType.Q4_K)
        writer.write()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_gguf_package_reads_what_we_write(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama", alignment=64)
    for key, value, given, _ in VALUES:
        writer.add(key, value, given)
    writer.add("strings", ["a", "中文"])
    writer.add("floats", [0.5, -1.0])
    x = np.random.default_rng(0).standard_normal((5, 256), np.float32)
    for type in (GGMLType.F32, GGMLType.Q4_K, GGMLType.Q5_1):
        writer.add_tensor(type.name, x, type)
    writer.write()
    theirs = gguf.GGUFReader(tmp_path / "m.gguf")
    for key, value, _, type in VALUES:
        field = theirs.fields[key]
        assert field.types == [gguf.GGUFValueType(type)]
        assert field.contents() == (pytest.approx(value) if isinstance(value, float) else value)
    assert theirs.fields["strings"].contents() == ["a", "中文"]
    assert theirs.fields["floats"].contents() == [0.5, -1.0]
    assert [t.name for t in theirs.tensors] == ["F32", "Q4_K", "Q5_1"]
    with GGUFFile.open(tmp_path / "m.gguf") as ours:
        for tensor in theirs.tensors:
            assert tensor.shape.tolist() == [256, 5]
            assert tensor.tensor_type.value == ours.tensors[tensor.name].type
            assert tensor.data_offset == ours.tensors[tensor.name].offset
            assert np.array_equal(tensor.data.view(np.uint8).ravel(), ours.data(tensor.name))


def test_we_read_what_the_gguf_package_writes(tmp_path: Path) -> None:
    theirs = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen2")
    theirs.add_context_length(4096)
    theirs.add_layer_norm_rms_eps(1e-6)
    theirs.add_bool("flag", False)
    theirs.add_token_list(["a", b"\xff\xfe", "▁c"])
    theirs.add_token_scores([0.0, -1.5, 2.0])
    theirs.add_token_types([1, 3, 6])
    x = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    packed = gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q5_0)
    theirs.add_tensor("w", packed, raw_dtype=gguf.GGMLQuantizationType.Q5_0)
    theirs.add_tensor("b", x[0].astype(np.float16))
    theirs.write_header_to_file()
    theirs.write_kv_data_to_file()
    theirs.write_tensors_to_file()
    theirs.close()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert file.architecture == "qwen2"
        assert file.require("qwen2.context_length", int) == 4096
        assert file.require("flag", bool) is False
        assert file.raw_strings("tokenizer.ggml.tokens") == [b"a", b"\xff\xfe", "▁c".encode()]
        assert file.metadata["tokenizer.ggml.tokens"] == ["a", "��", "▁c"]
        assert file.require("tokenizer.ggml.scores", np.ndarray).tolist() == [0.0, -1.5, 2.0]
        assert file.metadata["tokenizer.ggml.token_type"].tolist() == [1, 3, 6]
        assert file.tensors["w"].shape == (6, 64)
        assert file.tensors["w"].type is GGMLType.Q5_0
        assert np.array_equal(file.data("w"), packed.ravel())
        assert np.array_equal(file.data("b").view(np.float16), x[0].astype(np.float16))


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    with pytest.raises(ValueError, match=r"'general\.architecture' given twice"):
        writer.add("general.architecture", "llama")
    with pytest.raises(ValueError, match="'k': 'text' is no UINT32"):
        writer.add("k", "text", ValueType.UINT32)
    with pytest.raises(ValueError, match="is no value"):
        writer.add("k", 2**64)
    with pytest.raises(ValueError, match="12 bytes are no F32 of shape"):
        writer.add_raw("t", np.zeros(12, np.uint8), GGMLType.F32, (4,))
    writer.add_tensor("t", np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="'t' given twice"):
        writer.add_tensor("t", np.zeros(4, np.float32))
