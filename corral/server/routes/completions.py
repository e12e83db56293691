"""POST /v1/completions: OpenAI's older form, text in and text out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from corral.engine.messages import Output, Submit, TokenInfo
from corral.errors import RequestError
from corral.server import generate
from corral.server.echo import Echo, columns_of
from corral.server.errors import json_response
from corral.server.fill_in import Gap, fill_in_prompt
from corral.server.native_reply import NativeReplies, observed
from corral.server.prompts import MAX_PROMPTS, read_prompts
from corral.server.reply import Reply, logprob, logprobs, new_id, timings, usage
from corral.server.schema import COMPLETION, CompletionRequest
from corral.server.sse import DONE, frame
from corral.server.state import BUILD, LoadedModel, ServerState

MOST_PROMPT_PROBS = 1 << 19
"""In one response. Each takes about 150 bytes until it is sent."""


async def completions(state: ServerState, http: Request) -> ASGIApp:
    request = await generate.read(state, http, COMPLETION)
    _check(request)
    model, ready = state.loaded()
    texts = _texts(request)
    prompts = await _prompts(state, model, request, texts, ready.n_ctx)
    sampling = generate.sampling_params(request, state.config.sampling, model.tokenizer, model.info.n_vocab)
    sampling = msgspec.structs.replace(sampling, n_probs=_n_probs(request, sampling.n_probs))
    id = new_id("chatcmpl-")
    submits = generate.submits(state, http, request, prompts, id, sampling, ready)
    if request.echo and _wants_logprobs(request):
        _check_size(submits)
        submits = [msgspec.structs.replace(submit, prompt_probs=True) for submit in submits]
    native = NativeReplies(model, ready, request, submits)
    head = {
        "created": int(state.now()),
        "model": model.info.id,
        "system_fingerprint": BUILD,
        "object": "text_completion",
        "id": id,
    }
    echoes = _echoes(model, request, texts, prompts)
    if request.stream:
        chunks = _Chunks(head, request, prompts, echoes, native)
        return await generate.stream(state, http, submits, request, chunks.add, lambda: DONE)
    replies = await generate.collect(state, http, submits)
    chosen = _chosen(request, replies)
    best = chosen[0]
    verbose = {"__verbose": native.whole(best, replies[best])} if request.verbose else {}
    return json_response(
        {
            "choices": [
                _choice(index, "".join(replies[i].text), replies[i], echoes[i], echoes[i].length, request)
                for index, i in enumerate(chosen)
            ],
            **head,
            "usage": usage(prompts, replies),
            "timings": timings(replies[best].timings),
            **verbose,
        }
    )


def _check(request: CompletionRequest) -> None:
    n, best_of = request.choices(), request.best_of
    if best_of is not None and best_of < n:
        raise RequestError(f"Field 'best_of': expected no less than 'n', which is {n}, got {best_of}")
    if best_of is not None and best_of > n and request.stream:
        raise RequestError(f"Field 'best_of': {best_of} can't be streamed, which is best is known at the end")
    if request.echo and request.suffix and _wants_logprobs(request):
        raise RequestError("Field 'echo': with 'logprobs' not possible together with 'suffix'")


def _check_size(submits: Sequence[Submit]) -> None:
    """The probabilities of all prompts are in memory at once, and in one response."""
    tokens, each = sum(len(submit.prompt) for submit in submits), 1 + submits[0].sampling.n_probs
    if tokens * each > MOST_PROMPT_PROBS:
        raise RequestError(
            f"Field 'echo': expected at most {MOST_PROMPT_PROBS} probabilities of the prompts' tokens, which "
            f"are {tokens} here with {each} each; send fewer prompts at a time or ask for fewer 'logprobs'"
        )


def _wants_logprobs(request: CompletionRequest) -> bool:
    """0 and true mean something too: the chosen token's own."""
    return request.logprobs is not None and request.logprobs is not False


def _texts(request: CompletionRequest) -> list[str]:
    """The prompts as the client wrote them; none when there are token ids among them."""
    given = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    return given if isinstance(given, list) and all(isinstance(t, str) for t in given) else []


async def _prompts(
    state: ServerState, model: LoadedModel, request: CompletionRequest, texts: Sequence[str], n_ctx: int
) -> list[list[int]]:
    suffix = request.suffix
    if not suffix:
        return await read_prompts(model, request.prompt, n_ctx)
    if not 0 < len(texts) <= MAX_PROMPTS:
        raise RequestError(
            f"Field 'suffix': expected 'prompt' to be a string or an array of 1 to {MAX_PROMPTS} strings"
        )

    def prompts() -> list[list[int]]:
        limit, first = request.limit(), state.config.spm_infill
        return [fill_in_prompt(model, Gap(t, suffix), n_ctx, limit, suffix_first=first) for t in texts]

    return await asyncio.to_thread(prompts)


