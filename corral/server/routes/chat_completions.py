"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from corral.config import ServerConfig
from corral.engine.messages import Output, Submit
from corral.errors import RequestError
from corral.server import generate
from corral.server.errors import json_response
from corral.server.generation import ClientGone
from corral.server.reply import Reply, logprobs, new_id, timings, usage
from corral.server.schema import CHAT, ChatRequest
from corral.server.sse import DONE, frame
from corral.server.state import BUILD, LoadedModel, ServerState

DEFAULT_TOP_LOGPROBS = 20


async def chat_completions(state: ServerState, http: Request) -> ASGIApp:
    try:
        request = CHAT.read(await generate.read_body(http, state.max_body, state.config.timeout))
        model, ready = state.loaded()
        prompt = await asyncio.to_thread(_prompt, model, request, state.config, ready.n_ctx)
        sampling = generate.sampling_params(
            request, state.config.sampling, model.tokenizer, model.info.n_vocab
        )
        sampling = msgspec.structs.replace(sampling, n_probs=_n_probs(request, sampling.n_probs))
        id = new_id("chatcmpl-")
        submits = generate.submits(state, http, request, [prompt], id, sampling, ready)
        head = {
            "created": int(state.now()),
            "id": id,
            "model": model.info.id,
            "system_fingerprint": BUILD,
        }
        if request.stream:
            chunks = _Chunks(head, submits, request.include_usage())
            return await generate.stream(state, http, submits, request, chunks.add, chunks.last)
        replies = await generate.collect(state, http, submits)
    except ClientGone:
        return generate.NOBODY
    return json_response(
        {
            "choices": [_choice(i, reply) for i, reply in enumerate(replies)],
            **head,
            "object": "chat.completion",
            "usage": usage([prompt], replies),
            "timings": timings(replies[0].timings),
        }
    )


def _prompt(model: LoadedModel, request: ChatRequest, config: ServerConfig, n_ctx: int) -> list[int]:
    """Token ids of the conversation. Blocking: a template is the model's code and runs in a thread."""
    kwargs = {**config.chat_template_kwargs, **(request.chat_template_kwargs or {})}
    if request.enable_thinking is not None:
        kwargs["enable_thinking"] = request.enable_thinking
    if request.reasoning_effort == "none":
        kwargs["enable_thinking"] = False
    elif request.reasoning_effort is not None:
        kwargs["reasoning_effort"] = request.reasoning_effort
    go_on = request.continue_final_message
    text = model.prompter.prompt(
        request.messages,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=False if go_on is None and not config.prefill_assistant else go_on,
        kwargs=kwargs,
    )
    generate.check_length(model, text, n_ctx)
    return model.tokenizer.encode(text, add_special=True, parse_special=True) or generate.empty_prompt(model)


def _n_probs(request: ChatRequest, n_probs: int) -> int:
    if not request.logprobs:
        if request.top_logprobs:
            raise RequestError("Field 'top_logprobs': needs 'logprobs' to be true")
        return n_probs
    if request.top_logprobs is None:
        return n_probs or DEFAULT_TOP_LOGPROBS
    return max(request.top_logprobs, 1)


def _choice(index: int, reply: Reply) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "finish_reason": reply.finish_reason,
        "index": index,
        "message": {"role": "assistant", "content": "".join(reply.text)},
    }
    if reply.infos:
        choice["logprobs"] = logprobs(reply.infos)
    return choice


class _Chunks:
    """The events of a stream: who speaks, what is said, why it ended; then the usage if asked for.

    The timings are on the last event before [DONE].
    """

    def __init__(self, head: dict[str, Any], submits: Sequence[Submit], include_usage: bool) -> None:
        self._head = {**head, "object": "chat.completion.chunk"}
        self._prompt = submits[0].prompt
        self._replies = [Reply() for _ in submits]
        self._spoken: set[int] = set()
        self._include_usage = include_usage

    def add(self, index: int, output: Output) -> bytes:
        reply, events = self._replies[index], b""
        reply.add(output)
        if index not in self._spoken:
            self._spoken.add(index)
            events += self._chunk(index, {"role": "assistant", "content": None})
        if output.text:
            events += self._chunk(index, {"content": output.text}, infos=True)
        if reply.finish_reason is not None:
            events += self._chunk(index, {}, infos=True, end=True)
        return events

    def last(self) -> bytes:
        if not self._include_usage:
            return DONE
        numbers = usage([self._prompt], self._replies)
        end = {"choices": [], **self._head, "usage": numbers, "timings": timings(self._replies[0].timings)}
        return frame(end) + DONE

    def _chunk(self, index: int, delta: dict[str, Any], *, infos: bool = False, end: bool = False) -> bytes:
        reply = self._replies[index]
        choice: dict[str, Any] = {
            "finish_reason": reply.finish_reason if end else None,
            "index": index,
            "delta": delta,
        }
        if infos and reply.infos:
            choice["logprobs"] = logprobs(reply.take_infos())
        chunk: dict[str, Any] = {"choices": [choice], **self._head}
        if end and not self._include_usage:
            chunk["timings"] = timings(reply.timings)
        return frame(chunk)
