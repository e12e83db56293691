"""The assistant's next turn: all that the chat endpoints share, whatever shape they give it.

    ChatRequest -> prompt -> Submits -> Outputs -> deltas of each choice

An endpoint with another body converts it to a ChatRequest first. It then waits with `collect`, or passes
`stream` an object that renders the steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from corral.chat.deltas import Delta
from corral.chat.reply_parser import PlainParser, ReplyParser
from corral.config import ServerConfig
from corral.engine.messages import Output, Submit
from corral.errors import CorralError, RequestError
from corral.server import generate
from corral.server.chat_reply import ChatReply
from corral.server.prompts import check_length, empty_prompt
from corral.server.schema import ChatRequest
from corral.server.sse import PING
from corral.server.state import LoadedModel, ServerState

DEFAULT_TOP_LOGPROBS = 20


class Renderer(Protocol):
    """Gives a stream its form: each method returns the bytes to send."""

    def add(self, index: int, deltas: list[Delta], output: Output) -> bytes:
        """What a step added to choice `index`. With the last one `output.finish_reason` is set."""
        ...

    def last(self) -> bytes:
        """After the last step of all choices."""
        ...

    def failed(self, error: CorralError) -> bytes:
        """Instead of the rest: an error after the stream has begun."""
        ...


@dataclass
class ChatTurn:
    """A request that can be generated: `submits[i]` makes choice i and `parsers[i]` reads it."""

    state: ServerState
    request: ChatRequest
    prompt: list[int]
    submits: list[Submit]
    parsers: list[ReplyParser]

    @classmethod
    async def of(cls, state: ServerState, http: Request, request: ChatRequest, id: str) -> ChatTurn:
        """Renders the prompt and checks everything. Raises RequestError, Unavailable."""
        model, ready = state.loaded()
        prompt = await asyncio.to_thread(chat_prompt, model, request, state.config, ready.n_ctx)
        sampling = generate.sampling_params(
            request, state.config.sampling, model.tokenizer, model.info.n_vocab
        )
        sampling = msgspec.structs.replace(sampling, n_probs=_n_probs(request, sampling.n_probs))
        submits = generate.submits(state, http, request, [prompt], id, sampling, ready)
        return cls(state, request, prompt, submits, [PlainParser() for _ in submits])

    def step(self, index: int, output: Output) -> list[Delta]:
        """What an output means. Every output of a choice goes through here once, in order."""
        parser = self.parsers[index]
        deltas = parser.feed(output.text)
        return deltas if output.finish_reason is None else [*deltas, *parser.finish()]

    async def steps(self, http: Request) -> AsyncGenerator[tuple[int, list[Delta], Output], None]:
        """(index of the choice, deltas, output) until all have ended.

        Raises what Generations raises: ClientGone, errors of the engine.
        """
        async with aclosing(generate.outputs(self.state.engine, http, self.submits)) as outputs:
            async for index, output in outputs:
                yield index, self.step(index, output), output

    async def collect(self, http: Request) -> list[ChatReply]:
        """Waits for all choices. Raises what Generations raises."""
        replies = [ChatReply() for _ in self.submits]
        async with aclosing(self.steps(http)) as steps:
            async for index, deltas, output in steps:
                replies[index].add_step(deltas, output)
        return replies

    async def stream(self, http: Request, renderer: Renderer, ping: bytes = PING) -> ASGIApp:
        """The response, once its first output is there: an error before it is raised, for an ordinary one.

        `ping` is sent in long silences.
        """
        return await generate.stream(
            self.state, http, self.submits, self.request,
            lambda index, output: renderer.add(index, self.step(index, output), output),
            renderer.last, renderer.failed, ping,
        )  # fmt: skip


def chat_prompt(model: LoadedModel, request: ChatRequest, config: ServerConfig, n_ctx: int) -> list[int]:
    """Token ids of the conversation. Blocking: a template is the model's code. Raises RequestError."""
    text = prompt_text(model, request, config)
    check_length(model, text, n_ctx)
    return model.tokenizer.encode(text, add_special=True, parse_special=True) or empty_prompt(model)


async def count_tokens(state: ServerState, request: ChatRequest) -> int:
    """Tokens of the conversation, also of one that does not fit. Raises RequestError, Unavailable."""
    model, _ = state.loaded()

    def count() -> int:
        text = prompt_text(model, request, state.config)
        return len(model.tokenizer.encode(text, add_special=True, parse_special=True))

    return await asyncio.to_thread(count)


def prompt_text(model: LoadedModel, request: ChatRequest, config: ServerConfig) -> str:
    """The text of the conversation, to be tokenized with special tokens parsed. Blocking."""
    go_on = request.continue_final_message
    return model.prompter.prompt(
        request.messages,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=False if go_on is None and not config.prefill_assistant else go_on,
        kwargs=_template_variables(request, config),
    )


def _template_variables(request: ChatRequest, config: ServerConfig) -> Mapping[str, Any]:
    kwargs = {**config.chat_template_kwargs, **(request.chat_template_kwargs or {})}
    if request.enable_thinking is not None:
        kwargs["enable_thinking"] = request.enable_thinking
    if request.reasoning_effort == "none":
        kwargs["enable_thinking"] = False
    elif request.reasoning_effort is not None:
        kwargs["reasoning_effort"] = request.reasoning_effort
    return kwargs


def _n_probs(request: ChatRequest, n_probs: int) -> int:
    if not request.logprobs:
        if request.top_logprobs:
            raise RequestError("Field 'top_logprobs': needs 'logprobs' to be true")
        return n_probs
    if request.top_logprobs is None:
        return n_probs or DEFAULT_TOP_LOGPROBS
    return max(request.top_logprobs, 1)
