"""The configuration that a command line comes to."""

from __future__ import annotations

import ast
import dataclasses
import shlex
from pathlib import Path
from typing import Literal

import msgspec
import pytest

import corral
from corral.command_line import parse
from corral.config import DownloadConfig, EngineConfig, ModelConfig, Parsed, ServerConfig, build
from corral.errors import OptionError
from corral.sampling.params import SamplingParams

PACKAGE = Path(corral.__file__).parent
NOWHERE = Path("/nonexistent/config.ini")
MODEL = "/models/mistral-7b-instruct-v0.3.Q4_K_M.gguf"


def configure(
    line: str, environ: dict[str, str] | None = None
) -> tuple[ModelConfig, EngineConfig, ServerConfig]:
    return build(parse(shlex.split(line), environ or {}, NOWHERE))


def test_defaults() -> None:
    assert configure("-m x") == (ModelConfig(path="x"), EngineConfig(), ServerConfig())
    assert EngineConfig().parallel == 4
    assert ServerConfig().hosts == ("127.0.0.1",)
    assert ServerConfig().port == 8080


def test_explicit_defaults_are_the_defaults() -> None:
    line = (
        "-m x --temp 0.8 --top-k 40 --top-p 0.95 --min-p 0.05 --seed -1 --repeat-penalty 1 "
        "--repeat-last-n 64 --presence-penalty 0 --frequency-penalty 0 -n -1 -c 0 -t -1 "
        "-np -1 -b 2048 -ub 512 --port 8080 --host 127.0.0.1 --timeout 3600 "
        "--load-mode auto -lv 3 --fit on --isa auto --executor native"
    )
    assert configure(line) == configure("-m x")


# The guide's commands: what each must come to.
GUIDE = [
    (
        "quick start",
        f"--model {MODEL} --host 0.0.0.0 --port 8080 --ctx-size 4096 --threads 8",
        EngineConfig(ctx_size=4096, threads=8),
        0,
    ),
    (
        "GPU image",
        f"--model {MODEL} --host 0.0.0.0 --port 8080 --ctx-size 4096 --n-gpu-layers 99 --threads 4",
        EngineConfig(ctx_size=4096, threads=4),
        1,
    ),
    (
        "compose file",
        f"--model {MODEL}\n --host 0.0.0.0\n --port 8080\n --ctx-size 4096\n --threads 8\n --parallel 4\n "
        "--cont-batching",
        EngineConfig(ctx_size=4096, threads=8, parallel=4),
        0,
    ),
    ("custom image", f"--model {MODEL} --host 0.0.0.0 --port 8080", EngineConfig(), 0),
    (
        "optimized",
        f"--model {MODEL} --host 0.0.0.0 --port 8080 --ctx-size 4096 --threads 16 --batch-size 1024 "
        "--parallel 8 --cont-batching --mlock",
        EngineConfig(ctx_size=4096, threads=16, batch_size=1024, parallel=8),
        0,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "engine", "count"), [row[1:] for row in GUIDE], ids=[row[0] for row in GUIDE]
)
def test_the_guides_commands(line: str, engine: EngineConfig, count: int) -> None:
    parsed = parse(shlex.split(line), {}, NOWHERE)
    mode: Literal["mmap+mlock", "auto"] = "mmap+mlock" if "--mlock" in line else "auto"
    assert build(parsed) == (
        ModelConfig(path=MODEL, load_mode=mode),
        engine,
        ServerConfig(hosts=("0.0.0.0",), port=8080),
    )
    assert len(parsed.warnings) == count


def test_the_image_sets_the_host_and_the_guide_overrides_it() -> None:
    parsed = parse(shlex.split(GUIDE[0][1]), {"LLAMA_ARG_HOST": "0.0.0.0"}, NOWHERE)
    assert parsed.warnings == []  # both say the same


def test_a_whole_compose_environment() -> None:
    environ = {
        "LLAMA_ARG_MODEL": MODEL,
        "LLAMA_ARG_CTX_SIZE": "8192",
        "LLAMA_ARG_N_PARALLEL": "2",
        "LLAMA_ARG_PORT": "8000",
        "LLAMA_ARG_HOST": "0.0.0.0",
        "LLAMA_ARG_FLASH_ATTN": "on",
        "LLAMA_ARG_JINJA": "1",
        "LLAMA_ARG_N_PREDICT": "256",
        "LLAMA_ARG_BATCH": "512",
        "LLAMA_ARG_UBATCH": "256",
        "LLAMA_ARG_THREADS": "4",
        "LLAMA_ARG_CONT_BATCHING": "true",
        "LLAMA_ARG_ALIAS": "b,a",
        "LLAMA_ARG_NO_MMPROJ": "1",
        "LLAMA_ARG_CACHE_TYPE_K": "",
        "LLAMA_API_KEY": "k",
    }
    assert configure("", environ) == (
        ModelConfig(path=MODEL, aliases=("b", "a")),
        EngineConfig(ctx_size=8192, parallel=2, batch_size=512, ubatch_size=256, threads=4),
        ServerConfig(hosts=("0.0.0.0",), port=8000, api_keys=("k",), n_predict=256),
    )


