"""The answers of Ollama's API: one object, or lines of them as the text comes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from corral.chat.deltas import Content, Delta, Reasoning
from corral.engine.messages import Output
from corral.errors import CorralError
from corral.server.chat_reply import Call, ChatReply
from corral.server.errors import ollama_envelope

Form = Literal["chat", "generate"]


class OllamaReply:
    """One answer: `whole`, or a Renderer of its lines. `n_prompt`: tokens of the prompt."""

    def __init__(self, form: Form, model: str, n_prompt: int, now: float) -> None:
        self._form, self._n_prompt = form, n_prompt
        self._head = {"model": model, "created_at": timestamp(now)}
        self._reply = ChatReply()

    def add(self, _index: int, deltas: list[Delta], output: Output) -> bytes:
        self._reply.add_step(deltas, output)
        lines = [
            self._line(content=d.text) if isinstance(d, Content) else self._line(thinking=d.text)
            for d in deltas
            if isinstance(d, (Content, Reasoning))
        ]
        if output.finish_reason is not None and self._reply.calls:
            lines.append(self._line(calls=self._reply.calls))  # a call is only given whole
        return b"".join(lines)

    def last(self) -> bytes:
        return _encoded({**self._head, **self._body(), **self._end(self._reply)})

    def failed(self, error: CorralError) -> bytes:
        return _encoded(ollama_envelope(error))

    def whole(self, reply: ChatReply) -> dict[str, Any]:
        body = self._body("".join(reply.content), "".join(reply.reasoning), reply.calls)
        return {**self._head, **body, **self._end(reply)}

    def loaded(self) -> dict[str, Any]:
        """To a request without a prompt, by which clients have a model loaded."""
        return {**self._head, **self._body(), "done": True, "done_reason": "load"}

    def _line(self, content: str = "", thinking: str = "", calls: list[Call] | None = None) -> bytes:
        return _encoded({**self._head, **self._body(content, thinking, calls or []), "done": False})

    def _body(self, content: str = "", thinking: str = "", calls: list[Call] | None = None) -> dict[str, Any]:
        made: dict[str, Any] = {"thinking": thinking} if thinking else {}
        called = []
        for n, call in enumerate(calls or []):
            arguments = _arguments(call)
            if arguments is None:  # cut off: what there is of it is text
                content += f"{call.name}({''.join(call.arguments)}"
            else:
                called.append({"function": {"index": n, "name": call.name, "arguments": arguments}})
        if self._form == "generate":
            return {"response": content, **made}
        if called:
            made["tool_calls"] = called
        return {"message": {"role": "assistant", "content": content, **made}}

    def _end(self, reply: ChatReply) -> dict[str, Any]:
        """Times are in nanoseconds."""
        t = reply.timings
        prompt, text = int(1e6 * t.prompt_ms), int(1e6 * t.predicted_ms)
        return {
            "done": True,
            "done_reason": "length" if reply.finish_reason == "length" else "stop",
            "total_duration": int(1e6 * t.queue_ms) + prompt + text,
            "load_duration": 0,
            "prompt_eval_count": self._n_prompt,
            "prompt_eval_duration": prompt,
            "eval_count": reply.n_tokens,
            "eval_duration": text,
        }


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _arguments(call: Call) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode("".join(call.arguments) or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return None


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"
