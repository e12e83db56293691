"""From argv, environment and files to values: one fact a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.command_line import parse
from corral.errors import OptionError
from corral.flag import FALSE, TRUE

NOWHERE = Path("/nonexistent/config.ini")


def values(line: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    return parse(line.split(), environ or {}, NOWHERE).values


def warnings(line: str, environ: dict[str, str] | None = None) -> list[str]:
    return parse(line.split(), environ or {}, NOWHERE).warnings


def failure(line: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(OptionError) as caught:
        parse(line.split(), environ or {}, NOWHERE)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        # underscores
        ("--ctx_size 4096", "engine.ctx_size", 4096),
        ("--no_warmup", "engine.warmup", False),
        # --flag=value
        ("--ctx-size=4096", "engine.ctx_size", 4096),
        ("--ctx_size=4096", "engine.ctx_size", 4096),
        ("-c=4096", "engine.ctx_size", 4096),
        ("--warmup=off", "engine.warmup", False),
        ("--no-warmup=false", "engine.warmup", True),
        ("--model=a=b.gguf", "model.path", "a=b.gguf"),
        # aliases
        ("-c 512", "engine.ctx_size", 512),
        ("-ctx 512", "engine.ctx_size", 512),
        ("--np 2", "engine.parallel", 2),
        ("-m x", "model.path", "x"),
        # negative numbers as values
        ("--seed -1", "sampling.seed", None),
        ("-n -1", "server.n_predict", None),
        ("-n -2", "server.n_predict", None),
        ("--presence-penalty -0.5", "sampling.presence_penalty", -0.5),
        ("--threads -1", "engine.threads", None),
        ("--repeat-last-n -1", "sampling.repeat_last_n", -1),
        ("--temp -1", "sampling.temperature", 0.0),
        # what stands for 'not given'
        ("-c 0", "engine.ctx_size", None),
        ("-np -1", "engine.parallel", None),
        ("--rope-freq-base 0", "rope.freq_base", None),
        ("--yarn-ext-factor -1", "rope.scaling.yarn_ext_factor", None),
        # rounding
        ("-c 1000", "engine.ctx_size", 1024),
        ("-c 1024", "engine.ctx_size", 1024),
        ("-c 1", "engine.ctx_size", 256),
        # lists
        ("--samplers top-k;temperature;top_k", "sampling.samplers", ("top_k", "temperature", "top_k")),
        ("--sampling-seq tka", "sampling.samplers", ("temperature", "top_k", "adaptive_p")),
        ("--samplers=", "sampling.samplers", ()),
        ("--dry-sequence-breaker a --dry-sequence-breaker b", "sampling.dry_sequence_breakers", ("a", "b")),
        ("--dry-sequence-breaker none", "sampling.dry_sequence_breakers", ()),
        ("--api-key a,b", "server.api_keys", ("a", "b")),
        ("--api-key a --api-key b", "server.api_keys", ("a", "b")),
        ("-l 1+2 -l 3-0.5", "sampling.logit_bias", {1: 2.0, 3: -0.5}),
        ("-l 7-inf", "sampling.logit_bias", {7: float("-inf")}),
        ("-a x,y", "model.aliases", ("x", "y")),
        ("--host 0.0.0.0,::1,/run/c.sock", "server.hosts", ("0.0.0.0", "::1", "/run/c.sock")),
        # numbers and shapes
        ("--seed 4294967295", "sampling.seed", 4294967295),
        ("--rope-scale 4", "rope.scaling.factor", 4.0),
        ("--rope-freq-scale 0.25", "rope.scaling.factor", 4.0),
        ("--api-prefix /v/", "server.api_prefix", "/v"),
        ("--chat-template-kwargs {\"a\":1}", "server.chat_template_kwargs", {"a": 1}),
        (
            "--override-kv a.b=int:3,c=float:2,d=bool:true,e=str:x\\,y:z",
            "model.kv_overrides",
            {"a.b": 3, "c": 2.0, "d": True, "e": "x,y:z"},
        ),
        ("-v", "server.verbosity", 5),
        ("-lv 1", "server.verbosity", 1),
        ("--log-disable", "server.verbosity", -1),
        ("--log-format json", "server.log_jsonl", True),
        ("--log-format text", "server.log_jsonl", False),
        ("--log-colors 0", "server.log_colors", "off"),
        ("--fit off", "engine.fit", False),
        ("--isa AVX2", "engine.isa", "avx2"),
    ],
)  # fmt: skip
def test_value(line: str, field: str, value: object) -> None:
    assert values(line)[field] == value
    assert not warnings(line)


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("--mlock", "mmap+mlock"),
        ("--no-mmap", "none"),
        ("--mmap", "mmap"),
        ("--mlock --no-mmap", "mlock"),
        ("--no-mmap --mlock", "mlock"),
        ("--mmap --mlock", "mmap+mlock"),
        ("--load-mode mlock", "mlock"),
        ("-lm mmap+mlock", "mmap+mlock"),
        ("-ndio", "auto"),
        ("--no-direct-io", "auto"),
    ],
)
def test_load_mode(line: str, mode: str) -> None:
    assert values(line) == {"model.load_mode": mode}
    assert not warnings(line)


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({"LLAMA_ARG_MLOCK": "1"}, "mmap+mlock"),
        ({"LLAMA_ARG_MLOCK": "0"}, None),
        ({"LLAMA_ARG_NO_MMAP": "1"}, "none"),
        ({"LLAMA_ARG_NO_MMAP": "whatever"}, "none"),
        ({"LLAMA_ARG_MMAP": "0"}, "none"),
        ({"LLAMA_ARG_MMAP": "1"}, "mmap"),
        ({"LLAMA_ARG_MLOCK": "true", "LLAMA_ARG_NO_MMAP": "true"}, "mlock"),
        ({"LLAMA_ARG_LOAD_MODE": "mlock"}, "mlock"),
    ],
)
def test_load_mode_of_variables(environ: dict[str, str], mode: str | None) -> None:
    assert values("", environ) == {"model.load_mode": mode}


@pytest.mark.parametrize("line", ["-dio", "--direct-io", "--load-mode dio"])
def test_direct_io_is_taken_with_a_warning(line: str) -> None:
    assert values(line) == {"model.load_mode": "none"}
    assert "dio" in warnings(line)[0]


@pytest.mark.parametrize(
    "line",
    [
        "-fa",
        "--flash-attn",
        "-fa --port 1",
        "-fa on",
        "-fa 1",
        "-fa auto",
        "--flash-attn true",
        "-fa -1",
        "-ngl 0",
        "-ngl auto",
        "--device none",
        "--cache-reuse 0",
        "--no-context-shift",
        "--jinja",
        "--no-webui",
        "--no-ui",
        "--cache-type-k f16",
        "-ctv f16",
        "-cram 0",
        "--no-mmproj",
        "--cont-batching",
        "-cb",
        "--kv-unified",
        "--offline",
        "--spec-type none",
        "--no-slots",
        "--no-cache-prompt",
        "--slots-endpoint-disable",
        "--nobrowser",
        "--server",
        "--v2",
        "--no-agent",
        "--keep 0",
    ],
)
def test_what_happens_anyway_is_silent(line: str) -> None:
    assert not warnings(line)


def test_bare_flash_attn_leaves_the_next_flag_alone() -> None:
    assert values("-fa --port 99") == {"server.port": 99}
    assert values("-fa off -c 256") == {"engine.ctx_size": 256}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-ngl 99", "-ngl has no effect: there is no GPU backend"),
        ("-ngl -1", "-ngl has no effect"),
        ("-ngl all", "-ngl has no effect"),
        ("--n-gpu-layers 999", "--n-gpu-layers has no effect"),
        ("-fa off", "-fa has no effect: attention is always the flash kind"),
        ("-dt 0.1", "-dt has no effect: a paged KV cache does not fragment"),
        ("--threads-http 4", "one event loop"),
        (
            "--no-cont-batching",
            "--no-cont-batching has no effect: requests always join and leave at every step",
        ),
        ("--swa-full", "always full-size"),
        ("-gan 2", "self-extend"),
        ("--port 1 --port 2", "--port is given 2 times, the last one counts"),
        ("-t 4 -tb 8", "--threads-batch 8 has no effect"),
        ("--load-mode none --chat-template a --chat-template-file /dev/null", "replaces --chat-template"),
    ],
)
def test_warning(line: str, said: str) -> None:
    (warning,) = warnings(line)
    assert said in warning
    assert "\n" not in warning


def test_the_last_one_counts() -> None:
    assert values("--port 1 --port 2") == {"server.port": 2}
    assert values("--warmup --no-warmup") == {"engine.warmup": False}


def test_equal_batch_threads_are_silent() -> None:
    assert values("-t 4 -tb 4") == {"engine.threads": 4}
    assert not warnings("-t 4 -tb 4")


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--ctxsize 1", "error: invalid argument: --ctxsize\n(the nearest flag is --ctx-size)"),
        ("--prot 8080", "error: invalid argument: --prot\n(the nearest flag is --port)"),
        ("--xyzzyx", "error: invalid argument: --xyzzyx"),
        ("a.gguf", "error: invalid argument: a.gguf\n(it follows no flag; the model is --model FILE)"),
        ("--numa isolate", "error: --numa isolate is not built yet (planned): placement on NUMA nodes"),
        (
            "--samplers top_k;tfs",
            'error while handling argument "--samplers": expected some of penalties;dry;top_n_sigma;',
        ),
        (
            "--sampling-seq kz",
            "error while handling argument \"--sampling-seq\": expected some of edskypmxta, got 'z'",
        ),
        ("--sleep-idle-seconds 9", "error: --sleep-idle-seconds 9 is not built yet (planned)"),
        ("--lora a,b", "error: --lora a,b is not built yet (planned)"),
        ("--check-tensors", "error: --check-tensors is not built yet"),
        ("--draft-max 16", "error: --draft-max 16 is not built yet"),
        ("--draft 16", "error: --draft 16 is not built yet"),
        ("-hfd a/b", "error: -hfd a/b is not built yet"),
        ("--rpc a:1", "error: --rpc is not supported: the protocol is unauthenticated"),
        ("--tools all", "error: --tools is not supported"),
        ("--control-vector-layer-range 1 2", "error: --control-vector-layer-range is not supported"),
        ("-spf f", "error: -spf is not supported: it was removed in 2024: send a system message"),
        ("--spec-default", "error: --spec-default is not supported"),
    ],
)
def test_refusal(line: str, message: str) -> None:
    assert failure(line).startswith(message)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--port abc", "expected an integer, got 'abc'"),
        ("--port 65536", "expected an integer, between 0 and 65535, got 65536"),
        ("--port -1", "between 0 and 65535"),
        ("--port", "expected value for argument"),
        ("--port --host x", "expected value for argument"),
        ("--log-colors maybe", "expected one of on, off, auto, got 'maybe'"),
        ("--fit 4096", "expected on or off (or true, false, 1, 0), got '4096'"),
        ("--port= --host x", "expected an integer, got ''"),
        ("-c -1", "between 0 and"),
        ("-b 0", "1 or more"),
        ("-np 0x4", "expected an integer"),
        ("--temp nan", "expected a finite number"),
        ("--temp inf", "expected a finite number"),
        ("--top-k " + "9" * 400, "of 64 bits"),
        ("-m \udc80", "expected UTF-8"),
        ("--api-key ,", "expected one or more, separated by commas"),
        ("--host= --port 1", "expected one or more, separated by commas"),
        ("-l 99999999999+1", "expected a token id of 31 bits"),
        ('--chat-template-kwargs {"a":NaN}', "NaN is not JSON"),
        ("--chat-template-kwargs " + "[" * 100_000, "expected a JSON object"),
        ("--top-p 1.5", "between 0 and 1"),
        ("--repeat-last-n -2", "-1 or more"),
        ("--repeat-penalty 0", "or more"),
        ("-l 5", "expected TOKEN_ID then + or -"),
        ("-l +5", "expected TOKEN_ID then + or -"),
        ("-l 5+nan", "below infinity"),
        ("--load-mode fast", "expected one of auto, none, mmap, mlock, mmap+mlock, dio"),
        ("--isa sse9", "expected one of auto, scalar"),
        ("--override-kv a=4", "expected KEY=TYPE:VALUE"),
        ("--override-kv a=list:4", "expected KEY=TYPE:VALUE"),
        ("--override-kv a=bool:yes", "expected true or false"),
        ("--chat-template-kwargs [1]", "expected a JSON object"),
        ("--chat-template-kwargs {", "expected a JSON object"),
        ("--chat-template-file /nonexistent/x", "can't read '/nonexistent/x'"),
        ("--api-key-file /dev/null", "holds no key"),
        ("--api-prefix v1", "begins with '/'"),
        ("--spec-type magic", "expected a comma list of none, ngram-simple"),
        ("--spec-type ngram-mod", "ngram-mod is not built yet, expected some of none, ngram-simple"),
        ("--warmup=perhaps", "expected on or off"),
        ("--control-vector-layer-range 1", "expected value for argument"),
        ("-ngl many", "expected an integer or one of auto, all"),
    ],
)
def test_bad_value(line: str, why: str) -> None:
    message = failure(line)
    name = line.split()[0].split("=")[0]
    assert message.startswith(f'error while handling argument "{name}": ')
    assert why in message.splitlines()[0]
    usage = message.split("\n\nusage:\n")[1]
    assert name in usage or "--" in usage


def test_the_usage_of_a_bad_value_is_that_of_its_flag() -> None:
    assert failure("--port x").split("usage:\n")[1].split()[:2] == ["--port", "PORT"]


def test_an_action_ends_the_reading() -> None:
    assert values("--port 1 --help --bogus", {"LLAMA_ARG_PORT": "x"}) == {"action": "help"}
    assert values("--version") == {"action": "version"}
    assert failure("--bogus --help").startswith("error: invalid argument: --bogus")


# -- environment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LLAMA_ARG_PORT": "99"}, {"server.port": 99}),
        ({"LLAMA_ARG_PORT": ""}, {}),
        ({"LLAMA_ARG_PORT": " "}, {}),
        ({"LLAMA_API_KEY": "a,b"}, {"server.api_keys": ("a", "b")}),
        ({"LLAMA_ARG_MODEL": "m", "LLAMA_ARG_N_PARALLEL": "2"}, {"model.path": "m", "engine.parallel": 2}),
        ({"LLAMA_ARG_NO_LOG_PREFIX": "0"}, {"server.log_prefix": False}),
        ({"LLAMA_ARG_LOG_PREFIX": "off"}, {"server.log_prefix": False}),
        ({"LLAMA_ARG_CACHE_PROMPT": "off"}, {"server.cache_prompt": False}),
        ({"LLAMA_ARG_CORS_ORIGINS": "localhost"}, {"server.cors_origins": ("localhost",)}),
        ({"LLAMA_ARG_NO_PREFILL_ASSISTANT": "1"}, {"server.prefill_assistant": False}),
        ({"LLAMA_ARG_FLASH_ATTN": "1"}, {}),
        ({"LLAMA_ARG_JINJA": "true", "LLAMA_ARG_CONT_BATCHING": "1"}, {"server.jinja": True}),
        ({"LLAMA_ARG_NO_MMPROJ": "1"}, {}),
        ({"HF_TOKEN": "secret", "LLAMA_CACHE": "/c"}, {"download.hf_token": "secret"}),
        ({"NO_COLOR": "1"}, {"server.log_colors": "off"}),
        ({"CORRAL_ISA": "scalar", "CORRAL_EXECUTOR": "reference"},
         {"engine.isa": "scalar", "engine.executor": "reference"}),
    ],
)  # fmt: skip
def test_environment(environ: dict[str, str], expected: dict[str, Any]) -> None:
    assert values("", environ) == expected
    assert not warnings("", environ)


@pytest.mark.parametrize("word", [*TRUE, *FALSE, "On", "FALSE"])
def test_boolean_variables(word: str) -> None:
    assert values("", {"LLAMA_ARG_LOG_PREFIX": word}) == {"server.log_prefix": word.lower() in TRUE}


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LLAMA_ARG_PORT": "x"}, 'error while handling environment variable "LLAMA_ARG_PORT": expected an '),
        ({"LLAMA_ARG_LOG_PREFIX": "?"}, 'error while handling environment variable "LLAMA_ARG_LOG_PREFIX": '),
        ({"LLAMA_ARG_MMPROJ_URL": "x"}, "error: LLAMA_ARG_MMPROJ_URL (--mmproj-url) x is not built yet"),
        ({"LLAMA_ARG_DRAFT_MAX": "8"}, "error: LLAMA_ARG_DRAFT_MAX (--spec-draft-n-max) 8 is not built yet"),
        ({"LLAMA_ARG_RPC": "a"}, "error: LLAMA_ARG_RPC (--rpc) is not supported"),
    ],
)  # fmt: skip
def test_bad_environment(environ: dict[str, str], message: str) -> None:
    assert failure("", environ).startswith(message)


def test_a_flag_wins_over_its_variable_with_a_warning() -> None:
    environ = {"LLAMA_ARG_HOST": "0.0.0.0"}
    assert values("--host ::1", environ) == {"server.hosts": ("::1",)}
    assert warnings("--host ::1", environ) == ["--host overrides the environment variable LLAMA_ARG_HOST"]


def test_the_image_for_gpus_warns_once_whatever_is_asked_for() -> None:
    environ = {"LLAMA_ARG_N_GPU_LAYERS": "all"}
    reason = "has no effect: there is no GPU backend: everything is on the CPU"
    assert warnings("", environ) == [f"LLAMA_ARG_N_GPU_LAYERS (--n-gpu-layers) {reason}"]
    assert warnings("-ngl 99", environ) == [f"-ngl {reason}"]
    assert warnings("-ngl 0", environ) == []


def test_a_flag_that_resets_wins_too() -> None:
    assert values("-np -1", {"LLAMA_ARG_N_PARALLEL": "8"}) == {"engine.parallel": None}


def test_a_refused_variable_may_be_overridden() -> None:
    assert values("", {"LLAMA_ARG_CACHE_REUSE": "0"}) == {}
    parse(["--cache-reuse", "0"], {"LLAMA_ARG_CACHE_REUSE": "256"}, NOWHERE)


def test_an_unknown_variable_of_the_family_is_named() -> None:
    (warning,) = warnings("", {"LLAMA_ARG_CTXSIZE": "1", "OTHER": "1"})
    assert (
        warning
        == "LLAMA_ARG_CTXSIZE is not a variable of this server: ignored (the nearest is LLAMA_ARG_CTX_SIZE)"
    )


def test_the_made_up_ngl_variable_is_known() -> None:
    assert warnings("", {"LLAMA_ARG_NGL": "99"}) == ["LLAMA_ARG_NGL (--n-gpu-layers) has no effect: "
        "there is no GPU backend: everything is on the CPU"]  # fmt: skip


def test_keys_of_file_and_variable_add_up(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\n\n two \n")
    found = values(f"--api-key-file {tmp_path}/keys", {"LLAMA_API_KEY": "three"})
    assert found == {"server.api_keys": ("three", "one", "two")}


def test_a_template_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    assert values(f"--chat-template-file {tmp_path}/t.jinja") == {"server.chat_template": "{{ messages }}"}


# -- configuration files -------------------------------------------------------------------------------------


@pytest.fixture
def system_file(tmp_path: Path) -> Path:
    return tmp_path / "config.ini"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("port = 1", {"server.port": 1}),
        ("[*]\nport = 1", {"server.port": 1}),
        ("[default]\nport = 1", {"server.port": 1}),
        ("port = 1\n[default]\nport = 2", {"server.port": 2}),
        ("port = 1 ; why\n# note\n", {"server.port": 1}),
        ("c = 512", {"engine.ctx_size": 512}),
        ("--ctx_size = 512", {"engine.ctx_size": 512}),
        ("ctx_size = 512", {"engine.ctx_size": 512}),
        ("LLAMA_ARG_CTX_SIZE = 512", {"engine.ctx_size": 512}),
        ("mmap = 0", {"model.load_mode": "none"}),
        ("no-mmap = true", {"model.load_mode": "none"}),
        ("chat-template-kwargs = {\"a\": 1}", {"server.chat_template_kwargs": {"a": 1}}),
        ("something-else = 3\nhelp = 1", {}),
        ("[some/model]\nport = 7", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_file(content: str, expected: dict[str, Any], system_file: Path) -> None:
    system_file.write_text(content)
    parsed = parse([], {}, system_file)
    assert parsed.values == expected
    assert not parsed.warnings


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "HOME"])
def test_precedence(variable: str, system_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    user = folder / ("llama.cpp" if variable == "XDG_CONFIG_HOME" else ".config/llama.cpp") / "config.ini"
    user.parent.mkdir(parents=True)
    system_file.write_text("port = 1\ntop-k = 1\nc = 256\nbatch-size = 1")
    user.write_text("port = 2\ntop-k = 2\nc = 512")
    environ = {variable: str(folder), "LLAMA_ARG_PORT": "3", "LLAMA_ARG_TOP_K": "3"}
    parsed = parse(["--port", "4"], environ, system_file)
    assert parsed.values == {
        "server.port": 4,
        "sampling.top_k": 3,
        "engine.ctx_size": 512,
        "engine.batch_size": 1,
    }
    assert parsed.warnings == ["--port overrides the environment variable LLAMA_ARG_PORT"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("port = x", 'error while handling "port" in '),
        ("numa = isolate", "error: numa in "),
        ("no equals sign", "error: "),
    ],
)
def test_bad_file(content: str, message: str, system_file: Path) -> None:
    system_file.write_text(content)
    with pytest.raises(OptionError) as caught:
        parse([], {}, system_file)
    assert str(caught.value).startswith(message)
    assert str(system_file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "hub", "url"),
    [
        ({}, "/tmp/.cache/huggingface/hub", "/tmp/.cache/llama.cpp"),
        ({"HOME": "/h"}, "/h/.cache/huggingface/hub", "/h/.cache/llama.cpp"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub", "/x/llama.cpp"),
        ({"HOME": "/h", "HF_HOME": "/f"}, "/f/hub", "/h/.cache/llama.cpp"),
        ({"HF_HOME": "/f", "HF_HUB_CACHE": "/c"}, "/c", "/tmp/.cache/llama.cpp"),
        ({"HUGGINGFACE_HUB_CACHE": "/o", "HF_HUB_CACHE": "", "HF_HOME": "/f"}, "/o", "/tmp/.cache/llama.cpp"),
        ({"HF_HUB_CACHE": "/c", "LLAMA_CACHE": "/l"}, "/l", "/l"),
    ],
)
def test_where_downloads_go(environ: dict[str, str], hub: str, url: str) -> None:
    found = values("-hf u/m", environ)
    assert (found["download.hub_cache"], found["download.url_cache"]) == (hub, url)


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, "https://huggingface.co"),
        ({"HF_ENDPOINT": "http://a/"}, "http://a"),
        ({"HF_ENDPOINT": "http://a", "MODEL_ENDPOINT": "http://b/"}, "http://b"),
    ],
)
def test_where_the_hub_is(environ: dict[str, str], endpoint: str) -> None:
    assert values("-hf u/m", environ)["download.endpoint"] == endpoint