def _n_probs(request: CompletionRequest, n_probs: int) -> int:
    """Of how many tokens at each place the engine has to give the probability."""
    if request.results() > request.choices():
        n_probs = max(n_probs, 1)  # to know which is best
    return max(n_probs, int(request.logprobs or 0), 1) if _wants_logprobs(request) else n_probs


def _chosen(request: CompletionRequest, replies: Sequence[Reply]) -> list[int]:
    """Of `best_of` results of each prompt the `n` with the likeliest tokens, the best first; else all."""
    n, best_of = request.choices(), request.results()
    if best_of == n:
        return list(range(len(replies)))
    chosen: list[int] = []
    for first in range(0, len(replies), best_of):
        group = range(first, first + best_of)
        chosen += sorted(group, key=lambda i: -_mean_logprob(replies[i].infos))[:n]
    return chosen


def _mean_logprob(infos: Sequence[TokenInfo]) -> float:
    return sum(map(logprob, infos)) / len(infos) if infos else 0.0


def _text(model: LoadedModel, prompt: Sequence[int]) -> str:
    return model.tokenizer.decode(prompt).decode("utf-8", "replace")


def _echoes(
    model: LoadedModel, request: CompletionRequest, texts: Sequence[str], prompts: Sequence[Sequence[int]]
) -> list[Echo]:
    """What comes before each choice."""
    if not request.echo:
        return [Echo("") for _ in prompts for _ in range(request.results())]
    before = texts or [_text(model, prompt) for prompt in prompts]
    firsts = [model.tokenizer.decode(p[:1]) if _wants_logprobs(request) else None for p in prompts]
    return [
        Echo(text, first)
        for text, first in zip(before, firsts, strict=True)
        for _ in range(request.results())
    ]


def _choice(
    index: int, text: str, reply: Reply, echo: Echo, offset: int, request: CompletionRequest
) -> dict[str, Any]:
    """`offset` is the length of the text before the reply's unsent tokens, which it takes."""
    infos, before = reply.take_infos(), echo.take_columns(reply.take_prompt_infos())
    wanted = request.results() == request.choices() or request.n_probs or _wants_logprobs(request)
    return {
        "text": echo.take_text() + text,
        "index": index,
        "logprobs": _logprobs(infos, offset, before) if wanted and (infos or before["tokens"]) else None,
        "finish_reason": reply.finish_reason,
    }


def _logprobs(infos: Sequence[TokenInfo], offset: int, before: Mapping[str, list[Any]]) -> dict[str, Any]:
    """llama-server's form, of generated tokens, and OpenAI's older one in one object.

    `offset` is the length of the text before, `before` has the columns of the echoed tokens.
    """
    columns = columns_of(infos, offset)
    return {**logprobs(infos), **{name: before[name] + columns[name] for name in columns}}


class _Chunks:
    """The events of a stream: text as it comes, and at the end of each choice why it ended.

    The first text of a choice follows what is echoed. The usage and the timings are on the last event.
    """

    def __init__(
        self,
        head: dict[str, Any],
        request: CompletionRequest,
        prompts: Sequence[Sequence[int]],
        echoes: Sequence[Echo],
        native: NativeReplies,
    ) -> None:
        self._head, self._request, self._prompts, self._native = head, request, prompts, native
        self._echoes = echoes
        self._offsets = [echo.length for echo in echoes]
        self._replies = native.replies

    def add(self, index: int, output: Output) -> bytes:
        reply = self._replies[index]
        reply.add(output)
        if not output.text and reply.finish_reason is None and output.progress is None:
            return b""
        length = sum(len(i.piece.decode("utf-8", "replace")) for i in reply.infos)
        chunk: dict[str, Any] = {
            "choices": [
                _choice(index, output.text, reply, self._echoes[index], self._offsets[index], self._request)
            ],
            **self._head,
        }
        self._offsets[index] += length
        chunk |= observed(output)
        if all(r.finish_reason is not None for r in self._replies):
            chunk["usage"] = usage(self._prompts, self._replies)
            chunk["timings"] = timings(reply.timings)
        if self._request.verbose and reply.finish_reason is not None:
            chunk["__verbose"] = self._native.whole(index, reply, streamed=True)
        return frame(chunk)
