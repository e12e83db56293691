"""POST /v1/completions: OpenAI's older form, text in and text out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from corral.engine.messages import Output, Submit, TokenInfo
from corral.server import generate
from corral.server.errors import json_response
from corral.server.generation import ClientGone
from corral.server.prompts import read_prompts
from corral.server.reply import Reply, logprob, logprobs, new_id, timings, usage
from corral.server.schema import COMPLETION, CompletionRequest
from corral.server.sse import DONE, frame
from corral.server.state import BUILD, ServerState


async def completions(state: ServerState, http: Request) -> ASGIApp:
    try:
        request = COMPLETION.read(await generate.read_body(http, state.max_body, state.config.timeout))
        model, ready = state.loaded()
        prompts = await read_prompts(model, request.prompt, ready.n_ctx)
        sampling = generate.sampling_params(
            request, state.config.sampling, model.tokenizer, model.info.n_vocab
        )
        sampling = msgspec.structs.replace(sampling, n_probs=_n_probs(request, sampling.n_probs))
        id = new_id("chatcmpl-")
        submits = generate.submits(state, http, request, prompts, id, sampling, ready)
        head = {
            "created": int(state.now()),
            "model": model.info.id,
            "system_fingerprint": BUILD,
            "object": "text_completion",
            "id": id,
        }
        if request.stream:
            chunks = _Chunks(head, prompts, submits)
            return await generate.stream(state, http, submits, request, chunks.add, lambda: DONE)
        replies = await generate.collect(state, http, submits)
    except ClientGone:
        return generate.NOBODY
    return json_response(
        {
            "choices": [
                _choice(i, "".join(r.text), r.finish_reason, r.infos, 0) for i, r in enumerate(replies)
            ],
            **head,
            "usage": usage(prompts, replies),
            "timings": timings(replies[0].timings),
        }
    )


def _n_probs(request: CompletionRequest, n_probs: int) -> int:
    """`logprobs` is a number here, but 0 and true mean something too: the chosen token's own."""
    if request.logprobs is None or request.logprobs is False:
        return n_probs
    return max(n_probs, int(request.logprobs), 1)


def _choice(
    index: int, text: str, finish_reason: str | None, infos: Sequence[TokenInfo], offset: int
) -> dict[str, Any]:
    return {
        "text": text,
        "index": index,
        "logprobs": _logprobs(infos, offset) if infos else None,
        "finish_reason": finish_reason,
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

    The usage and the timings are on the last event.
    """

    def __init__(
        self, head: dict[str, Any], prompts: Sequence[Sequence[int]], submits: Sequence[Submit]
    ) -> None:
        self._head, self._prompts = head, prompts
        self._replies = [Reply() for _ in submits]
        self._offsets = [0] * len(submits)

    def add(self, index: int, output: Output) -> bytes:
        reply = self._replies[index]
        reply.add(output)
        if not output.text and reply.finish_reason is None:
            return b""
        infos = reply.take_infos()
        chunk: dict[str, Any] = {
            "choices": [_choice(index, output.text, reply.finish_reason, infos, self._offsets[index])],
            **self._head,
        }
        self._offsets[index] += sum(len(i.piece.decode("utf-8", "replace")) for i in infos)
        if all(r.finish_reason is not None for r in self._replies):
            chunk["usage"] = usage(self._prompts, self._replies)
            chunk["timings"] = timings(reply.timings)
        return frame(chunk)