def test_sampling_defaults() -> None:
    _, _, server = configure("-m x --temp 0.2 --top-k 5 --top-p 0.5 --min-p 0 --seed 7 --ignore-eos -l 3-inf")
    assert server.sampling == SamplingParams(
        temperature=0.2, top_k=5, top_p=0.5, min_p=0.0, seed=7, ignore_eos=True, logit_bias={3: float("-inf")}
    )


def test_metadata_overrides() -> None:
    model, _, _ = configure(
        "-m x --rope-freq-base 5e5 --rope-scaling yarn --rope-scale 4 --yarn-orig-ctx 4096 "
        "--override-kv llama.rope.freq_base=float:1e4,tokenizer.ggml.add_bos_token=bool:false"
    )
    assert model.metadata_overrides("llama") == {
        "llama.rope.freq_base": 1e4,
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 4096,
        "tokenizer.ggml.add_bos_token": False,
    }


def test_no_model_is_an_error() -> None:
    with pytest.raises(OptionError, match="--model FILE"):
        build(Parsed({}))


def test_it_survives_the_way_to_the_engine_process() -> None:
    line = (
        "-m x -a n --mlock --override-kv a=int:1,b=float:2,c=bool:true,d=str:1 --rope-scale 2 "
        "--rope-scaling yarn -c 512 --isa scalar --no-warmup --fit-target 9 -l 5+1 "
        "--chat-template-kwargs '{\"a\": [1]}' --api-key k"
    )
    for config in configure(line):
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=type(config))
        assert again == config
    model = configure(line)[0]
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(model), type=ModelConfig)
    kinds = {key: type(value) for key, value in again.kv_overrides.items()}
    assert kinds == {"a": int, "b": float, "c": bool, "d": str}


@pytest.mark.parametrize("config", [ModelConfig, EngineConfig, ServerConfig])
def test_every_field_is_read_by_somebody(config: type) -> None:
    """A field that nothing reads is a flag that is accepted and ignored."""
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("options.py", "command_line.py")
    ]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {field.name for field in dataclasses.fields(config)} <= read


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EngineConfig().parallel = 2  # type: ignore[misc]


# -- what is to be downloaded --------------------------------------------------------------------------------


def test_a_repository_is_fetched_and_gives_its_name() -> None:
    model = configure("-hf u/m:Q8_0 --hf-token t --offline", {"LLAMA_CACHE": "/c"})[0]
    assert model.path == ""
    assert model.aliases == ("u/m:Q8_0",)
    assert model.download == DownloadConfig(
        hf_repo="u/m:Q8_0", hf_token="t", offline=True, hub_cache="/c", url_cache="/c"
    )
    assert configure("-hf u/m -a mine")[0].aliases == ("mine",)


def test_a_repository_wins_over_a_file() -> None:
    parsed = parse(["-hf", "u/m"], {"LLAMA_ARG_MODEL": "/m.gguf"}, NOWHERE)
    assert build(parsed)[0].path == ""
    assert parsed.warnings == ["--hf-repo u/m replaces --model /m.gguf"]


def test_an_address_may_say_where_to() -> None:
    download = configure("-mu http://h/m.gguf -m /models/x.gguf")[0].download
    assert download is not None
    assert download.output == "/models/x.gguf"


def test_a_token_alone_fetches_nothing() -> None:
    assert configure("-m x", {"HF_TOKEN": "t", "HF_HUB_OFFLINE": "1"})[0] == ModelConfig(path="x")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-hf u/m -mu http://h/m.gguf", "are two models"),
        ("-m x -hff m.gguf", "--hf-file names a file of a repository"),
        (f"-hf u/m --sha256 {'0' * 64}", "--sha256 goes with --model-url"),
        ("-mu http://h/m.gguf -m /models", "expected the .gguf file that --model-url is to become"),
    ],
)
def test_what_does_not_go_together(line: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        configure(line)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(configure("-hf u/m -hft secret")[0])
