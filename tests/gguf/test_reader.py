"""What a good file gives."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType, ValueType
from corral.gguf.writer import GGUFWriter


@pytest.fixture
def writer(tmp_path: Path) -> GGUFWriter:
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add("llama.block_count", 3)
    writer.add("llama.eps", 0.25)
    writer.add("llama.flag", True)
    writer.add("heads", [4, 4, 2])
    writer.add("tokens", [b"a", b"\xe4\xb8", "▁b"])
    for index in range(5):
        writer.add_tensor(f"t{index}", np.full((2, 32), index, np.float32), GGMLType.Q8_0)
    return writer


@pytest.fixture
def file(writer: GGUFWriter) -> GGUFFile:
    return GGUFFile.open(writer.write()[0])


def test_architecture_and_paths(file: GGUFFile, tmp_path: Path) -> None:
    assert file.architecture == "llama"
    assert file.path == tmp_path / "model.gguf"
    assert file.paths == (tmp_path / "model.gguf",)
    assert (file.version, file.alignment) == (3, 32)


@pytest.mark.parametrize("name", ["", "../llama", "lla ma", "llama\n", "x" * 65])
def test_architecture_is_a_word(tmp_path: Path, name: str) -> None:
    file = GGUFFile.open(GGUFWriter(tmp_path / "m.gguf", name).write()[0])
    with pytest.raises(ModelFileError, match=r"general.architecture is '.*, expected a word, as llama"):
        _ = file.architecture


@pytest.mark.parametrize(
    ("key", "type", "value"),
    [
        ("llama.block_count", int, 3),
        ("llama.block_count", float, 3.0),
        ("llama.eps", float, 0.25),
        ("llama.flag", bool, True),
        ("general.architecture", str, "llama"),
        ("heads", list, [4, 4, 2]),
        ("tokens", list, ["a", "�", "▁b"]),
    ],
)
def test_require_gives_the_type_asked_for(file: GGUFFile, key: str, type: type, value: object) -> None:
    found = file.require(key, type)
    assert found == value
    assert isinstance(found, type)
    assert file.get(key, type, None) == value
    assert file.get("absent", type, None) is None


@pytest.mark.parametrize(
    ("key", "type", "message"),
    [
        ("absent", int, "absent is missing, expected an integer"),
        ("general.architecture", int, "general.architecture is 'llama' (STRING), expected an integer"),
        ("llama.eps", int, "llama.eps is 0.25 (FLOAT32), expected an integer"),
        ("llama.flag", int, "llama.flag is True (BOOL), expected an integer"),
        ("llama.flag", float, "llama.flag is True (BOOL), expected a number"),
        ("llama.block_count", bool, "llama.block_count is 3 (UINT32), expected a boolean"),
        ("heads", str, "heads is an array of 3 UINT32, expected a string"),
        ("tokens", np.ndarray, "tokens is an array of 3 STRING, expected an array of numbers"),
        ("llama.block_count", list, "llama.block_count is 3 (UINT32), expected an array"),
    ],
)
def test_require_names_key_value_and_type(file: GGUFFile, key: str, type: type, message: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        file.require(key, type)
    assert str(caught.value) == f"{file.path}: {message}"


@pytest.mark.parametrize(
    ("key", "value", "before"),
    [
        ("llama.block_count", 7, 3),
        ("llama.eps", 0.5, 0.25),
        ("llama.eps", 2, 0.25),
        ("llama.flag", False, True),
        ("general.architecture", "other", "llama"),
        ("absent", 1, None),
        ("absent", 1.5, None),
        ("absent", "text", None),
        ("absent", True, None),
    ],
)
def test_overrides(file: GGUFFile, key: str, value: int | float | str, before: object) -> None:
    asked: list[str] = []

    def overrides(architecture: str) -> dict[str, int | float | bool | str]:
        asked.append(architecture)
        return {key: value}

    changed = GGUFFile.open(file.path, overrides)
    assert asked == ["llama"]
    assert changed.require(key, type(value if before is None else before)) == value
    assert changed.replaced == {key: before}
    assert set(changed.metadata) == {*file.metadata, key}
    assert file.replaced == {}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("llama.block_count", 7.0, "an integer, as in the file: 3 (UINT32)"),
        ("llama.block_count", True, "an integer, as in the file: 3 (UINT32)"),
        ("llama.eps", "x", "a number, as in the file: 0.25 (FLOAT32)"),
        ("llama.flag", 1, "a boolean, as in the file: True (BOOL)"),
        ("general.architecture", 1, "a string, as in the file: 'llama' (STRING)"),
        ("heads", 1, "an array, as in the file: an array of 3 UINT32"),
    ],
)
def test_an_override_of_another_type(file: GGUFFile, key: str, value: object, expected: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.open(file.path, lambda _: {key: value})  # type: ignore[dict-item]
    assert str(caught.value) == f"{file.path}: {key} is overridden with {value!r}, expected {expected}"


def test_bytes_of_strings_survive(file: GGUFFile) -> None:
    assert file.raw_strings("tokens") == [b"a", b"\xe4\xb8", "▁b".encode()]
    for key in ("heads", "llama.eps", "absent"):
        with pytest.raises(ModelFileError, match="expected an array of strings"):
            file.raw_strings(key)


def test_arrays_are_decoded_once_and_outlive_the_file(file: GGUFFile) -> None:
    tokens, heads = file.metadata["tokens"], file.metadata["heads"]
    file.close()
    assert file.metadata["tokens"] is tokens
    assert file.metadata["heads"] is heads
    assert heads.dtype == np.uint32
    assert not heads.flags.writeable


def test_data_is_a_read_only_view(file: GGUFFile) -> None:
    data = file.data("t3")
    assert (data.dtype, data.shape) == (np.uint8, (2 * 34,))
    assert not data.flags.writeable
    assert not data.flags.owndata
    assert data[2:34].tolist() == [127] * 32


def test_data_outlives_close_and_pages_come_back(file: GGUFFile) -> None:
    data = file.data("t4")
    before = data.copy()
    file.drop_pages("t4")
    with file:
        pass
    assert np.array_equal(data, before)


@pytest.mark.parametrize("wanted", [True, False])
def test_reading_ahead_reads_the_tensor_once_in_order(
    file: GGUFFile, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setattr("corral.gguf.reader.READ_BYTES", 16)
    reads: list[tuple[int, int]] = []

    class Recorded(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            at = self.tell()
            count = super().readinto(buffer)
            reads.append((at, count))
            return count

    monkeypatch.setattr(Path, "open", lambda path, *_, **__: Recorded(path))
    file.in_order = wanted
    file.read_ahead("t3")
    start = file.tensors["t3"].offset
    assert reads == ([(start + at, min(16, 68 - at)) for at in range(0, 68, 16)] if wanted else [])


def test_reading_ahead_leaves_errors_to_who_needs_the_bytes(
    file: GGUFFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.in_order = True
    file.path.unlink()
    file.read_ahead("t3")
    assert file.data("t3")[2:34].tolist() == [127] * 32


def test_what_is_held_does_not_need_the_file(file: GGUFFile) -> None:
    before = file.data("t4").copy()
    file.hold("t4")
    file.hold("t4")
    with file.path.open("r+b") as changed:  # the mapping sees it
        changed.seek(file.tensors["t4"].offset)
        changed.write(bytes(len(before)))
    file.drop_pages("t4")
    assert np.array_equal(file.data("t4"), before)
    assert not file.data("t4").flags.writeable


def test_a_file_without_tensors_may_end_unpadded(tmp_path: Path) -> None:
    path = GGUFWriter(tmp_path / "v.gguf", "llama").write()[0]
    path.write_bytes(path.read_bytes().rstrip(b"\0"))
    assert GGUFFile.open(path).tensors == {}


def test_split_files_look_like_one(writer: GGUFWriter, tmp_path: Path) -> None:
    whole = GGUFFile.open(writer.write()[0])
    paths = writer.write(tensors_per_shard=2)
    assert [path.name for path in paths] == [f"model-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    split = GGUFFile.open(paths[0])
    assert split.paths == tuple(paths)
    assert list(split.tensors) == list(whole.tensors)
    assert [t.shard for t in split.tensors.values()] == [0, 0, 1, 1, 2]
    for name in whole.tensors:
        assert np.array_equal(split.data(name), whole.data(name))
    assert split.require("llama.block_count", int) == 3


def _write_shards(folder: Path, name: str, edit: dict[str, int], tensor: str = "other") -> list[Path]:
    """Two shards; the second has `edit` in place of its own split keys, and one tensor."""
    first = GGUFWriter(folder / f"{name}-00001-of-00002.gguf", "llama")
    second = GGUFWriter(folder / f"{name}-00002-of-00002.gguf")
    for number, writer in enumerate((first, second)):
        keys = {"split.no": number, "split.count": 2, "split.tensors.count": 2}
        for key, value in (keys | edit if number else keys).items():
            writer.add(key, value)
    first.add_tensor("one", np.zeros(4, np.float32))
    second.add_tensor(tensor, np.zeros(4, np.float32))
    return first.write() + second.write()


@pytest.mark.parametrize(
    ("edit", "tensor", "message"),
    [
        (
            {"split.no": 0},
            "other",
            "-00002-of-00002.gguf: split.no is 0, expected 1; the shards do not belong",
        ),
        (
            {"split.count": 3},
            "other",
            "-00002-of-00002.gguf: split.count is 3, expected 2; the shards do not",
        ),
        ({}, "one", "'one', also in"),
    ],
)
def test_shards_that_do_not_belong_together(
    tmp_path: Path, edit: dict[str, int], tensor: str, message: str
) -> None:
    first, _ = _write_shards(tmp_path, "m", edit, tensor)
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.open(first)
    assert message in str(caught.value)


def test_a_missing_shard_is_named(writer: GGUFWriter) -> None:
    paths = writer.write(tensors_per_shard=1)
    paths[2].unlink()
    paths[4].unlink()
    with pytest.raises(ModelFileError) as caught:
        GGUFFile.open(paths[0])
    assert "shard is model-00003-of-00005.gguf (and 1 more) missing, expected all 5" in str(caught.value)


def test_the_first_shard_must_be_opened(writer: GGUFWriter) -> None:
    paths = writer.write(tensors_per_shard=2)
    with pytest.raises(
        ModelFileError, match=r"split.no is 1, expected 0: open the first shard, model-00001-of-00003"
    ):
        GGUFFile.open(paths[1])


def test_a_renamed_shard_is_told_its_name(writer: GGUFWriter, tmp_path: Path) -> None:
    paths = writer.write(tensors_per_shard=2)
    with pytest.raises(ModelFileError, match=r"file name is renamed.gguf, expected NAME-00001-of-00003.gguf"):
        GGUFFile.open(paths[0].rename(tmp_path / "renamed.gguf"))


def test_lost_tensors_are_noticed(writer: GGUFWriter, tmp_path: Path) -> None:
    first, second = _write_shards(tmp_path, "m", {})
    shorter = GGUFWriter(second)
    for key, value in (("split.no", 1), ("split.count", 2), ("split.tensors.count", 2)):
        shorter.add(key, value)
    shorter.write()
    with pytest.raises(ModelFileError, match=r"split.tensors.count is 2, expected 1; the shards"):
        GGUFFile.open(first)


@pytest.mark.parametrize(
    ("name", "architecture", "tokens", "last"),
    [
        ("ggml-vocab-llama-spm", "llama", 32000, "给"),
        ("ggml-vocab-llama-bpe", "llama", 128256, "<|reserved_special_token_250|>"),
        ("ggml-vocab-qwen2", "qwen2", 151936, "[PAD151935]"),
    ],
)
def test_real_vocabularies(vocab_dir: Path, name: str, architecture: str, tokens: int, last: str) -> None:
    with GGUFFile.open(vocab_dir / f"{name}.gguf") as file:
        assert file.architecture == architecture
        assert file.metadata.array_type("tokenizer.ggml.tokens") == (ValueType.STRING, tokens)
        assert file.metadata.array_length("tokenizer.ggml.tokens") == tokens
        assert file.metadata.array_length("no.such.key") == 0
        assert len(file.metadata["tokenizer.ggml.tokens"]) == tokens
        assert file.metadata["tokenizer.ggml.tokens"][-1] == last
        assert len(file.metadata["tokenizer.ggml.token_type"]) == tokens


@pytest.mark.model
def test_real_model(gemma3_path: Path) -> None:
    with GGUFFile.open(gemma3_path) as file:
        assert file.architecture == "gemma3"
        assert len(file.tensors) == 236
        assert file.tensors["token_embd.weight"].shape == (262144, 640)
        assert sum(t.n_elements for t in file.tensors.values()) == 268098176
        assert len(file.raw_strings("tokenizer.ggml.tokens")) == 262144
