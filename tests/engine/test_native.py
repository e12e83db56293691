"""The native executor under the engine: a request alone decides its logits, to the last bit."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fake_executor import run
from toy_model import TRAIN_CTX, write_toy_model

from corral.config import EngineConfig, ModelConfig
from corral.engine.engine import Engine
from corral.engine.load import load
from corral.engine.messages import Output, SlotAction, SlotResult, Submit, TokenInfo
from corral.gguf.types import GGMLType
from corral.sampling.params import SamplingParams

pytest.importorskip("corral._native", reason="the extension is not built")
pytestmark = pytest.mark.native


def request(id: str, num_prompt: int, max_tokens: int, seed: int, n_probs: int = 0) -> Submit:
    tokens = [3 + (seed * 31 + i * i) % 256 for i in range(num_prompt)]
    params = SamplingParams(seed=seed, ignore_eos=True, n_probs=n_probs)
    return Submit(id=id, prompt=tokens, max_tokens=max_tokens, sampling=params)


ALL = 300  # more than the vocabulary
REQUESTS = [
    request("short", 1, 40, 1, ALL),
    request("block", 32, 20, 2, ALL),
    request("long", 150, 60, 3, ALL),
]
CROWD = [request(f"crowd {i}", 9 * i + 1, 80, 10 + i) for i in range(7)]


def logits_of(outputs: list[Output]) -> list[TokenInfo]:
    """Every generated token, with the log probabilities of the whole vocabulary."""
    return [info for output in outputs for info in output.infos]


def engine_of(path: str, **changes: object) -> Engine:
    config = EngineConfig(**{"parallel": 8, "force_threads": True, "threads": 2, **changes})  # type: ignore[arg-type]
    return load(ModelConfig(path=path), config, lambda *_: None).engine


@pytest.fixture(
    scope="module", params=[GGMLType.F32, GGMLType.Q8_0, GGMLType.Q4_0], ids=lambda type: type.name
)
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_toy_model(tmp_path_factory.mktemp("toy") / "toy.gguf", type=request.param))


@pytest.fixture(scope="module")
def alone(toy: str) -> dict[str, list[TokenInfo]]:
    """One request, one token a step, one thread."""
    result = {}
    for submit in REQUESTS:
        result |= run(engine_of(toy, parallel=1, threads=1, ubatch_size=1), [submit])
    found = {id: logits_of(outputs) for id, outputs in result.items()}
    assert [len(infos) for infos in found.values()] == [40, 20, 60]
    assert all(len(info.top) == 259 for infos in found.values() for info in infos)
    return found


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("chunk", [8, 15, 512])
def test_in_a_crowd(toy: str, alone: dict[str, list[TokenInfo]], threads: int, chunk: int) -> None:
    engine = engine_of(toy, threads=threads, ubatch_size=chunk, ctx_size=8 * TRAIN_CTX)
    outputs = run(engine, CROWD[:3] + REQUESTS + CROWD[3:])
    assert {id: logits_of(outputs[id]) for id in alone} == alone


def test_as_a_prompt(toy: str, alone: dict[str, list[TokenInfo]]) -> None:
    """What a text's tokens were when they were generated, they are when they are given."""
    asked = [
        msgspec.structs.replace(
            submit, prompt=[*submit.prompt, *(info.id for info in alone[submit.id])], max_tokens=0,
            prompt_probs=True,
        )
        for submit in REQUESTS
    ]  # fmt: skip
    outputs = run(engine_of(toy, ctx_size=8 * TRAIN_CTX), CROWD[:3] + asked + CROWD[3:])
    for submit in REQUESTS:
        infos = [info for output in outputs[submit.id] for info in output.prompt_infos]
        assert infos[len(submit.prompt) - 1 :] == alone[submit.id]


def test_preempted(toy: str, alone: dict[str, list[TokenInfo]]) -> None:
    engine = engine_of(toy, ctx_size=TRAIN_CTX)
    outputs = run(engine, CROWD[:3] + REQUESTS + CROWD[3:])
    assert engine.scheduler.preemptions > 0
    assert {id: logits_of(outputs[id]) for id in alone} == alone


def test_with_a_warm_cache(toy: str, alone: dict[str, list[TokenInfo]]) -> None:
    engine = engine_of(toy, ctx_size=4 * TRAIN_CTX)
    for _ in range(2):
        outputs = run(engine, REQUESTS)
        assert {id: logits_of(outputs[id]) for id in alone} == alone
    assert engine.stats().cached_tokens == 128


def test_with_guessed_tokens(toy: str, alone: dict[str, list[TokenInfo]]) -> None:
    engine = engine_of(toy, ctx_size=8 * TRAIN_CTX, speculation=("ngram-simple",), ngram_size=1)
    outputs = run(engine, CROWD[:3] + REQUESTS)
    assert {id: logits_of(outputs[id]) for id in alone} == alone
    assert engine.stats().draft_accepted > 0


def test_restored_from_a_file(toy: str, alone: dict[str, list[TokenInfo]], tmp_path: Path) -> None:
    saver, restorer = (engine_of(toy, ctx_size=4 * TRAIN_CTX, slot_save_path=str(tmp_path)) for _ in range(2))
    run(saver, [REQUESTS[2]])
    saved = finish(saver, SlotAction(id="x", action="save", id_slot=0, filename="f"))
    restored = finish(restorer, SlotAction(id="x", action="restore", id_slot=0, filename="f"))
    assert saved.n_tokens == restored.n_tokens == 192
    outputs = run(restorer, REQUESTS)
    assert {id: logits_of(outputs[id]) for id in alone} == alone
    assert restorer.stats().cached_tokens == 128

    other = engine_of(toy, ctx_size=TRAIN_CTX, slot_save_path=str(tmp_path), cache_type_k="q8_0")
    refusal = finish(other, SlotAction(id="x", action="restore", id_slot=0, filename="f")).error
    assert refusal is not None
    assert "another model" in refusal.message


def finish(engine: Engine, action: SlotAction) -> SlotResult:
    results = engine.act(action)
    while not results:
        results = engine.work()
    return results[0]
