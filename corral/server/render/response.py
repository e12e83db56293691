"""The object of /v1/responses and the events by which it grows: one machine, whether they are sent or not.

in_progress -> items, one after the other: reasoning, message, call -> completed, incomplete, failed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from corral.chat.deltas import Content, Delta, Reasoning, ToolArguments, ToolCall
from corral.engine.messages import Output, TokenInfo
from corral.errors import CorralError
from corral.server.native_reply import observed
from corral.server.reply import Reply, logprobs, new_id, timings

Event = dict[str, Any]


@dataclass
class _Item:
    """The item that grows. `delta` and `done` name its events, `key` is where `done` has the whole text."""

    index: int
    id: str
    text: list[str] = field(default_factory=list)
    infos: list[TokenInfo] = field(default_factory=list)

    delta: ClassVar[str]
    done: ClassVar[str]
    key: ClassVar[str] = "text"

    def whole(self) -> str:
        return "".join(self.text)

    def shown(self, status: str) -> dict[str, Any]:
        """As a member of `output`."""
        raise NotImplementedError

    def part(self) -> dict[str, Any] | None:
        """What is in its `content`; None: it has none."""
        return None

    def place(self) -> dict[str, Any]:
        """Says of an event which text it is about."""
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}


class _Message(_Item):
    delta, done = "response.output_text.delta", "response.output_text.done"

    def shown(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self.part()]
        return {
            "type": "message", "id": self.id, "role": "assistant", "status": status, "content": content,
        }  # fmt: skip

    def part(self) -> dict[str, Any]:
        probabilities = logprobs(self.infos)["content"]
        return {
            "type": "output_text", "text": self.whole(), "annotations": [], "logprobs": probabilities,
        }  # fmt: skip


class _Thought(_Item):
    delta, done = "response.reasoning_text.delta", "response.reasoning_text.done"

    def shown(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self.part()]
        return {"type": "reasoning", "id": self.id, "status": status, "summary": [], "content": content}

    def part(self) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": self.whole()}


@dataclass
class _Call(_Item):
    call_id: str = ""
    name: str = ""

    delta: ClassVar[str] = "response.function_call_arguments.delta"
    done: ClassVar[str] = "response.function_call_arguments.done"
    key: ClassVar[str] = "arguments"

    def shown(self, status: str) -> dict[str, Any]:
        return {
            "type": "function_call", "id": self.id, "call_id": self.call_id, "name": self.name,
            "arguments": self.whole(), "status": status,
        }  # fmt: skip

    def place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index}


class ResponseBuilder:
    """Makes a response of deltas. `response` is the object as it is now; each method returns its events.

    `head` has the members that say what was asked for, `prompt` the ids of the prompt.
    """

    def __init__(self, head: dict[str, Any], prompt: Sequence[int]) -> None:
        self.response: dict[str, Any] = {
            **head,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "completed_at": None,
            "output": [],
            "usage": None,
        }
        self._prompt = prompt
        self._reply = Reply()
        self._item: _Item | None = None
        self._reasoning_tokens = 0
        self._sequence_number = 0

    def begin(self) -> list[Event]:
        return [self._whole("response.created"), self._whole("response.in_progress")]

    def add(self, deltas: Sequence[Delta], output: Output) -> list[Event]:
        """What one step of the generation added."""
        self._reply.add(output)
        events: list[Event] = []
        for delta in deltas:
            match delta:
                case Content(text):
                    if not isinstance(self._item, _Message):
                        events += self._open(_Message(self._index(), new_id("msg_")))
                    events += self._grow(text, self._reply.take_infos())
                case Reasoning(text):
                    if not isinstance(self._item, _Thought):
                        events += self._open(_Thought(self._index(), new_id("rs_")))
                    events += self._grow(text)
                case ToolCall(id=id, name=name):
                    call_id = "call_" + id.removeprefix("call_")
                    events += self._open(_Call(self._index(), new_id("fc_"), call_id=call_id, name=name))
                case ToolArguments(text=text):
                    events += self._grow(text)
        if not isinstance(self._item, _Message) and self._item is not None:
            self._reply.take_infos()
        if isinstance(self._item, _Thought):
            self._reasoning_tokens += len(output.tokens)
        if output.progress is not None:
            events.append(self._whole("response.in_progress"))
        if events:
            events[-1] |= observed(output)
        return events

    def end(self, now: float) -> list[Event]:
        """After the last step. `now` is the time, seconds since 1970."""
        cut = self._reply.finish_reason == "length"
        status = "incomplete" if cut else "completed"
        events = self._close(status)
        self.response |= {"status": status, "usage": self._usage()}
        if cut:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self.response["completed_at"] = int(now)
        return [*events, self._whole(f"response.{status}") | {"timings": timings(self._reply.timings)}]

    def fail(self, error: CorralError) -> list[Event]:
        """Instead of the rest."""
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        events = self._close("incomplete")
        self.response |= {"status": "failed", "error": {"code": code, "message": str(error)}}
        return [*events, self._whole("response.failed")]

    def _index(self) -> int:
        return len(self.response["output"]) + (self._item is not None)

    def _open(self, item: _Item) -> list[Event]:
        events = self._close("completed")
        self._item = item
        events.append(
            self._event("response.output_item.added", output_index=item.index, item=item.shown("in_progress"))
        )
        if (part := item.part()) is not None:
            events.append(self._event("response.content_part.added", **item.place(), part=part))
        return events

    def _grow(self, text: str, infos: Sequence[TokenInfo] = ()) -> list[Event]:
        item = self._item
        assert item is not None, "arguments before their call"
        item.text.append(text)
        item.infos += infos
        fields = {"logprobs": logprobs(infos)["content"]} if isinstance(item, _Message) else {}
        return [self._event(item.delta, **item.place(), delta=text, **fields)]

    def _close(self, status: str) -> list[Event]:
        item, self._item = self._item, None
        if item is None:
            return []
        shown, part = item.shown(status), item.part()
        self.response["output"].append(shown)
        fields = {item.key: item.whole()}
        if isinstance(item, _Message):
            fields["logprobs"] = shown["content"][0]["logprobs"]
        if isinstance(item, _Call):
            fields["name"] = item.name
        events = [self._event(item.done, **item.place(), **fields)]
        if part is not None:
            events.append(self._event("response.content_part.done", **item.place(), part=part))
        return [*events, self._event("response.output_item.done", output_index=item.index, item=shown)]

    def _usage(self) -> dict[str, Any]:
        n = len(self._prompt)
        return {
            "input_tokens": n,
            "input_tokens_details": {
                "cached_tokens": self._reply.timings.cache_n, "cache_write_tokens": 0,
            },
            "output_tokens": self._reply.n_tokens,
            "output_tokens_details": {"reasoning_tokens": self._reasoning_tokens},
            "total_tokens": n + self._reply.n_tokens,
        }  # fmt: skip

    def _whole(self, type: str) -> Event:
        """An event with the whole response, as it is at this moment."""
        return self._event(type, response={**self.response, "output": [*self.response["output"]]})

    def _event(self, type: str, **fields: Any) -> Event:
        self._sequence_number += 1
        return {"type": type, "sequence_number": self._sequence_number - 1, **fields}
