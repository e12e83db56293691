"""What a component is told: three frozen dataclasses, each given to the one that needs it.

`build` makes them of the values that `corral.command_line.parse` gathered. A default is written here (the
table of flags shows it; a test holds the two together). All of it survives msgpack: `ModelConfig` and
`EngineConfig` travel to the engine process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from corral.errors import OptionError
from corral.gguf.types import MetadataValue
from corral.sampling.params import SamplingParams

CacheTypeName = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


@dataclass(frozen=True, slots=True)
class Parsed:
    """Values by `section.name`, as the table of flags names them; None is the default. A warning is one line.

    `action` is a value too: what to print instead of serving (`help`, `version`, ...).
    """

    values: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadConfig:
    """Which model to fetch, either of a repository of the hub or from an address, and where to."""

    hf_repo: str | None = None
    """`user/model` or `user/model:quant`."""
    hf_file: str | None = None
    """The file of the repository. None: the quantization decides."""
    hf_token: str | None = field(default=None, repr=False)
    model_url: str | None = None
    sha256: str | None = None
    """What the file at the address must be, in hexadecimal."""
    offline: bool = False
    """Only take what is here already."""
    output: str | None = None
    """A folder, or for an address a .gguf file, instead of the caches."""
    hub_cache: str = ""
    """The hub's cache folder."""
    url_cache: str = ""
    """The same for files from addresses."""
    endpoint: str = "https://huggingface.co"
    """Of the hub, without a slash at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model, and how its file is read."""

    path: str
    """A GGUF file; of a split model, its first part. Empty until a download has said it."""
    download: DownloadConfig | None = None
    """What to fetch before the file can be read."""
    aliases: tuple[str, ...] = ()
    """Names in the API; the first in alphabetical order is the model's id."""
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap+mlock"] = "auto"
    """Weights are packed into memory in any case. What is left is the table of embeddings, of which a step
    reads a few rows: it stays in the mapped file (mmap, mmap+mlock) or is copied (none, mlock); auto copies
    it only if the file is on a network."""
    pack_cache: str | None = None
    """A folder where packed weights are kept for the next start. None: they are packed at every start."""
    kv_overrides: dict[str, MetadataValue] = field(default_factory=dict)
    """Metadata values that replace the file's, by whole key."""
    rope: dict[str, float | str] = field(default_factory=dict)
    """The same for the rotary embedding, by the part of the key after `<arch>.rope.`."""

    def metadata_overrides(self, arch: str) -> dict[str, MetadataValue]:
        """Every metadata value to replace, by whole key, for a model of this architecture.

        `--override-kv` is more precise than a rope flag and wins over it.
        """
        return {**{f"{arch}.rope.{name}": value for name, value in self.rope.items()}, **self.kv_overrides}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How much the engine may use, and of what."""

    ctx_size: int | None = None
    """Tokens of KV cache, one pool for all sequences. None: the model's own, or what fits in memory."""
    kv_unified: bool = True
    """One pool of KV cache, of which a request may use up to the whole context. If not, each of the
    `parallel` requests may use an equal part."""
    ctx_per_request: int | None = None
    """Most tokens of one request; without `ctx_size` the pool holds as many for each of `parallel`."""
    slot_save_path: str | None = None
    """Folder of the files that slots are saved to. None: they can't be."""
    context_shift: bool = False
    """Drop tokens from the middle of a sequence when its context is full, instead of ending it."""
    parallel: int = 4
    """Most sequences that generate at the same time."""
    batch_size: int = 2048
    """Most tokens of one step."""
    ubatch_size: int = 512
    """Most tokens of a step that are in flight at once: bounds the buffers of activations."""
    cache_type_k: CacheTypeName = "f16"
    """How the KV cache keeps keys; of those there are, `corral.engine.load` takes the nearest."""
    cache_type_v: CacheTypeName = "f16"
    """The same for values."""
    speculation: tuple[Literal["none", "ngram-simple"], ...] = ("none",)
    """How tokens are guessed."""
    ngram_size: int = 12
    """ngram-simple guesses when so many tokens have come before,"""
    ngram_min_hits: int = 1
    """so many times;"""
    ngram_draft: int = 48
    """and at most so many tokens at once."""
    step_ms: int = 150
    """Milliseconds of a step while texts are generated: for so long a prompt may hold them up."""
    max_queue: int = 256
    """Requests that may wait for their turn; more are turned away."""
    max_queue_tokens: int | None = None
    """Prompt tokens of those. None: 16 times what the KV cache holds."""
    queue_timeout: int = 600
    """Seconds that a request may wait for its turn; 0: without end."""
    embeddings: bool = False
    """Make embeddings instead of text. An encoder does so in any case."""
    reranking: bool = False
    """Score texts by how well they answer a query: embeddings with the pooling "rank"."""
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = None
    """How the hidden states of a text become its embedding. None: as the model's file says."""
    threads: int | None = None
    """Threads that compute. None: `corral.system.cpu` decides."""
    force_threads: bool = False
    """Do not clamp `threads` to what the container allows."""
    isa: Literal[
        "auto", "scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx", "neon", "neondot", "neoni8mm"
    ] = "auto"
    executor: Literal["native", "reference"] = "native"
    warmup: bool = True
    """Run the model once before the first request."""
    fit: bool = True
    """Shrink a context that was not set to what fits in memory."""
    fit_margin_mib: int | None = None
    """Memory to leave free, MiB. None: `corral.system.budget` decides."""
    fit_min_ctx: int = 512
    """Least context that fitting may choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where the server listens, whom it serves, and what a request gets when it does not say."""

    hosts: tuple[str, ...] = ("127.0.0.1",)
    """Addresses or names; one that ends in `.sock` is the path of a unix socket."""
    port: int = 8080
    """0: any free port."""
    api_prefix: str = ""
    """Before every route: empty, or begins with '/' and does not end with it."""
    api_keys: tuple[str, ...] = ()
    """Empty: no key is asked for."""
    reuse_port: bool = False
    """Let other processes listen on the same port; the kernel shares the connections out."""
    cors_origins: tuple[str, ...] = ("*",)
    """Whose pages may call: origins, `*` for any, `localhost` for any of this machine."""
    cors_methods: str = "GET, POST, DELETE, OPTIONS"
    cors_headers: str = "*"
    cors_credentials: bool = True
    timeout: int = 3600
    """Seconds for the body of a request to arrive, and for a client to take the next piece of a stream."""
    sse_ping_interval: int = 30
    """Seconds of silence after which a stream gets a comment; 0 or less: never."""
    drain_timeout: int = 7
    """Seconds that running requests get to finish once the server was asked to stop."""
    ssl_key_file: str | None = None
    """PEM, with `ssl_cert_file`; both or none."""
    ssl_cert_file: str | None = None
    ui: bool = True
    """Serve the chat page, unless `static_path` names other files."""
    static_path: str | None = None
    """A folder whose files are served where there is no route."""
    metrics: bool = False
    """Serve /metrics."""
    props: bool = False
    """Answer POST /props."""
    slots: bool = True
    """Serve /slots."""
    spm_infill: bool = False
    """The suffix before the prefix in prompts of /infill."""
    cache_prompt: bool = True
    """Reuse what was computed for the same beginning of a prompt."""
    n_keep: int = 0
    """Tokens kept at a context shift; -1: the whole prompt."""
    embd_normalize: int = 2
    """Of embeddings: -1 leaves them, 0 makes the largest number 32760, p makes the p-norm 1."""
    n_predict: int | None = None
    """Most tokens a request may generate. None: no limit but the context."""
    chat_template: str | None = None
    """Jinja text or the name of a common template, instead of the model's own."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    jinja: bool = True
    """Without, requests may not have tools."""
    reasoning_format: Literal["none", "deepseek", "deepseek-legacy", "auto"] = "auto"
    """Where reasoning goes: into the content, into `reasoning_content`, or into both."""
    reasoning: Literal["on", "off", "auto"] = "auto"
    """Whether the model is told to reason; auto: as its template has it."""
    reasoning_effort: str = "default"
    """A variable of the template; "default": not set."""
    reasoning_budget: int = -1
    """Most tokens of reasoning; -1: any."""
    reasoning_budget_message: str | None = None
    """Said when the budget is used up."""
    reasoning_preserve: bool = True
    """The template gets the reasoning of earlier replies."""
    skip_chat_parsing: bool = False
    """Replies are content as they are, reasoning and calls included."""
    prefill_assistant: bool = True
    """A conversation that ends with the assistant's words is gone on with in the middle of them."""
    sampling: SamplingParams = SamplingParams()  # noqa: RUF009  (frozen)
    constraint: tuple[Literal["gbnf", "json_schema"], str] | None = None
    """What every text has to be, where a request does not say: a kind of grammar, and the grammar."""
    verbosity: int = 3
    """-1 nothing, 0 results only, 1 errors, 2 warnings, 3 information, 4 trace, 5 debug."""
    log_file: str | None = None
    log_jsonl: bool = False
    log_stream: Literal["stderr", "stdout"] = "stderr"
    log_colors: Literal["auto", "on", "off"] = "auto"
    log_prefix: bool = False
    log_timestamps: bool = False


