"""llama-server's own form of a completion, streamed and whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from corral.engine.messages import Output, Ready, Submit
from corral.server.generation_settings import generation_settings
from corral.server.reply import Reply, timings, token_probs
from corral.server.schema import GenerateRequest
from corral.server.sse import frame
from corral.server.state import LoadedModel


class NativeReplies:
    """The choices of one request. `event` renders what is new of one, `whole` how it ended."""

    def __init__(
        self, model: LoadedModel, ready: Ready, request: GenerateRequest, submits: Sequence[Submit]
    ) -> None:
        self._model, self._ready, self._request, self._submits = model, ready, request, submits
        self.replies = [Reply() for _ in submits]
        self._sent_tokens = [0] * len(submits)

    def whole(self, index: int, reply: Reply, *, streamed: bool = False) -> dict[str, Any]:
        """The object about a finished choice; when all of its text was streamed, without that."""
        submit, end = self._submits[index], reply.last
        assert end is not None
        text = "".join(reply.text)
        eog = self._model.tokenizer.eog_ids
        settings = generation_settings(submit, self._ready, stream=streamed, seed=end.seed, eog=eog)
        value: dict[str, Any] = {
            "index": index,
            "content": "" if streamed else text,
            "tokens": list(reply.tokens) if self._request.return_tokens and not streamed else [],
            "id_slot": end.id_slot,
            "stop": True,
            "model": self._model.info.id,
            "tokens_predicted": reply.n_tokens,
            "tokens_evaluated": len(submit.prompt),
            "generation_settings": settings,
            "prompt": self._model.tokenizer.decode(submit.prompt, special=True).decode("utf-8", "replace"),
            "has_new_line": "\n" in text,
            "truncated": end.truncated,
            "stop_type": end.stop_type,
            "stopping_word": end.stopping_word,
            # the last token was sampled, but never computed
            "tokens_cached": len(submit.prompt) + max(0, reply.n_tokens - 1),
            "timings": timings(reply.timings),
        }
        if reply.infos and not streamed:
            value["completion_probabilities"] = token_probs(reply.infos)
        return value

    def selected(self, index: int, reply: Reply, *, streamed: bool = False) -> dict[str, Any]:
        """`whole`, but only the fields that the request wants."""
        value = self.whole(index, reply, streamed=streamed)
        wanted = self._request.response_fields
        return _at_paths(value, wanted) if wanted else value

    def event(self, index: int, output: Output) -> bytes:
        """The events for one output; the last one is the whole object without the text."""
        reply = self.replies[index]
        reply.add(output)
        events = b""
        if output.text or output.progress or (output.finish_reason and self._unsent(index)):
            events += frame(self._part(index, output))
        if output.finish_reason is not None:
            events += frame(self.selected(index, reply, streamed=True))
        return events

    def _unsent(self, index: int) -> bool:
        """Whether there are tokens without text that the client asked to see."""
        reply = self.replies[index]
        return bool(reply.infos or (self._request.return_tokens and self._tokens(index)))

    def _tokens(self, index: int) -> list[int]:
        return self.replies[index].tokens[self._sent_tokens[index] :]

    def _part(self, index: int, output: Output) -> dict[str, Any]:
        reply = self.replies[index]
        value: dict[str, Any] = {
            "index": index,
            "content": output.text,
            "tokens": self._tokens(index),
            "stop": False,
            "id_slot": output.id_slot,
            "tokens_predicted": reply.n_tokens,
            "tokens_evaluated": len(self._submits[index].prompt),
        }
        self._sent_tokens[index] = reply.n_tokens
        value |= observed(output, bool(self._request.timings_per_token))
        if reply.infos:
            value["completion_probabilities"] = token_probs(reply.take_infos())
        return value


def observed(output: Output, last: bool = False) -> dict[str, Any]:
    """What a part of a stream says of the work so far: members of `return_progress`, `timings_per_token`.

    `last`: the timings that every last output has were asked for in each part.
    """
    members: dict[str, Any] = {}
    if output.timings is not None and (last or output.finish_reason is None):
        members["timings"] = timings(output.timings)
    if output.progress is not None:
        members["prompt_progress"] = msgspec.structs.asdict(output.progress)
    return members


def _at_paths(value: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """{path: value there}; a path goes down objects at each slash. What is not there is left out."""
    found: dict[str, Any] = {}
    for path in paths:
        at: Any = value
        for key in path.split("/"):
            if not isinstance(at, dict) or key not in at:
                break
            at = at[key]
        else:
            found[path] = at
    return found
