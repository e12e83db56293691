"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from corral.chat.deltas import Content, Delta, Reasoning, ToolArguments, ToolCall
from corral.engine.messages import Output
from corral.errors import CorralError
from corral.server import generate
from corral.server.chat_reply import Call, ChatReply
from corral.server.chat_turn import ChatTurn
from corral.server.errors import json_response
from corral.server.native_reply import observed
from corral.server.reply import logprobs, new_id, timings, usage
from corral.server.schema import CHAT
from corral.server.sse import DONE, failure, frame
from corral.server.state import BUILD, ServerState


async def chat_completions(state: ServerState, http: Request) -> ASGIApp:
    request = await generate.read(state, http, CHAT)
    model, _ = state.loaded()
    id = new_id("chatcmpl-")
    turn = await ChatTurn.of(state, http, request, id)
    head = {
        "created": int(state.now()),
        "id": id,
        "model": model.info.id,
        "system_fingerprint": BUILD,
    }
    if request.stream:
        return await turn.stream(http, _Chunks(head, turn, request.include_usage()))
    replies = await turn.collect(http)
    verbose = {"__verbose": turn.native.whole(0, replies[0])} if request.verbose else {}
    return json_response(
        {
            "choices": [_choice(i, reply, request.top_logprobs) for i, reply in enumerate(replies)],
            **head,
            "object": "chat.completion",
            "usage": usage([turn.prompt], replies),
            "timings": timings(replies[0].timings),
            **verbose,
        }
    )


def _choice(index: int, reply: ChatReply, top_logprobs: int | None) -> dict[str, Any]:
    text = "".join(reply.content)
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if reply.calls else "")}
    if reply.reasoning:
        message["reasoning_content"] = "".join(reply.reasoning)
    if reply.calls:
        message["tool_calls"] = _tool_calls(reply.calls)
    choice: dict[str, Any] = {"finish_reason": reply.ended_with, "index": index, "message": message}
    if reply.infos:
        choice["logprobs"] = logprobs(reply.infos, top_logprobs)
    return choice


def _tool_calls(calls: Sequence[Call]) -> list[dict[str, Any]]:
    return [
        {"type": "function", "id": c.id, "function": {"name": c.name, "arguments": "".join(c.arguments)}}
        for c in calls
    ]


def _delta(delta: Delta) -> dict[str, Any]:
    match delta:
        case Content(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case ToolCall(index, id, name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}
        case ToolArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


class _Chunks:
    """The events of a stream: who speaks, what is said, why it ended; then the usage if asked for.

    The timings are on the last event before [DONE]. What a client wants to know of the work meanwhile is on
    the last event that an output makes: a report on the prompt makes one of its own, that says who speaks.
    """

    def __init__(self, head: dict[str, Any], turn: ChatTurn, include_usage: bool) -> None:
        self._head = {**head, "object": "chat.completion.chunk"}
        self._turn = turn
        self._replies = [ChatReply() for _ in turn.submits]
        self._spoken: set[int] = set()
        self._include_usage = include_usage

    def add(self, index: int, deltas: list[Delta], output: Output) -> bytes:
        reply = self._replies[index]
        reply.add_step(deltas, output)
        chunks: list[dict[str, Any]] = []
        if index not in self._spoken or output.progress is not None:
            self._spoken.add(index)
            chunks.append(self._chunk(index, {"role": "assistant", "content": None}))
        chunks += [self._chunk(index, _delta(delta), infos=True) for delta in deltas]
        if chunks:
            chunks[-1] |= observed(output, bool(self._turn.request.timings_per_token))
        if reply.finish_reason is not None:
            chunks.append(self._chunk(index, {}, infos=True, end=True))
            if self._turn.request.verbose:
                chunks[-1]["__verbose"] = self._turn.native.whole(index, reply, streamed=True)
        return b"".join(map(frame, chunks))

    def last(self) -> bytes:
        if not self._include_usage:
            return DONE
        numbers = usage([self._turn.prompt], self._replies)
        end = {"choices": [], **self._head, "usage": numbers, "timings": timings(self._replies[0].timings)}
        return frame(end) + DONE

    def failed(self, error: CorralError) -> bytes:
        return failure(error)

    def _chunk(
        self, index: int, delta: dict[str, Any], *, infos: bool = False, end: bool = False
    ) -> dict[str, Any]:
        reply = self._replies[index]
        choice: dict[str, Any] = {
            "finish_reason": reply.ended_with if end else None,
            "index": index,
            "delta": delta,
        }
        if infos and reply.infos:
            choice["logprobs"] = logprobs(reply.take_infos(), self._turn.request.top_logprobs)
        chunk: dict[str, Any] = {"choices": [choice], **self._head}
        if end and not self._include_usage:
            chunk["timings"] = timings(reply.timings)
        return chunk
