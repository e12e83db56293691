"""From a file to an engine, with a toy model and the numpy executor."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_executor import run, text_of, tokens_of
from toy_model import TRAIN_CTX, write_toy_model

from corral.config import EngineConfig, ModelConfig
from corral.engine import load as load_module
from corral.engine.client import EngineClient
from corral.engine.load import activation_bytes, load
from corral.engine.loop import LoadedModel
from corral.engine.messages import Output, Submit
from corral.errors import ModelFileError, OptionError, Unavailable
from corral.gguf.reader import GGUFFile
from corral.gguf.types import MetadataValue
from corral.models import trace_program
from corral.program.kv_cache import CacheTypes
from corral.sampling.params import SamplingParams
from corral.system.budget import MIB, MemoryLimit
from corral.system.filesystem import FileSystem

REFERENCE = EngineConfig(executor="reference", threads=1)
SUBMIT = Submit(id="a", prompt=[1, 75, 76], max_tokens=20, sampling=SamplingParams(seed=1, ignore_eos=True))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_toy_model(tmp_path_factory.mktemp("toy") / "toy.gguf"))


def loaded(path: str, **changes: object) -> LoadedModel:
    config = EngineConfig(**{"executor": "reference", "threads": 1, **changes})  # type: ignore[arg-type]
    return load(ModelConfig(path=path), config, lambda share, message: None)


def test_what_was_decided_is_told(toy: str) -> None:
    ready = loaded(toy, parallel=3).ready
    assert (ready.n_ctx, ready.kv_tokens, ready.parallel, ready.threads) == (TRAIN_CTX, 3 * TRAIN_CTX, 3, 1)
    assert (ready.executor, ready.isa) == ("reference", "numpy")
    # 2 layers, keys and values of 2 heads of 16, 2 bytes each
    assert ready.kv_bytes == 3 * TRAIN_CTX * 2 * 2 * 2 * 16 * 2
    assert ready.weights_bytes > 0
    assert ready.load_ms > 0
    assert ready.speculation == ()
    assert loaded(toy, speculation=("none", "ngram-simple")).ready.speculation == ("ngram-simple",)


@pytest.mark.parametrize(
    ("keys", "values", "head_bytes", "notes"),
    [
        ("f32", "f16", 64 + 32, []),
        ("q8_0", "f16", 18 + 32, []),
        ("bf16", "q4_0", 32 + 18, ["k bf16 is kept as f16", "v q4_0 is kept as q8_0"]),
    ],
)
def test_cache_types(toy: str, keys: str, values: str, head_bytes: int, notes: list[str]) -> None:
    ready = loaded(toy, cache_type_k=keys, cache_type_v=values, parallel=1).ready
    assert ready.kv_bytes == TRAIN_CTX * 2 * 2 * head_bytes
    assert [note.split(":")[0] for note in ready.notes] == [f"--cache-type-{n}" for n in notes]


def test_it_generates_bytes_as_text(toy: str) -> None:
    outputs = run(loaded(toy).engine, [SUBMIT])["a"]
    tokens = tokens_of(outputs)
    assert len(tokens) == 20
    # control tokens have no text, the others are bytes
    assert text_of(outputs) == bytes(token - 3 for token in tokens if token >= 3).decode(errors="replace")


@pytest.mark.parametrize(
    ("asked", "n_ctx", "kv_tokens"),
    [
        ({}, 256, 1024),
        ({"ctx_size": 100}, 100, 128),
        ({"ctx_size": 256}, 256, 256),
        ({"ctx_size": 4096}, 256, 4096),
        ({"ctx_size": 512, "kv_unified": False}, 256, 1024),  # padded to 256 each
        ({"ctx_size": 1024, "kv_unified": False, "parallel": 2}, 256, 1024),
        ({"kv_unified": False}, 64, 256),
        ({"kv_unified": False, "parallel": 1}, 256, 256),
        ({"ctx_per_request": 100}, 100, 416),
        ({"ctx_per_request": 100, "ctx_size": 256}, 100, 256),
    ],
)
def test_context(toy: str, asked: dict[str, int], n_ctx: int, kv_tokens: int) -> None:
    model = loaded(toy, **asked)
    assert (model.ready.n_ctx, model.ready.kv_tokens) == (n_ctx, kv_tokens)
    assert any("the context of the model" in note for note in model.ready.notes) == (
        asked.get("ctx_size", 0) >= 1024
    )
    (refusal,) = model.engine.submit(Submit(id="a", prompt=[3] * n_ctx))
    assert refusal.error is not None
    assert refusal.error.extra == {"n_prompt_tokens": n_ctx, "n_ctx": n_ctx}


def test_progress_goes_from_0_to_1(toy: str) -> None:
    seen: list[tuple[float, str]] = []
    load(ModelConfig(path=toy), REFERENCE, lambda share, message: seen.append((share, message)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert seen[0][1].startswith("memory: weights")  # told before anything is loaded


def test_steps_are_no_larger_than_asked_for(toy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded(toy, batch_size=64, ubatch_size=16, parallel=2).engine
    assert engine.scheduler.limits.step_tokens == 16
    assert engine.scheduler.limits.chunk_tokens == 16
    assert engine.scheduler.limits.sequences == 2


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_module.budget, "memory_limit", lambda: MemoryLimit(10 * MIB, "test"))
    monkeypatch.delattr(load_module, "_open_executor")
    with pytest.raises(OptionError, match="does not fit in memory"):
        loaded(toy)


@pytest.mark.native
@pytest.mark.parametrize("isa", ["neoni8mm", "sse9"])
def test_a_variant_that_this_cpu_has_not_is_refused_by_name(toy: str, isa: str) -> None:
    native = pytest.importorskip("corral._native", reason="the extension is not built")
    if isa in native.isas():
        isa = "avx2"
    with pytest.raises(OptionError, match=rf"--isa is {isa}, expected .*: auto, .*scalar"):
        loaded(toy, executor="native", isa=isa)


def test_a_vocabulary_that_does_not_match_the_weights(tmp_path: Path) -> None:
    path = write_toy_model(tmp_path / "toy.gguf", logits=300)
    with pytest.raises(ModelFileError, match=r"number of tokenizer.ggml.tokens is 259, expected 300"):
        loaded(str(path))


@pytest.mark.parametrize("load_mode", ["mlock", "mmap+mlock"])
def test_mlock_that_is_not_allowed_is_told_and_goes_on(
    toy: str, monkeypatch: pytest.MonkeyPatch, load_mode: str
) -> None:
    monkeypatch.setattr(load_module, "lock_memory", lambda: "--mlock has no effect")
    ready = load(ModelConfig(path=toy, load_mode=load_mode), REFERENCE, lambda *_: None).ready  # type: ignore[arg-type]
    assert "--mlock has no effect" in ready.notes


@pytest.mark.parametrize(("overrides", "n_ctx"), [({}, TRAIN_CTX), ({"llama.context_length": 512}, 512)])
def test_overridden_metadata_counts(toy: str, overrides: dict[str, MetadataValue], n_ctx: int) -> None:
    model = load(ModelConfig(path=toy, kv_overrides=overrides), REFERENCE, lambda *_: None)
    assert model.ready.n_ctx == n_ctx


@pytest.mark.parametrize(
    ("load_mode", "held"), [("none", True), ("mlock", True), ("auto", False), ("mmap", False)]
)
def test_load_mode_decides_where_the_table_stays(
    toy: str, monkeypatch: pytest.MonkeyPatch, load_mode: str, held: bool
) -> None:
    names: list[str] = []
    monkeypatch.setattr(GGUFFile, "hold", lambda file, name: names.append(name))
    monkeypatch.setattr(load_module, "lock_memory", lambda: "")
    load(ModelConfig(path=toy, load_mode=load_mode), REFERENCE, lambda *_: None)  # type: ignore[arg-type]
    assert names == ["token_embd.weight"] * held


@pytest.mark.parametrize(
    ("type", "in_order", "held"), [("nfs4", True, True), ("overlay", True, False), ("ext4", False, False)]
)
def test_a_file_system_with_slow_page_faults_is_read_in_order(
    toy: str, monkeypatch: pytest.MonkeyPatch, type: str, in_order: bool, held: bool
) -> None:
    names: list[tuple[str, bool]] = []
    said: list[str] = []
    monkeypatch.setattr(GGUFFile, "hold", lambda file, name: names.append((name, file.in_order)))
    monkeypatch.setattr(load_module.filesystem, "of", lambda path: FileSystem(type, "/models"))
    load(ModelConfig(path=toy), REFERENCE, lambda _, message: said.append(message))
    assert names == [("token_embd.weight", True)] * held
    assert (f"{toy} is on {type} (mounted at /models): read in order" in said) == in_order


def test_a_table_that_is_held_beside_the_output_is_planned_for(toy: str) -> None:
    """The toy's output is its embedding: packed for one use, copied for the other."""
    with GGUFFile.open(toy) as file:
        program = trace_program(file)
        mapped, held = (
            load_module._plan_memory(program, file, REFERENCE, TRAIN_CTX, 1, names, CacheTypes()).weights
            for names in (set[str](), {"token_embd.weight"})
        )
    assert held - mapped == 259 * 64 * 4


