"""From a request's fields to the engine's messages, and the two ways to wait for the result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp

from corral import sampler_order
from corral.engine.messages import Output, Ready, Submit
from corral.errors import ContextSizeError, CorralError, PayloadTooLarge, RequestError
from corral.sampling.check import MOST_SAMPLERS
from corral.sampling.params import SamplingParams
from corral.server.constraint import constraint_of
from corral.server.decode import R, Schema
from corral.server.errors import RequestTimeout
from corral.server.generation import ClientGone, Generations
from corral.server.reply import Reply
from corral.server.schema import GenerateRequest
from corral.server.sse import PING, EventStream, failure
from corral.server.state import Engine, ServerState, Tokenizer

T = TypeVar("T")

DEFAULTED = (
    *("temperature", "dynatemp_range", "dynatemp_exponent", "top_k", "top_p", "min_p", "typical_p"),
    *("top_n_sigma", "xtc_probability", "xtc_threshold", "min_keep"),
    *("repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty"),
    *("dry_multiplier", "dry_allowed_length", "dry_penalty_last_n"),
    *("mirostat", "mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay"),
    *("ignore_eos", "n_probs", "post_sampling_probs"),
)
"""Fields of a request that SamplingParams has under the same name."""

MOST_BIASED_TEXTS, MOST_BIASED_CHARACTERS = 1024, 1 << 14
"""Texts of `logit_bias` are tokenized while other requests wait."""

log = logging.getLogger(__name__)


async def _read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Raises PayloadTooLarge as soon as it is clear, RequestError, RequestTimeout, ClientGone."""
    encoding = request.headers.get("content-encoding", "")
    if encoding.lower() not in ("", "identity"):
        raise RequestError(
            f"Header 'Content-Encoding': {encoding[:40]!r} is not supported, expected a body as it is"
        )
    body = bytearray()
    declared = request.headers.get("content-length", "")
    try:
        if not declared.isdecimal() or int(declared) <= limit:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        break
                else:
                    return bytes(body)
    except ClientDisconnect:
        raise ClientGone from None
    except TimeoutError:
        raise RequestTimeout(f"The body did not arrive within {seconds:g} s") from None
    size = declared if declared.isdecimal() else f"more than {limit}"
    raise PayloadTooLarge(f"The body has {size} bytes, expected at most {limit}")


async def read(state: ServerState, http: Request, schema: Schema[R]) -> R:
    """The body of a request. Raises RequestError, NotSupported, ClientGone."""
    return schema.read(await _read_body(http, state.max_body, state.config.timeout))


def sampling_params(
    request: GenerateRequest, defaults: SamplingParams, tokenizer: Tokenizer, n_vocab: int
) -> SamplingParams:
    """The server's defaults with what the request says. Raises RequestError."""
    given: dict[str, Any] = {
        name: value for name in DEFAULTED if (value := getattr(request, name)) is not None
    }
    if request.seed is not None:
        given["seed"] = None if request.seed < 0 else request.seed & 0xFFFFFFFF
    if request.logit_bias is not None:
        given["logit_bias"] = {**defaults.logit_bias, **_logit_bias(request.logit_bias, tokenizer, n_vocab)}
    if request.dry_base is not None and request.dry_base >= 1:  # less means the default, as in llama-server
        given["dry_base"] = request.dry_base
    if request.dry_sequence_breakers is not None:
        given["dry_sequence_breakers"] = _breakers(request.dry_sequence_breakers)
    if request.samplers is not None:
        given["samplers"] = _samplers(request.samplers)
    return msgspec.structs.replace(defaults, **given)


def _breakers(texts: list[str]) -> tuple[str, ...]:
    if not texts:
        raise RequestError("Field 'dry_sequence_breakers': expected at least one text")
    return tuple(texts)


def _samplers(value: list[str] | str) -> tuple[str, ...]:
    """Names, or letters. Clients send names that were samplers once: these are skipped, with a warning."""
    if len(value) > MOST_SAMPLERS:
        raise RequestError(f"Field 'samplers': expected at most {MOST_SAMPLERS}, got {len(value)}")
    order, unknown = (
        sampler_order.from_letters(value) if isinstance(value, str) else sampler_order.from_names(value)
    )
    if unknown:
        log.warning("a request names samplers that do not exist: %s", ", ".join(unknown)[:200])
    return order


def _logit_bias(value: dict[str, Any] | list[Any], tokenizer: Tokenizer, n_vocab: int) -> dict[int, float]:
    """`{"id or text": bias}` or `[[id or text, bias], ...]`; false bans. A text stands for its tokens."""
    biases: dict[int, float] = {}
    n_texts = n_characters = 0
    for entry in value.items() if isinstance(value, dict) else value:
        if not isinstance(entry, (tuple, list)) or len(entry) != 2:
            raise RequestError("Field 'logit_bias': expected pairs of a token and a bias")
        token, bias = entry
        if bias is False:
            bias = float("-inf")
        elif isinstance(bias, bool) or not isinstance(bias, (int, float)) or not abs(bias) <= 1e6:
            raise RequestError(
                f"Field 'logit_bias': the bias of {str(token)[:40]!r} is {str(bias)[:40]}, "
                "expected false or a number from -1000000 to 1000000"
            )
        if isinstance(token, str) and token.removeprefix("-").isdecimal() and isinstance(value, dict):
            token = int(token[:20])
        if isinstance(token, str):
            n_texts, n_characters = n_texts + 1, n_characters + len(token)
            if n_texts > MOST_BIASED_TEXTS or n_characters > MOST_BIASED_CHARACTERS:
                raise RequestError(
                    f"Field 'logit_bias': expected at most {MOST_BIASED_TEXTS} texts, of "
                    f"{MOST_BIASED_CHARACTERS} characters together"
                )
            ids = tokenizer.encode(token, add_special=False, parse_special=True)
        elif isinstance(token, int) and not isinstance(token, bool):
            ids = [token]
        else:
            raise RequestError(f"Field 'logit_bias': expected a token's id or text, got {str(token)[:40]}")
        for id in ids:
            if not 0 <= id < n_vocab:
                raise RequestError(f"Field 'logit_bias': token {id} is not from 0 to {n_vocab - 1}")
            biases[id] = float(bias)
    return biases


