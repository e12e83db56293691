"""Anthropic's message and the events by which it grows: one machine, whether they are sent or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from corral.chat.deltas import Content, Delta, Reasoning, ToolArguments, ToolCall
from corral.engine.messages import Output
from corral.server.reply import Reply

Event = dict[str, Any]


class MessageBuilder:
    """Makes a message of deltas. `message` is the object as it is now; each method returns its events.

    `n_prompt`: tokens of the prompt. `stops`: the request's stop_sequences. The reasoning is dropped unless
    `thinking`.
    """

    def __init__(self, id: str, model: str, n_prompt: int, stops: Sequence[str], thinking: bool) -> None:
        self.message: dict[str, Any] = {
            "id": id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        self._n_prompt, self._stops, self._thinking = n_prompt, stops, thinking
        self._reply = Reply()
        self._word = ""
        self._block: dict[str, Any] | None = None  # the one that grows
        self._text: list[str] = []  # what it will have
        self.message["usage"] = self._usage()

    def begin(self) -> list[Event]:
        return [{"type": "message_start", "message": {**self.message, "content": []}}]

    def add(self, deltas: Sequence[Delta], output: Output) -> list[Event]:
        """What one step of the generation added."""
        self._reply.add(output)
        if output.stop_type == "word":
            self._word = output.stopping_word
        events: list[Event] = []
        for delta in deltas:
            match delta:
                case Content(text):
                    events += self._open({"type": "text", "text": ""})
                    events.append(self._grow(text, {"type": "text_delta", "text": text}))
                case Reasoning(text):
                    if self._thinking:
                        events += self._open({"type": "thinking", "thinking": "", "signature": ""})
                        events.append(self._grow(text, {"type": "thinking_delta", "thinking": text}))
                case ToolCall(id=id, name=name):
                    events += self._open({"type": "tool_use", "id": id, "name": name, "input": {}})
                case ToolArguments(text=text):
                    events.append(self._grow(text, {"type": "input_json_delta", "partial_json": text}))
        return events

    def end(self) -> list[Event]:
        """After the last step."""
        events = self._close()
        reason, word = "end_turn", None
        if self._reply.finish_reason == "length":
            reason = "max_tokens"
        elif any(block["type"] == "tool_use" for block in self.message["content"]):
            reason = "tool_use"
        elif self._word in self._stops:
            reason, word = "stop_sequence", self._word
        self.message |= {"stop_reason": reason, "stop_sequence": word, "usage": self._usage()}
        delta = {"stop_reason": reason, "stop_sequence": word}
        return [
            *events,
            {"type": "message_delta", "delta": delta, "usage": self.message["usage"]},
            {"type": "message_stop"},
        ]

    def _open(self, block: dict[str, Any]) -> list[Event]:
        """Begins a block; goes on in the one there is when it is of the same kind, but for calls."""
        if self._block is not None and self._block["type"] == block["type"] != "tool_use":
            return []
        events = self._close()
        self._block, self._text = block, []
        index = len(self.message["content"])
        return [*events, {"type": "content_block_start", "index": index, "content_block": {**block}}]

    def _grow(self, text: str, delta: dict[str, Any]) -> Event:
        self._text.append(text)
        return {"type": "content_block_delta", "index": len(self.message["content"]), "delta": delta}

    def _close(self) -> list[Event]:
        block, self._block = self._block, None
        if block is None:
            return []
        content, text = self.message["content"], "".join(self._text)
        index, events = len(content), []
        if block["type"] == "thinking":
            signature = {"type": "signature_delta", "signature": ""}
            events.append({"type": "content_block_delta", "index": index, "delta": signature})
        if block["type"] == "tool_use":
            content.append(_call(block, text))
        else:
            content.append({**block, block["type"]: text})
        return [*events, {"type": "content_block_stop", "index": index}]

    def _usage(self) -> dict[str, Any]:
        cached = self._reply.timings.cache_n
        return {
            "input_tokens": self._n_prompt - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": self._reply.n_tokens,
        }


def _call(block: dict[str, Any], arguments: str) -> dict[str, Any]:
    """The block with its arguments. A call that was cut off has none to speak of: it is given as text."""
    try:
        input = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return {"type": "text", "text": f"{block['name']}({arguments}"}
    return {**block, "input": input}
