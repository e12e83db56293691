"""POST /v1/messages, as Anthropic's clients want it."""

from __future__ import annotations

from contextlib import aclosing

from starlette.requests import Request
from starlette.types import ASGIApp

from corral.chat.deltas import Delta
from corral.engine.messages import Output
from corral.errors import CorralError
from corral.server import generate
from corral.server.chat_turn import ChatTurn, count_tokens
from corral.server.convert.messages import MessagesRequest, chat_request
from corral.server.decode import Schema
from corral.server.errors import anthropic_envelope, json_response
from corral.server.render.message import MessageBuilder
from corral.server.reply import new_id
from corral.server.sse import named_frames
from corral.server.state import ServerState

MESSAGES = Schema(MessagesRequest)
PING = named_frames([{"type": "ping"}])


async def messages(state: ServerState, http: Request) -> ASGIApp:
    request = await generate.read(state, http, MESSAGES)
    chat = chat_request(request)
    model, _ = state.loaded()
    id = new_id("msg_")
    turn = await ChatTurn.of(state, http, chat, id)
    builder = MessageBuilder(
        id, model.info.id, len(turn.prompt), request.stop_sequences or (), request.shows_thinking()
    )
    if request.stream:
        return await turn.stream(http, _Events(builder), PING)
    async with aclosing(turn.steps(http)) as steps:
        async for _, deltas, output in steps:
            builder.add(deltas, output)
    builder.end()
    return json_response(builder.message)


async def count_message_tokens(state: ServerState, http: Request) -> ASGIApp:
    """POST /v1/messages/count_tokens."""
    request = await generate.read(state, http, MESSAGES)
    return json_response({"input_tokens": await count_tokens(state, chat_request(request))})


class _Events:
    """The stream of a message."""

    def __init__(self, builder: MessageBuilder) -> None:
        self._builder, self._begun = builder, False

    def add(self, _index: int, deltas: list[Delta], output: Output) -> bytes:
        begin = [] if self._begun else self._builder.begin()
        self._begun = True
        return named_frames(begin + self._builder.add(deltas, output))

    def last(self) -> bytes:
        return named_frames(self._builder.end())

    def failed(self, error: CorralError) -> bytes:
        return named_frames([anthropic_envelope(error)])