def submits(
    state: ServerState, http: Request, request: GenerateRequest, prompts: Sequence[list[int]], id: str,
    sampling: SamplingParams, ready: Ready,
) -> list[Submit]:  # fmt: skip
    """One message a choice: `n` of each prompt, in the order of their indices. Raises RequestError."""
    n = request.results()
    if n > ready.parallel:
        name = "n" if n == request.choices() else "best_of"
        raise RequestError(
            f"Field '{name}': expected an integer from 1 to {ready.parallel} (--parallel), got {n}"
        )
    if request.id_slot is not None and request.id_slot >= ready.parallel:
        raise RequestError(
            f"Field 'id_slot': expected an integer from -1 to {ready.parallel - 1} (below --parallel), "
            f"got {request.id_slot}"
        )
    for prompt in prompts:
        if len(prompt) >= ready.n_ctx:
            raise ContextSizeError(len(prompt), ready.n_ctx)
    limits = [x for x in (request.limit(), state.config.n_predict) if x is not None and x >= 0]
    constraint = constraint_of(request, state.config)
    client, connection = client_of(http)
    made: list[Submit] = []
    for prompt in prompts:
        for i in range(n):
            seed = sampling.seed
            # choices of one prompt with one seed would be equal
            own = (
                sampling if seed is None else msgspec.structs.replace(sampling, seed=(seed + i) & 0xFFFFFFFF)
            )
            made.append(
                Submit(
                    id=f"{id}-{len(made)}",
                    prompt=prompt,
                    max_tokens=min(limits, default=-1),
                    stop=request.stops(),
                    sampling=own,
                    constraint=constraint,
                    client=client,
                    connection=connection,
                    cache_prompt=_or(request.cache_prompt, state.config.cache_prompt),
                    id_slot=_or(request.id_slot, -1),
                    n_keep=_or(request.n_keep, state.config.n_keep),
                    n_discard=_or(request.n_discard, 0),
                    max_predict_ms=max(0, _or(request.t_max_predict_ms, 0)),
                    least_indent=_or(request.n_indent, 0),
                    timings_per_token=bool(request.timings_per_token),
                    progress=bool(request.return_progress and request.stream),
                )
            )
    return made


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def client_of(http: Request) -> tuple[str, str]:
    """Whom the scheduler is fair to: the holder of a key that we asked for, else the address; the connection.

    A key that nobody asked for is anything at all, and of many clients' libraries the same.
    """
    host, port = http.client or ("", id(http))  # a unix socket has neither: each request is its own
    return http.scope.get("key") or host, f"{host}:{port}"


async def outputs(
    engine: Engine, http: Request, made: Sequence[Submit]
) -> AsyncGenerator[tuple[int, Output], None]:
    """(index of the choice, Output) until all have ended. Raises what Generations raises."""
    async with Generations(engine, made, http.receive) as generations:
        http.scope["timings"] = generations.timings
        while generations.running:
            item = await generations.next()
            assert item is not None  # there was no timeout
            yield item


async def collect(state: ServerState, http: Request, made: Sequence[Submit]) -> list[Reply]:
    """Waits for all choices. Raises what Generations raises."""
    replies = [Reply() for _ in made]
    async with aclosing(outputs(state.engine, http, made)) as all_outputs:
        async for index, output in all_outputs:
            replies[index].add(output)
    return replies


async def stream(
    state: ServerState,
    http: Request,
    made: Sequence[Submit],
    request: GenerateRequest,
    events: Callable[[int, Output], bytes],
    last: Callable[[], bytes],
    failed: Callable[[CorralError], bytes] = failure,
    ping: bytes = PING,
    engine: Engine | None = None,
) -> ASGIApp:
    """An event stream that begins with the first output, so that an error before it is an ordinary response.

    When the first output takes longer than the ping interval, the stream begins with a ping instead: a proxy
    would otherwise give up on the silent connection. `engine`: one in the place of the state's.
    """
    asked = request.sse_ping_interval
    seconds = state.ping_seconds if asked is None else float(asked)
    silence = seconds if seconds > 0 else None
    generations = Generations(engine or state.engine, made, http.receive)
    http.scope["timings"] = generations.timings
    try:
        await generations.__aenter__()
        first = await generations.next(silence)
    except BaseException:
        await generations.close()
        raise
    return EventStream(generations, first, events, last, failed, ping, silence, state.config.timeout)