def build(parsed: Parsed) -> tuple[ModelConfig, EngineConfig, ServerConfig]:
    """The configuration that these values ask for.

    Raises:
        OptionError: no model was named.
    """
    model, engine, server, sampling, rope = (
        _section(parsed.values, name) for name in ("model", "engine", "server", "sampling", "rope")
    )
    download = _download(parsed, model.get("path"))
    if download is not None:
        model |= {"download": download, "path": ""}
        model.setdefault("aliases", (download.hf_repo,) if download.hf_repo else ())
    if "path" not in model:
        raise OptionError(
            "error: no model to serve, expected --model FILE, LLAMA_ARG_MODEL or --hf-repo USER/MODEL"
        )
    return (
        ModelConfig(rope=rope, **model),
        EngineConfig(**engine),
        ServerConfig(sampling=SamplingParams(**sampling), **server),
    )


def _download(parsed: Parsed, path: str | None) -> DownloadConfig | None:
    """What to fetch; with an address, `path` says where to. None if nothing is."""
    config = DownloadConfig(**_section(parsed.values, "download"))
    if config.hf_repo and config.model_url:
        raise OptionError("error: --hf-repo and --model-url are two models, expected one of them")
    if config.hf_file and not config.hf_repo:
        raise OptionError("error: --hf-file names a file of a repository, expected --hf-repo too")
    if config.sha256 and not config.model_url:
        raise OptionError("error: --sha256 goes with --model-url; files of the hub are checked with its sums")
    if config.hf_repo and path:
        parsed.warnings.append(f"--hf-repo {config.hf_repo} replaces --model {path}")
    if config.model_url and path:
        if not path.endswith(".gguf"):
            raise OptionError(f"error: --model {path}: expected the .gguf file that --model-url is to become")
        return replace(config, output=path)
    return config if config.hf_repo or config.model_url else None


def _section(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    prefix = section + "."
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix) and value is not None
    }
