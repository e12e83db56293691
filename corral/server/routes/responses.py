"""POST /v1/responses, and what can be done with a stored response."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from corral.chat.deltas import Delta
from corral.engine.messages import Output
from corral.errors import CorralError
from corral.server import generate
from corral.server.chat_turn import ChatTurn, count_tokens
from corral.server.convert.responses import ResponsesRequest, chat_request, functions, input_items
from corral.server.decode import Schema
from corral.server.errors import json_response
from corral.server.render.response import Event, ResponseBuilder
from corral.server.reply import new_id
from corral.server.schema import ChatRequest
from corral.server.sse import named_frames
from corral.server.state import ServerState

RESPONSES = Schema(ResponsesRequest)


async def responses(state: ServerState, http: Request) -> ASGIApp:
    request = await generate.read(state, http, RESPONSES)
    items, chat = _chat(state, request)
    model, _ = state.loaded()
    id = new_id("resp_")
    turn = await ChatTurn.of(state, http, chat, id)
    head = {"id": id, "model": model.info.id, **_echo(state, request, turn)}
    builder = ResponseBuilder(head, turn.prompt)
    made = _Made(state, request, items, builder)
    if request.stream:
        return await turn.stream(http, made)
    async with aclosing(turn.steps(http)) as steps:
        async for _, deltas, output in steps:
            builder.add(deltas, output)
    made.finish()
    return json_response(builder.response)


async def count_input_tokens(state: ServerState, http: Request) -> ASGIApp:
    """POST /v1/responses/input_tokens."""
    request = await generate.read(state, http, RESPONSES)
    n = await count_tokens(state, _chat(state, request)[1])
    return json_response({"object": "response.input_tokens", "input_tokens": n})


async def retrieve_response(state: ServerState, http: Request) -> Response:
    stored = state.responses.get(http.path_params["id"])
    return Response(stored.response, media_type="application/json; charset=utf-8")


async def delete_response(state: ServerState, http: Request) -> Response:
    id = http.path_params["id"]
    state.responses.delete(id)
    return json_response({"id": id, "object": "response", "deleted": True})


async def list_input_items(state: ServerState, http: Request) -> Response:
    items = msgspec.json.decode(state.responses.get(http.path_params["id"]).items)
    data = [{"type": "message", "id": f"item_{i}", **item} for i, item in enumerate(items)]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return json_response({"object": "list", "data": data, "has_more": False, **ends})


def _chat(state: ServerState, request: ResponsesRequest) -> tuple[list[Any], ChatRequest]:
    """The items that are new with this request, and all of the conversation."""
    items = input_items(request)
    previous = request.previous_response_id
    history = [] if previous is None else state.responses.history(previous)
    return items, chat_request(request, items, history)


def _echo(state: ServerState, request: ResponsesRequest, turn: ChatTurn) -> dict[str, Any]:
    """The members of a response that say what was asked for, in full: strict clients want each of them."""
    sampling = turn.submits[0].sampling
    text, reasoning = request.text, request.reasoning
    return {
        "object": "response",
        "created_at": int(state.now()),
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": reasoning and reasoning.effort, "summary": None},
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": sampling.temperature,
        "text": {"format": (text and text.format) or {"type": "text"}},
        "tool_choice": "auto" if request.tool_choice is None else request.tool_choice,
        "tools": [{"type": "function", **msgspec.structs.asdict(tool)} for tool in functions(request)],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "user": request.user,
    }


class _Made:
    """A response in the making: its stream, and its place in the store once it is whole."""

    def __init__(
        self, state: ServerState, request: ResponsesRequest, items: Sequence[Any], builder: ResponseBuilder
    ) -> None:
        self._state, self._request, self._items, self._builder = state, request, items, builder
        self._begun = False

    def add(self, _index: int, deltas: list[Delta], output: Output) -> bytes:
        return named_frames(self._begin() + self._builder.add(deltas, output))

    def last(self) -> bytes:
        return named_frames(self.finish())

    def failed(self, error: CorralError) -> bytes:
        return named_frames(self._begin() + self._builder.fail(error))

    def finish(self) -> list[Event]:
        events = self._builder.end(self._state.now())
        if self._request.store is not False:
            response = self._builder.response
            self._state.responses.put(response, self._items, self._request.previous_response_id)
        return events

    def _begin(self) -> list[Event]:
        begun, self._begun = self._begun, True
        return [] if begun else self._builder.begin()
