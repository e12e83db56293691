"""Every architecture, as a toy: the executors agree with each other, and with the model in plain numpy."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batches import alone, logits_of, play, together
from plain import MODELS, frequencies
from tiny import VOCAB, Array, Toy

from corral.errors import ModelFileError
from corral.gguf.quants import dequantize
from corral.gguf.reader import GGUFFile
from corral.gguf.types import GGMLType
from corral.models import architectures, trace_program
from corral.program.outputs import has_logits
from corral.program.program import Linear
from corral.program.reference import ReferenceExecutor

WIDER = {"embedding_length": 256, "feed_forward_length": 512}
MIXES: dict[str, tuple[tuple[GGMLType, ...], dict[str, Any]]] = {
    "F32": ((GGMLType.F32,), {}),
    "halves": ((GGMLType.F16, GGMLType.BF16), {}),
    "Q8_0": ((GGMLType.Q8_0,), {}),
    "blocks": ((GGMLType.Q4_0, GGMLType.Q4_1, GGMLType.Q5_0, GGMLType.Q5_1, GGMLType.Q8_0), {}),
    "K blocks": ((GGMLType.Q6_K, GGMLType.Q4_K, GGMLType.Q4_K), WIDER),
    "everything": ((GGMLType.F16, GGMLType.Q4_K, GGMLType.Q5_0, GGMLType.F32, GGMLType.Q6_K), WIDER),
}
LENGTHS = (75, 1, 33)
SEQUENCES = [[int(t) for t in np.random.default_rng(n).integers(0, VOCAB, n)] for n in LENGTHS]


def module_of(arch: str) -> str:
    return f"corral.models.{arch.replace('-', '_')}"


def toy(arch: str, mix: str, **changes: Any) -> Toy:
    types, wider = MIXES[mix]
    if wider and "attention.key_length" in importlib.import_module(module_of(arch)).TINY:
        wider = {**wider, "attention.key_length": 64, "attention.value_length": 64}
    return Toy(arch, types, changes=wider, **changes)


def read_weights(file: GGUFFile) -> dict[str, Array]:
    return {
        name: dequantize(file.data(name), info.type, info.shape).astype(np.float64)
        for name, info in file.tensors.items()
    }


def exact(file: GGUFFile) -> ReferenceExecutor:
    return ReferenceExecutor(trace_program(file), file, quantize_activations=False, dtype=np.float64)


def spread(x: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def assert_close(found: Array, wanted: Array, share: float) -> None:
    """Within a share of the spread of the logits."""
    error = np.abs(found - wanted).max() / wanted.std()
    assert error <= share, f"off by {error:.2g} of the spread"


def test_every_architecture_has_a_plain_twin() -> None:
    assert set(architectures()) == set(MODELS)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("optional", [False, True], ids=["needed", "optional"])
@pytest.mark.parametrize("arch", architectures())
def test_the_program_is_the_model(tmp_path: Path, arch: str, optional: bool, mix: str) -> None:
    one = toy(arch, mix, optional=optional)
    file = one.write(tmp_path)
    executor = exact(file)
    # an encoder takes a sequence whole
    found = play(executor, SEQUENCES, together(LENGTHS, 75 if executor.program.whole else 40))
    for logits, tokens in zip(found, SEQUENCES, strict=True):
        wanted = MODELS[arch](read_weights(file), one.meta, np.array(tokens))
        assert_close(logits, wanted, 1e-6)  # they differ by being given as float32


@pytest.mark.parametrize(
    "change",
    [
        {"final_logit_softcapping": 3.0},
        {"attention.sliding_window": 5},
        {"attention.head_count_kv": 4},
        {"rope.freq_base": 5000.0},
    ],
    ids=str,
)
def test_metadata_of_gemma3(tmp_path: Path, change: dict[str, Any]) -> None:
    check_plain(Toy("gemma3", changes=change), tmp_path)


def test_gemma3_without_a_window_has_only_global_layers(tmp_path: Path) -> None:
    one = Toy("gemma3", changes={"attention.sliding_window": None, "rope.freq_base": 10000.0})
    one.meta["attention.sliding_window"] = 0
    check_plain(one, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"attention.head_count_kv": 4},
        {"attention.head_count_kv": 1},
        {"rope.freq_base": 500000.0},
        {"attention.layer_norm_rms_epsilon": 0.5},
        {"block_count": 1},
    ],
    ids=str,
)
def test_metadata_of_llama(tmp_path: Path, change: dict[str, Any]) -> None:
    check_plain(Toy("llama", changes=change), tmp_path)


def check_plain(one: Toy, folder: Path, freqs: Array | None = None) -> None:
    file = one.write(folder)
    kwargs = {} if freqs is None else {"freqs": freqs}
    wanted = MODELS[one.arch](read_weights(file), one.meta, np.array(SEQUENCES[0]), **kwargs)
    assert_close(logits_of(exact(file), SEQUENCES[0]), wanted, 1e-6)


@pytest.mark.parametrize(
    "scaling", [{"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope.scale_linear": 4.0}]
)
def test_linear_rope_scaling(tmp_path: Path, scaling: dict[str, Any]) -> None:
    """arXiv:2306.15595: positions are divided."""
    check_plain(Toy("llama", changes=scaling), tmp_path, frequencies(16, 10000.0) / 4)


def test_partial_rotation(tmp_path: Path) -> None:
    """Only the first 8 of the 16 numbers of a head turn: the others turn by nothing."""
    freqs = np.concatenate([frequencies(8, 10000.0), np.zeros(4)])
    check_plain(Toy("llama", changes={"rope.dimension_count": 8}), tmp_path, freqs)


def test_llama_3_rope_factors(tmp_path: Path) -> None:
    """Llama 3.1: waves longer than the old context are stretched by 8, short ones left, between mixed."""
    plain, old_context = frequencies(16, 500000.0), 8192
    scaled = []
    for frequency in plain:
        turns = old_context * frequency / (2 * np.pi)
        mix = np.clip((turns - 1) / (4 - 1), 0, 1)
        scaled.append(frequency * (mix + (1 - mix) / 8))
    one = Toy("llama", changes={"rope.freq_base": 500000.0})
    factors = (plain / scaled).astype(np.float32)
    assert factors.min() == 1
    assert factors.max() == 8
    assert len(set(factors)) > 2
    one.weights["rope_freqs.weight"] = factors
    check_plain(one, tmp_path, plain / factors.astype(np.float64))


@pytest.mark.parametrize(
    "change", [{"attention.head_count": 6}, {"attention.layer_norm_epsilon": 0.1}], ids=str
)
def test_metadata_of_encoders(tmp_path: Path, change: dict[str, Any]) -> None:
    for arch in ("bert", "nomic-bert", "jina-bert-v2"):
        check_plain(Toy(arch, changes={"embedding_length": 96, **change}), tmp_path)


def test_jina_with_gate_and_up_in_one(tmp_path: Path) -> None:
    """The gate is the first half."""
    one = Toy("jina-bert-v2", optional=True)
    file = one.write(tmp_path)
    for i in range(2):
        gate, up = (one.weights[f"blk.{i}.ffn_{name}.weight"] for name in ("gate", "up"))
        del one.weights[f"blk.{i}.ffn_gate.weight"], one.weights[f"blk.{i}.ffn_gate.bias"]
        one.weights[f"blk.{i}.ffn_up.weight"] = np.concatenate([gate, up])
        one.weights[f"blk.{i}.ffn_up.bias"] = np.concatenate([up[:, 0] * 0, up[:, 0]])
    joined = one.write(tmp_path)
    weights = read_weights(file)
    for i in range(2):
        weights[f"blk.{i}.ffn_gate.bias"] = np.zeros(160)
        weights[f"blk.{i}.ffn_up.bias"] = weights[f"blk.{i}.ffn_up.weight"][:, 0]
    wanted = MODELS["jina-bert-v2"](weights, one.meta, np.array(SEQUENCES[0]))
    assert_close(logits_of(exact(joined), SEQUENCES[0]), wanted, 1e-6)


@pytest.mark.parametrize("arch", architectures())
def test_hidden_states(tmp_path: Path, arch: str) -> None:
    """In place of logits: what the output matrix would be multiplied with."""
    file = Toy(arch, optional=True).write(tmp_path)
    weights, full = read_weights(file), trace_program(file)
    program = trace_program(file, "hidden")
    executor = ReferenceExecutor(program, file, quantize_activations=False, dtype=np.float64)
    hidden, logits = (logits_of(run, SEQUENCES[0]) for run in (executor, exact(file)))
    assert program.width == weights["token_embd.weight"].shape[1]
    if has_logits(full):
        bias = weights["output.bias"]
        assert_close(logits, hidden @ weights["output.weight"].T + bias, 1e-6)
    else:
        assert np.array_equal(hidden, logits)


@pytest.mark.parametrize("names", [("cls",), ("cls.output",), ("cls", "cls.output")], ids="+".join)
@pytest.mark.parametrize("arch", ["bert", "llama"])
def test_scores(tmp_path: Path, arch: str, names: tuple[str, ...]) -> None:
    """A dense layer with tanh, then a projection; a model may have one of them only."""
    one, rng = Toy(arch), np.random.default_rng(0)
    labels = 1
    for name in names:
        rows = 64 if name == "cls" and len(names) == 2 else labels
        one.weights[f"{name}.weight"] = rng.standard_normal((rows, 64)).astype(np.float32) / 8
        one.weights[f"{name}.bias"] = rng.standard_normal(rows).astype(np.float32)
    file = one.write(tmp_path)
    weights = read_weights(file)
    wanted, scores = (
        logits_of(
            ReferenceExecutor(
                trace_program(file, output), file, quantize_activations=False, dtype=np.float64
            ),
            SEQUENCES[0],
        )
        for output in ("hidden", "scores")
    )
    for name in names:
        wanted = wanted @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        wanted = np.tanh(wanted) if name == "cls" else wanted
    assert_close(scores, wanted, 1e-5)


def test_no_scores_without_a_head(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"without cls and cls\.output, expected a head, to rank with"):
        trace_program(Toy("bert").write(tmp_path), "scores")


@pytest.mark.slow
@pytest.mark.native
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("arch", architectures())
def test_native(tmp_path: Path, arch: str, mix: str) -> None:
    """Close to the reference; the same bits in any company, on any variant, with any threads."""
    pytest.importorskip("corral._native", reason="the extension is not built")
    from corral.program.native import NativeExecutor, formats, isas

    file = toy(arch, mix, optional=mix == "everything").write(tmp_path)
    program = trace_program(file)
    groups = formats()
    twin = ReferenceExecutor(program, file, activation_groups=groups)
    rounded = play(twin, SEQUENCES, alone(LENGTHS))
    unrounded = play(exact(file), SEQUENCES, alone(LENGTHS))
    bits = play(NativeExecutor(program, file, threads=1, max_logits=512), SEQUENCES, alone(LENGTHS))
    for logits, near, model in zip(bits, rounded, unrounded, strict=True):
        # float32 arithmetic, and a key now and then that rounds to the other float16
        # where inputs are int8 too, one that rounds the other way moves all after it, less than rounding does
        allowed = 1e-4 if mix in ("F32", "halves") else spread(near - model) / spread(model)
        assert spread(logits - near) <= allowed * spread(model)
        assert spread(logits - model) <= 1.1 * spread(near - model) + 1e-4 * spread(model)
    kinds = {program.weights[w].type for op in program.ops if isinstance(op, Linear) for w in op.weights}
    alike = [isa for isa in isas() if all(formats(isa)[kind] == groups[kind] for kind in kinds)]
    runs = [(1, isa, 45) for isa in alike] + [(2, "auto", 1), (3, "auto", 7), (3, "auto", 512)]
    if program.whole:
        runs = [(1, isa, 512) for isa in alike] + [(2, "auto", 512), (3, "auto", 512)]
    for threads, isa, chunk in runs:
        native = NativeExecutor(program, file, threads=threads, isa=isa, max_logits=512)
        for logits, wanted in zip(play(native, SEQUENCES, together(LENGTHS, chunk)), bits, strict=True):
            assert np.array_equal(logits, wanted), f"{isa}, {threads} threads, chunks of {chunk}"
