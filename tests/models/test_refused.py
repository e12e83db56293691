"""Files that are no such model: a line names the file, the field, its value and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import VOCAB, Toy

from corral.errors import ModelFileError
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType
from corral.gguf.writer import GGUFWriter
from corral.models import architectures, trace_program

FITTING = {
    # only the first type is used; what an encoder's tokens are is for its vocabulary to say
    **{(arch, "token_types.weight"): (1, 3) for arch in ("bert", "nomic-bert", "jina-bert-v2")},
    **{(arch, "token_embd.weight"): (48, 98) for arch in ("bert", "nomic-bert", "jina-bert-v2")},
    ("bert", "position_embd.weight"): (257,),
}
"""Numbers of rows that are as good as the toy's."""


def refusal(file: GGUFFile) -> str:
    with pytest.raises(ModelFileError) as error:
        trace_program(file)
    message = str(error.value)
    assert message.startswith(f"{file.path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{file.path}: ")


def once(name: str) -> bool:
    """One layer is as good as another."""
    return not name.startswith("blk.") or name.startswith("blk.0.")


@pytest.mark.parametrize("arch", architectures())
def test_each_needed_tensor_is_missed(tmp_path: Path, arch: str) -> None:
    needed = [tensor.name for tensor in Toy(arch).declared if tensor.needed and once(tensor.name)]
    assert len(needed) > 8
    for name in needed:
        one = Toy(arch)
        del one.weights[f"{name}.weight"]
        assert refusal(one.write(tmp_path)) == (
            f"tensor {name}.weight is missing, expected a tensor every '{arch}' file has"
        )


@pytest.mark.parametrize("arch", architectures())
def test_each_optional_tensor_may_be_there(tmp_path: Path, arch: str) -> None:
    assert trace_program(Toy(arch, optional=True).write(tmp_path)).vocab_size == VOCAB


