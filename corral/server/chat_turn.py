"""The assistant's next turn: all that the chat endpoints share, whatever shape they give it.

    ChatRequest -> prompt -> Submits -> Outputs -> deltas of each choice

An endpoint with another body converts it to a ChatRequest first. It then waits with `collect`, or passes
`stream` an object that renders the steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

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
from corral.server.conversation import Conversation, ReplyRules, reply_rules
from corral.server.native_reply import NativeReplies
from corral.server.prompts import check_length, empty_prompt
from corral.server.schema import ChatRequest
from corral.server.sse import PING
from corral.server.state import Engine, LoadedModel, ServerState, Tokenizer
from corral.server.thinking_budget import ThinkingBudget

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
    """A request that can be generated: `submits[i]`, for `engine`, makes choice i; `parsers[i]` reads it."""

    state: ServerState
    engine: Engine
    request: ChatRequest
    prompt: list[int]
    submits: list[Submit]
    parsers: list[ReplyParser]
    native: NativeReplies
    """llama-server's own view of the choices, for `verbose`."""

    @classmethod
    async def of(cls, state: ServerState, http: Request, request: ChatRequest, id: str) -> ChatTurn:
        """Renders the prompt and checks everything. Raises RequestError, Unavailable."""
        model, ready = state.loaded()
        talk = await asyncio.to_thread(Conversation.of, model, request, state.config)
        prompt = await asyncio.to_thread(_encode, model, talk.prompt.text, ready.n_ctx)
        sampling = generate.sampling_params(
            request, state.config.sampling, model.tokenizer, model.info.n_vocab
        )
        n_probs = _n_probs(request, sampling.n_probs, talk.tools is not None)
        sampling = msgspec.structs.replace(sampling, n_probs=n_probs)
        submits = generate.submits(state, http, request, [prompt], id, sampling, ready)
        rules = await asyncio.to_thread(reply_rules, model.tokenizer, talk, submits[0].constraint)
        submits = [
            msgspec.structs.replace(s, constraint=rules.constraint, special=rules.special) for s in submits
        ]
        plain = state.config.skip_chat_parsing
        parsers = [PlainParser() if plain else _parser(request, talk) for _ in submits]
        engine = _within_budget(state.engine, model.tokenizer, talk, rules)
        native = NativeReplies(model, ready, request, submits)
        return cls(state, engine, request, prompt, submits, parsers, native)

    def step(self, index: int, output: Output) -> list[Delta]:
        """What an output means. Every output of a choice goes through here once, in order."""
        parser, text = self.parsers[index], output.text
        if output.stop_type == "eos" and self.submits[index].special and output.tokens and self.state.model:
            last = self.state.model.tokenizer.decode(output.tokens[-1:], special=True)
            text = text.removesuffix(last.decode("utf-8", "replace"))
        deltas = parser.feed(text)
        return deltas if output.finish_reason is None else [*deltas, *parser.finish()]

    async def steps(self, http: Request) -> AsyncGenerator[tuple[int, list[Delta], Output], None]:
        """(index of the choice, deltas, output) until all have ended.

        Raises what Generations raises: ClientGone, errors of the engine.
        """
        async with aclosing(generate.outputs(self.engine, http, self.submits)) as outputs:
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
            renderer.last, renderer.failed, ping, self.engine,
        )  # fmt: skip


def chat_prompt(model: LoadedModel, request: ChatRequest, config: ServerConfig, n_ctx: int) -> list[int]:
    """Token ids of the conversation. Blocking: a template is the model's code. Raises RequestError."""
    return _encode(model, prompt_text(model, request, config), n_ctx)


async def count_tokens(state: ServerState, request: ChatRequest) -> int:
    """Tokens of the conversation, also of one that does not fit. Raises RequestError, Unavailable."""
    model, _ = state.loaded()

    def count() -> int:
        text = prompt_text(model, request, state.config)
        return len(model.tokenizer.encode(text, add_special=True, parse_special=True))

    return await asyncio.to_thread(count)


def prompt_text(model: LoadedModel, request: ChatRequest, config: ServerConfig) -> str:
    """The text of the conversation, to be tokenized with special tokens parsed. Blocking."""
    return Conversation.of(model, request, config).prompt.text


def _encode(model: LoadedModel, text: str, n_ctx: int) -> list[int]:
    check_length(model, text, n_ctx)
    return model.tokenizer.encode(text, add_special=True, parse_special=True) or empty_prompt(model)


def _parser(request: ChatRequest, talk: Conversation) -> ReplyParser:
    tools = None if request.parse_tool_calls is False else talk.tools
    prompt, thoughts = talk.prompt, talk.reasoning.thoughts
    return talk.format.parser(tools, opened=prompt.opened, answering=prompt.answering, thoughts=thoughts)


def _within_budget(engine: Engine, tokenizer: Tokenizer, talk: Conversation, rules: ReplyRules) -> Engine:
    """The engine, made to end reasoning that is longer than asked for."""
    end = talk.format.reasoning_end(talk.tools)
    if talk.reasoning.budget < 0 or not end:
        return engine
    return ThinkingBudget(
        engine,
        tokenizer,
        lambda: talk.format.parser(talk.tools, opened=talk.prompt.opened, answering=talk.prompt.answering),
        talk.reasoning.budget,
        talk.reasoning.message + end,
        rules.behind_reasoning,
    )


def _n_probs(request: ChatRequest, n_probs: int, tools: bool) -> int:
    if not request.logprobs:
        if request.top_logprobs:
            raise RequestError("Field 'top_logprobs': needs 'logprobs' to be true")
        return n_probs
    if tools and request.stream:
        raise RequestError("Field 'logprobs': not possible together with 'tools' in a stream")
    if request.top_logprobs is None:
        return n_probs or DEFAULT_TOP_LOGPROBS
    return max(request.top_logprobs, 1)
