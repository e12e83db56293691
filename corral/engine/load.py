"""From a model file and the configuration to an engine that can take requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from corral.config import CacheTypeName, EngineConfig, ModelConfig
from corral.engine import context
from corral.engine.draft import DraftParams
from corral.engine.embedder import MOST_SEQUENCES, Embedder, EmbedLimits
from corral.engine.engine import Engine
from corral.engine.loop import LoadedModel, Progress
from corral.engine.memory_lock import lock_memory
from corral.engine.messages import Pooling, Ready
from corral.engine.output import TextTables
from corral.engine.pooling import choose
from corral.engine.scheduler import UNBOUNDED, Limits
from corral.engine.slot_files import BlockStore, SlotFiles, model_id
from corral.errors import ModelFileError, OptionError
from corral.gguf.reader import GGUFFile
from corral.models import trace_program
from corral.program.batch import BLOCK_TOKENS, Batch, Executor
from corral.program.kv_cache import CacheType, CacheTypes, kv_bytes_per_block
from corral.program.outputs import has_logits
from corral.program.pack_cache import PackCache
from corral.program.program import Embed, Linear, Program
from corral.system import budget, cpu, filesystem
from corral.tokenizer.vocabulary import Vocabulary

NUMPY_SLACK = 4
"""What the numpy executor takes, as a multiple of what is alive at once: it makes copies on the way."""
PAGED_TOKENS = 1024
"""In a multiple of as many tokens each buffer has whole pages."""

CACHE_TYPES: dict[CacheTypeName, CacheType] = {
    "f32": "f32",
    "f16": "f16",
    "bf16": "f16",
    "q8_0": "q8_0",
    **dict.fromkeys(("q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"), "q8_0"),
}
"""What a type that was asked for is kept as: bf16 has the size of f16; fewer bits than 8 there are none."""
MOST_DRAFT_TOKENS = 64
"""Guesses in one step, of all sequences: their logits take memory."""
PROMPT_LOGITS = 16 << 20
MOST_PROMPT_ROWS = 64
"""Bytes and rows of logits in one step for the probabilities of prompts."""
SOFTMAX_RANKS = ("qwen3", "qwen3vl")
"""Architectures whose rankers score by the probability of the first label, not by its number."""
IDLE_STEP_SECONDS = 0.5
"""Of a step that has prompts only: so soon is a new request seen, and one whose client is gone."""


def load(model: ModelConfig, config: EngineConfig, progress: Progress) -> LoadedModel:
    """Open the file, settle threads and memory, load the weights, and make room for the KV cache.

    Raises:
        ModelFileError: the file can't be used.
        OptionError: the model, or the context asked for, does not fit in memory.
    """
    started = time.perf_counter()
    file = GGUFFile.open(model.path, model.metadata_overrides)
    program, pooling, encoder = _traced(file, config)
    where = filesystem.of(file.path)
    file.in_order = where.read_in_order
    mode = model.load_mode
    if mode == "auto" and where.remote:
        mode = "none"  # a table that stays in the file needs the other side for as long as we run
    held = _tables(program) if mode in ("none", "mlock") else set()
    train_ctx = file.require(f"{file.architecture}.context_length", int)
    threads = cpu.decide(config.threads, cpu.limits(), force=config.force_threads)
    cache_types = _cache_types(config)
    memory = _plan_memory(program, file, config, train_ctx, threads.threads, held, cache_types, pooling)
    for line in memory.describe():
        progress(0.0, line)
    if where.read_in_order:
        progress(0.0, f"{file.path} is on {where.type} (mounted at {where.mount_point}): read in order")
    ctx = context.decide(config, memory, train_ctx, file.architecture)
    notes = [*_cache_notes(config), *ctx.notes]  # whoever chose the threads has warned of them
    for name in held:
        file.hold(name)

    def progress_of_weights(share: float) -> None:
        progress(share, f"loading {model.path}")

    cache = PackCache(Path(model.pack_cache), file.paths, threads.threads) if model.pack_cache else None
    step = _step_shape(config, program, pooling, ctx.n_ctx if program.whole else 0)
    executor = _open_executor(
        program, file, config, threads.threads, step, cache_types, cache, progress_of_weights
    )
    notes += cache.notes if cache else []
    text = _text_tables(file, executor.vocab_size)
    if config.warmup:
        progress(1.0, "warming up")
        _warm_up(executor)
    num_blocks = -(-ctx.pool // BLOCK_TOKENS)
    engine: Engine | Embedder
    if pooling:
        num_blocks += MOST_SEQUENCES if program.whole else 0  # a step of many short texts
        engine = Embedder(
            executor,
            EmbedLimits(
                n_ctx=ctx.n_ctx,
                num_blocks=num_blocks,
                step_tokens=step.tokens,
                whole=program.whole,
                max_queue=config.max_queue,
                queue_seconds=config.queue_timeout or UNBOUNDED,
            ),
            pooling,
            softmax=pooling == "rank" and file.architecture in SOFTMAX_RANKS,
        )
    else:
        engine = Engine(
            executor,
            text,
            _limits(config, ctx, num_blocks, step.tokens, _prompt_rows(program)),
            draft=_draft(config),
            slot_files=_slot_files(file, config, executor),
        )
    if model.load_mode in ("mlock", "mmap+mlock"):
        notes.append(lock_memory())
    ready = Ready(
        n_ctx=ctx.n_ctx,
        kv_tokens=num_blocks * BLOCK_TOKENS,
        parallel=min(config.parallel, step.tokens),
        threads=threads.threads,
        isa=executor.isa,
        executor=executor.name,
        weights_bytes=executor.weights_bytes,
        kv_bytes=num_blocks * executor.kv_bytes_per_block,
        load_ms=1e3 * (time.perf_counter() - started),
        notes=[note for note in notes if note],
        pooling=pooling,
        encoder=encoder,
        speculation=tuple(kind for kind in config.speculation if kind != "none" and pooling is None),
    )
    return LoadedModel(engine, ready, cache.check if cache else None)


def plan_memory(file: GGUFFile, config: EngineConfig) -> budget.MemoryPlan:
    """What `load` would plan with if there were memory without end. Raises ModelFileError as it does."""
    program, pooling, _ = _traced(file, config)
    train_ctx = file.require(f"{file.architecture}.context_length", int)
    threads = cpu.decide(config.threads, cpu.limits(), force=config.force_threads).threads
    return _plan_memory(
        program, file, config, train_ctx, threads, set(), _cache_types(config), pooling, unlimited=True
    )


class _Traced(NamedTuple):
    """A model, up to what is wanted of it."""

    program: Program
    pooling: Pooling | None
    """How embeddings are made; None: the program ends in logits, to generate."""
    encoder: bool
    """It can make nothing but embeddings."""


def _traced(file: GGUFFile, config: EngineConfig) -> _Traced:
    program = trace_program(file)
    encoder = not has_logits(program)
    pooling = choose(config, file, encoder=encoder)
    if pooling:
        program = trace_program(file, "scores" if pooling == "rank" else "hidden")
    return _Traced(program, pooling, encoder)


def _cache_types(config: EngineConfig) -> CacheTypes:
    return CacheTypes(CACHE_TYPES[config.cache_type_k], CACHE_TYPES[config.cache_type_v])


def _limits(
    config: EngineConfig, ctx: context.Context, num_blocks: int, step_tokens: int, prompt_rows: int
) -> Limits:
    return Limits(
        n_ctx=ctx.n_ctx,
        num_blocks=num_blocks,
        parallel=config.parallel,
        step_tokens=step_tokens,
        chunk_tokens=step_tokens,
        step_seconds=config.step_ms / 1e3,
        idle_step_seconds=max(IDLE_STEP_SECONDS, config.step_ms / 1e3),
        max_queue=config.max_queue,
        max_queue_tokens=ctx.queue,
        queue_seconds=config.queue_timeout or UNBOUNDED,
        context_shift=config.context_shift,
        draft_tokens=_draft_tokens(config),
        prompt_rows=prompt_rows,
    )


def _cache_notes(config: EngineConfig) -> list[str]:
    asked = {"--cache-type-k": config.cache_type_k, "--cache-type-v": config.cache_type_v}
    return [
        f"{flag} {name} is kept as {CACHE_TYPES[name]}: the KV cache has f32, f16 and q8_0"
        for flag, name in asked.items()
        if CACHE_TYPES[name] != name
    ]


def _slot_files(file: GGUFFile, config: EngineConfig, executor: ModelExecutor) -> SlotFiles | None:
    if config.slot_save_path is None:
        return None
    if not Path(config.slot_save_path).is_dir():
        raise OptionError(f"error: --slot-save-path {config.slot_save_path} is no folder")
    id = model_id(file, executor.name, *_cache_types(config))
    return SlotFiles(config.slot_save_path, id, executor)


def _draft(config: EngineConfig) -> DraftParams | None:
    if "ngram-simple" not in config.speculation:
        return None
    return DraftParams(config.ngram_size, config.ngram_draft, config.ngram_min_hits)


def _draft_tokens(config: EngineConfig) -> int:
    """Most guesses in one step; each needs a row of logits."""
    params = _draft(config)
    return min(params.most * config.parallel, MOST_DRAFT_TOKENS) if params else 0


def _prompt_rows(program: Program) -> int:
    """Most tokens of prompts in one step whose probabilities are asked for."""
    return max(1, min(MOST_PROMPT_ROWS, PROMPT_LOGITS // (4 * program.vocab_size)))


class StepShape(NamedTuple):
    tokens: int
    """T: the most."""
    rows: int
    """S: the most."""


def _step_shape(config: EngineConfig, program: Program, pooling: Pooling | None, whole: int = 0) -> StepShape:
    """The largest step; a text of `whole` tokens must fit."""
    tokens = max(min(config.batch_size, config.ubatch_size), whole)
    if pooling is None:
        # a step that has prompts has no guesses
        return StepShape(tokens, config.parallel + max(_draft_tokens(config), _prompt_rows(program)))
    return StepShape(tokens, tokens if pooling in ("none", "mean") else min(tokens, MOST_SEQUENCES))


class ModelExecutor(Executor, BlockStore, Protocol):
    """An executor that says what it is."""

    name: str
    isa: str
    weights_bytes: int
    kv_bytes_per_block: int


def _open_executor(
    program: Program,
    file: GGUFFile,
    config: EngineConfig,
    threads: int,
    step: StepShape,
    cache_types: CacheTypes,
    pack_cache: PackCache | None,
    progress: Callable[[float], None],
) -> ModelExecutor:
    # imported here: each is of no use to the other, and only one needs the compiled extension
    if config.executor == "reference":
        from corral.program.reference import ReferenceExecutor

        return ReferenceExecutor(program, file, cache_types=cache_types)
    from corral.program.native import NativeExecutor

    return NativeExecutor(
        program,
        file,
        threads=threads,
        isa=config.isa,
        max_tokens=step.tokens,
        max_logits=step.rows,
        cache_types=cache_types,
        pack_cache=pack_cache,
        progress=progress,
    )


def _tables(program: Program) -> set[str]:
    """The tensors of which rows are looked up: executors read them in the file, all others they pack."""
    return {program.weights[op.weight].name for op in program.ops if isinstance(op, Embed)}


def _packed(program: Program) -> set[str]:
    """The tensors that are multiplied with."""
    return {program.weights[w].name for op in program.ops if isinstance(op, Linear) for w in op.weights}


def _plan_memory(
    program: Program,
    file: GGUFFile,
    config: EngineConfig,
    train_ctx: int,
    threads: int,
    held: set[str],
    cache_types: CacheTypes,
    pooling: Pooling | None = None,
    *,
    unlimited: bool = False,
) -> budget.MemoryPlan:
    """Decide the size of the KV cache before anything is loaded.

    A model that takes a text whole has buffers for each token of the context, as it has keys and values.
    """

    def buffers(whole: int = 0) -> int:
        shape = _step_shape(config, program, pooling, whole)
        return _buffer_bytes(program, file, config, threads, shape)

    kv_bytes = kv_bytes_per_block(program, cache_types)
    step_tokens = _step_shape(config, program, pooling).tokens
    per_token = 0
    if program.whole:
        least = -(-step_tokens // PAGED_TOKENS) * PAGED_TOKENS
        per_token = -(-(buffers(2 * least) - buffers(least)) // least)
    more_blocks = MOST_SEQUENCES if program.whole else 0
    margin = config.fit_margin_mib
    packed = _packed(program)
    twice = held & packed  # a table that is the output too; the kernel may drop a mapped one
    return budget.plan(
        budget.Demand(
            weights=sum(
                (tensor.type.packed_nbytes(tensor.n_elements) if name in packed else tensor.nbytes)
                + (tensor.nbytes if name in twice else 0)
                for name, tensor in file.tensors.items()
            ),
            kv_per_token=kv_bytes // BLOCK_TOKENS,
            train_ctx=train_ctx,
            overhead=budget.process_overhead(
                program.vocab_size, file.metadata.array_length("tokenizer.ggml.merges")
            ),
            activations=buffers() + more_blocks * kv_bytes,
            activations_per_token=per_token,
            step_tokens=step_tokens,
        ),
        None if unlimited else budget.memory_limit(),
        ctx_size=context.asked(config),
        contexts=config.parallel if config.kv_unified and not program.whole else 1,
        fit=config.fit,
        margin=None if margin is None else margin * budget.MIB,
        min_ctx=config.fit_min_ctx,
    )


def _buffer_bytes(
    program: Program, file: GGUFFile, config: EngineConfig, threads: int, step: StepShape
) -> int:
    """What the executor will take for steps of that shape."""
    if config.executor == "reference":
        return NUMPY_SLACK * activation_bytes(program, *step)
    from corral.program.native import buffer_bytes

    return buffer_bytes(
        program, file, threads=threads, isa=config.isa, max_tokens=step.tokens, max_logits=step.rows
    )


def activation_bytes(program: Program, tokens: int, sequences: int) -> int:
    """The most that the buffers of a step with T = tokens and S = sequences take while they are needed."""
    rows = {"T": tokens, "S": sequences}
    sizes = [4 * rows[buffer.rows] * buffer.cols for buffer in program.buffers]
    last = program.last_reads()
    alive = most = 0
    for i, op in enumerate(program.ops):
        alive += sum(sizes[b] for b in op.writes)
        most = max(most, alive)
        alive -= sum(sizes[b] for b in {*op.reads, *op.writes} if last[b] == i)
    return most


def _text_tables(file: GGUFFile, vocab_size: int) -> TextTables:
    vocabulary = Vocabulary(file)
    if len(vocabulary) != vocab_size:
        expected = f"{vocab_size}, one for each logit"
        raise ModelFileError(file.path, "number of tokenizer.ggml.tokens", len(vocabulary), expected)
    return TextTables(
        text=vocabulary.token_bytes_table(),
        special=vocabulary.token_bytes_table(special=True),
        eog=vocabulary.eog_ids,
    )


def _warm_up(executor: Executor) -> None:
    """Compute one token: touch every weight and start the threads before a client waits for it."""
    zero = np.zeros(1, np.int32)
    executor.allocate(1)
    executor.step(
        Batch(
            tokens=zero,
            positions=zero,
            query_start=np.array([0, 1], np.int32),
            context_len=np.ones(1, np.int32),
            block_tables=np.zeros((1, 1), np.int32),
            logit_rows=zero,
        )
    )
