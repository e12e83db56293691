"""POST /v1/completions: OpenAI's older form, text in and text out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from corral.engine.messages import Output, TokenInfo
from corral.errors import NotSupported, RequestError
from corral.server import generate
from corral.server.errors import json_response
from corral.server.fill_in import Gap, fill_in_prompt
from corral.server.native_reply import NativeReplies, observed
from corral.server.prompts import MAX_PROMPTS, read_prompts
from corral.server.reply import Reply, logprob, logprobs, new_id, timings, usage
from corral.server.schema import COMPLETION, CompletionRequest
from corral.server.sse import DONE, frame
from corral.server.state import BUILD, LoadedModel, ServerState


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
    native = NativeReplies(model, ready, request, submits)
    head = {
        "created": int(state.now()),
        "model": model.info.id,
        "system_fingerprint": BUILD,
        "object": "text_completion",
        "id": id,
    }
    before = (texts or [_text(model, p) for p in prompts]) if request.echo else [""] * len(prompts)
    echoed = [text for text in before for _ in range(request.results())]
    if request.stream:
        chunks = _Chunks(head, request, prompts, echoed, native)
        return await generate.stream(state, http, submits, request, chunks.add, lambda: DONE)
    replies = await generate.collect(state, http, submits)
    chosen = _chosen(request, replies)
    best = chosen[0]
    verbose = {"__verbose": native.whole(best, replies[best])} if request.verbose else {}
    return json_response(
        {
            "choices": [
                _choice(index, echoed[i] + "".join(replies[i].text), replies[i], len(echoed[i]), request)
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
    if request.echo and _wants_logprobs(request):
        raise NotSupported("Field 'echo': not with 'logprobs': the probabilities of a prompt are not known")


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


def _choice(index: int, text: str, reply: Reply, offset: int, request: CompletionRequest) -> dict[str, Any]:
    """`offset` is the length of the text before the reply's unsent tokens, which it takes."""
    infos = reply.take_infos()
    wanted = request.results() == request.choices() or request.n_probs or _wants_logprobs(request)
    return {
        "text": text,
        "index": index,
        "logprobs": _logprobs(infos, offset) if infos and wanted else None,
        "finish_reason": reply.finish_reason,
    }


def _logprobs(infos: Sequence[TokenInfo], offset: int) -> dict[str, Any]:
    """llama-server's form and OpenAI's older one in one object; `offset` is the length of the text before."""
    content = logprobs(infos)["content"]
    tops = [[(t.piece.decode("utf-8", "replace"), logprob(t)) for t in i.top] for i in infos]
    offsets = []
    for token in content:
        offsets.append(offset)
        offset += len(token["token"])
    return {
        "content": content,
        "tokens": [t["token"] for t in content],
        "token_logprobs": [logprob(i) for i in infos],
        "top_logprobs": [dict(top) for top in tops],
        "text_offset": offsets,
    }


class _Chunks:
    """The events of a stream: text as it comes, and at the end of each choice why it ended.

    The first text of a choice follows what is echoed. The usage and the timings are on the last event.
    """

    def __init__(
        self,
        head: dict[str, Any],
        request: CompletionRequest,
        prompts: Sequence[Sequence[int]],
        echoed: Sequence[str],
        native: NativeReplies,
    ) -> None:
        self._head, self._request, self._prompts, self._native = head, request, prompts, native
        self._echoed = list(echoed)
        self._offsets = [len(text) for text in echoed]
        self._replies = native.replies

    def add(self, index: int, output: Output) -> bytes:
        reply = self._replies[index]
        reply.add(output)
        if not output.text and reply.finish_reason is None and output.progress is None:
            return b""
        text, self._echoed[index] = self._echoed[index] + output.text, ""
        length = sum(len(i.piece.decode("utf-8", "replace")) for i in reply.infos)
        chunk: dict[str, Any] = {
            "choices": [_choice(index, text, reply, self._offsets[index], self._request)],
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