def test_activations_that_are_alive_together(toy: str) -> None:
    """By hand: the gated unit has its two inputs and its output, beside the residual and the angles."""
    with GGUFFile.open(toy) as file:
        program = trace_program(file)
    width, feed_forward, angles = 64, 160, 16
    assert activation_bytes(program, 10, 1) == 4 * 10 * (3 * feed_forward + width + angles)
    logits = activation_bytes(program, 1, 1000)
    assert logits == 4 * 1000 * (width + 259)


async def outputs_of(client: EngineClient) -> list[Output]:
    return [output async for output in client.generate(SUBMIT)]


@pytest.mark.slow
async def test_in_the_real_process(toy: str) -> None:
    expected = run(loaded(toy).engine, [SUBMIT])["a"]
    client = EngineClient(ModelConfig(path=toy), REFERENCE)
    await client.start()
    outputs = await outputs_of(client)
    await client.close()
    assert tokens_of(outputs) == tokens_of(expected)


@pytest.mark.slow
async def test_a_file_that_is_no_model_ends_the_real_process_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>404</html>")
    client = EngineClient(ModelConfig(path=str(path)), REFERENCE)
    await client.start()
    with pytest.raises(Unavailable, match=r"page\.gguf: "):
        await client.wait_ready()
    assert "\n" not in client.status.message
    await client.close()