@pytest.mark.parametrize("arch", architectures())
def test_each_shape_is_checked(tmp_path: Path, arch: str) -> None:
    """Every tensor, needed or not, with a row or a number too many, or with half as many."""
    shapes = {name: values.shape for name, values in Toy(arch, optional=True).weights.items() if once(name)}
    for name, shape in shapes.items():
        for wrong in (
            (shape[0] + 1, *shape[1:]),
            (max(1, shape[0] // 2), *shape[1:]),
            (*shape, 2),
            (*shape[:-1], 48),
        ):
            if wrong[1:] == shape[1:] and wrong[0] in FITTING.get((arch, name), ()):
                continue
            one = Toy(arch, optional=True)
            one.weights[name] = np.ones(wrong, np.float32)
            message = refusal(one.write(tmp_path))
            assert "shape" in message, f"{name} {shape} as {wrong}: {message}"


@pytest.mark.parametrize("arch", architectures())
def test_tensors_that_are_left_over(tmp_path: Path, arch: str) -> None:
    one = Toy(arch)
    for i in range(9):
        one.weights[f"blk.0.extra_{i}.weight"] = np.ones(4)
    message = refusal(one.write(tmp_path))
    assert message.startswith("tensors is 9 unknown: blk.0.extra_0.weight, blk.0.extra_1.weight, ")
    assert f"'{arch}'" in message


def test_a_block_too_many_is_left_over(tmp_path: Path) -> None:
    one = Toy("llama")
    one.meta["block_count"] = 1
    assert refusal(one.write(tmp_path)).startswith("tensors is 9 unknown: blk.1.attn_norm.weight, ")


WRONG_METADATA: list[tuple[str, Any, str]] = [
    ("block_count", None, "llama.block_count"),
    ("block_count", 0, "llama.block_count is 0, expected a number from 1 to 1024"),
    ("block_count", 10**6, "llama.block_count is 1000000, expected a number from 1 to 1024"),
    ("block_count", -1, "llama.block_count is -1"),
    ("block_count", "two", "llama.block_count"),
    ("block_count", 3, "tensor blk.2.attn_norm.weight is missing"),
    ("embedding_length", 0, "llama.embedding_length is 0"),
    ("embedding_length", 2**40, "llama.embedding_length is 1099511627776"),
    ("embedding_length", 128, "embedding_length is 128"),
    ("attention.head_count", None, "llama.attention.head_count"),
    ("attention.head_count", 0, "llama.attention.head_count is 0"),
    ("attention.head_count", 3, "llama.attention.head_count_kv is 2, expected a divisor of the 3 heads"),
    ("attention.head_count", 2, "head_count is 2, head_count_kv 2"),
    ("attention.head_count", 10**9, "llama.attention.head_count is 1000000000"),
    ("attention.head_count_kv", 0, "llama.attention.head_count_kv is 0, expected a number from 1 to 4"),
    ("attention.head_count_kv", 3, "llama.attention.head_count_kv is 3, expected a divisor of the 4 heads"),
    ("attention.head_count_kv", 8, "llama.attention.head_count_kv is 8, expected a number from 1 to 4"),
    ("attention.head_count_kv", 4, "head_count is 4, head_count_kv 4"),
    ("attention.key_length", 0, "llama.attention.key_length is 0"),
    ("attention.key_length", 10**6, "llama.attention.key_length is 1000000"),
    ("attention.key_length", 32, "head_count is 4, head_count_kv 2"),
    ("attention.key_length", 24, "columns are not heads of 24"),
    ("attention.value_length", 8, "llama.attention.value_length is 8, expected the key length, 16"),
    ("attention.layer_norm_rms_epsilon", None, "llama.attention.layer_norm_rms_epsilon"),
    ("attention.layer_norm_rms_epsilon", float("nan"), "layer_norm_rms_epsilon is nan"),
    ("attention.layer_norm_rms_epsilon", -1.0, "layer_norm_rms_epsilon is -1.0"),
    ("context_length", 0, "llama.context_length is 0"),
    ("rope.dimension_count", 0, "llama.rope.dimension_count is 0, expected an even number up to 16"),
    ("rope.dimension_count", 15, "llama.rope.dimension_count is 15"),
    ("rope.dimension_count", 18, "llama.rope.dimension_count is 18"),
    ("rope.freq_base", 0.0, "llama.rope.freq_base is 0.0"),
    ("rope.freq_base", float("inf"), "llama.rope.freq_base is inf"),
    ("rope.scaling.type", "spiral", "llama.rope.scaling.type is spiral, expected none, linear or yarn"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "message"), WRONG_METADATA, ids=[f"{k}={v}" for k, v, _ in WRONG_METADATA]
)
def test_wrong_metadata(tmp_path: Path, key: str, value: Any, message: str) -> None:
    one = Toy("llama")
    one.meta.pop(key, None)
    if value is not None:
        one.meta[key] = value
    assert message in refusal(one.write(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.freq_base_swa", 0.0),
        ("rope.freq_base_swa", float("nan")),
        ("final_logit_softcapping", -1.0),
        ("final_logit_softcapping", float("inf")),
        ("attention.sliding_window", -1),
    ],
)
def test_wrong_metadata_of_gemma3(tmp_path: Path, key: str, value: float) -> None:
    one = Toy("gemma3")
    one.meta[key] = value
    assert refusal(one.write(tmp_path)).startswith(f"gemma3.{key} is {value}, expected ")


@pytest.mark.parametrize("arch", ["gpt-oss", "llama5", "config", "__init__", "../llama", "Llama", "os"])
def test_unknown_architecture(tmp_path: Path, arch: str) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", arch)
    writer.write()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        message = refusal(file)
    assert message.startswith("general.architecture is ")
    assert arch in message


def test_no_architecture(tmp_path: Path) -> None:
    GGUFWriter(tmp_path / "m.gguf").write()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        assert "general.architecture" in refusal(file)


def factors(values: list[float]) -> Callable[[Toy], None]:
    def change(one: Toy) -> None:
        one.weights["rope_freqs.weight"] = np.array(values, np.float32)

    return change


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0] * 7, "7 rope_freqs for 8 rotated pairs"),
        ([1.0], "1 rope_freqs for 8 rotated pairs"),
        ([1.0] * 7 + [0.0], "rope_freqs has numbers that are not positive"),
        ([1.0] * 7 + [-2.0], "rope_freqs has numbers that are not positive"),
        ([1.0] * 7 + [float("nan")], "rope_freqs has numbers that are not positive"),
        ([float("inf")] * 8, "rope_freqs has numbers that are not positive"),
    ],
)
def test_rope_factors(tmp_path: Path, values: list[float], message: str) -> None:
    one = Toy("llama")
    factors(values)(one)
    assert message in refusal(one.write(tmp_path))


@pytest.mark.parametrize("name", ["output_norm.weight", "rope_freqs.weight", "blk.1.attn_q.bias"])
def test_a_vector_of_a_type_nobody_reads(tmp_path: Path, name: str) -> None:
    one = Toy("llama", optional=True)
    shape = {"output_norm.weight": 64, "rope_freqs.weight": 8, "blk.1.attn_q.bias": 64}[name]
    one.weights.pop(name, None)
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, "llama")
    for key, value in one.meta.items():
        writer.add(f"llama.{key}", value)
    for other, values in one.weights.items():
        writer.add_tensor(other, values.astype(np.float32))
    writer.add_raw(name, np.zeros(8 * shape, np.uint8), GGMLType.F64, (shape,))
    writer.write()
    assert refusal(GGUFFile.open(path)).startswith(f"type of {name} is F64, expected one of F32, F16")


@pytest.mark.native
def test_what_there_is_no_kernel_for(tmp_path: Path) -> None:
    pytest.importorskip("corral._native", reason="the extension is not built")
    from corral.program.native import NativeExecutor

    wide = Toy("llama", changes={"attention.key_length": 1024, "attention.value_length": 1024})
    file = wide.write(tmp_path)
    with pytest.raises(ModelFileError, match="head size is 1024, expected at most 512"):
        NativeExecutor(trace_program(file), file, threads=1)
