"""The tables against the `gguf` package's."""

from __future__ import annotations

import gguf
import pytest

from corral.gguf.types import FILE_TYPES, REMOVED_TYPES, GGMLType, ValueType, file_type_name


def test_tensor_types_are_those_of_the_gguf_package() -> None:
    sizes = {type.value: (type.name, *gguf.GGML_QUANT_SIZES[type]) for type in gguf.GGMLQuantizationType}
    # The package has two float32 in a Q8_1 block; ggml has had two float16 since 2023. No file stores one.
    sizes[9] = ("Q8_1", 32, 36)
    assert {type.value: (type.name, type.block_size, type.block_bytes) for type in GGMLType} == sizes


def test_removed_types_are_no_types_and_their_replacements_are() -> None:
    assert not set(REMOVED_TYPES) & {type.value for type in GGMLType}
    assert {new for _, new in REMOVED_TYPES.values()} <= {type.name for type in GGMLType}


def test_value_types_are_those_of_the_gguf_package() -> None:
    assert {t.name: t.value for t in ValueType} == {t.name: t.value for t in gguf.GGUFValueType}


def test_file_types_are_known_and_named() -> None:
    assert set(FILE_TYPES) | {1024} == {type.value for type in gguf.LlamaFileType}


@pytest.mark.parametrize(
    ("file_type", "name"),
    [(15, "Q4_K - Medium"), (1024 + 7, "Q8_0 (guessed)"), (999, "unknown (999)"), (0, "F32")],
)
def test_file_type_name(file_type: int, name: str) -> None:
    assert file_type_name(file_type) == name


def test_bytes_of_weights() -> None:
    assert GGMLType.Q4_K.nbytes(512) == 288
    assert GGMLType.Q4_K.packed_nbytes(512) == 296
    assert GGMLType.Q8_0.packed_nbytes(512) == GGMLType.Q8_0.nbytes(512)
    assert GGMLType.Q4_K.bits_per_weight == 4.5
    with pytest.raises(ValueError, match="100 weights are no whole number of Q4_K blocks of 256"):
        GGMLType.Q4_K.nbytes(100)
