"""Ends reasoning that has used up its tokens: the generation is cut off and goes on behind the end marker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from corral.chat.reply_format import ScriptParser
from corral.engine.messages import Constraint, Output, Status, Submit, Timings
from corral.errors import ContextSizeError
from corral.server.state import Engine, Tokenizer


@dataclass(frozen=True)
class ThinkingBudget:
    """An engine for one request. What it gives is one generation, with the words it was made to say.

    The prompt and the reasoning are submitted again with the `ending` behind them; their keys and values are
    still in the cache.
    """

    engine: Engine
    tokenizer: Tokenizer
    parser: Callable[[], ScriptParser]
    """Makes a reader of the reply, to know when it reasons."""
    budget: int
    """Tokens."""
    ending: str
    constraint: Constraint | None = None
    """What the text behind the ending has to be."""

    @property
    def status(self) -> Status:
        return self.engine.status

    @property
    def restarts(self) -> int:
        return self.engine.restarts

    @property
    def pid(self) -> int | None:
        return self.engine.pid

    async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
        parser, spent, text = self.parser(), 0, ""
        tokens: list[int] = []
        timings = Timings()
        asked = submit.timings_per_token
        async with aclosing(
            self.engine.generate(msgspec.structs.replace(submit, timings_per_token=True))
        ) as outputs:
            async for output in outputs:
                tokens += output.tokens
                text += output.text
                timings = output.timings or timings
                parser.feed(output.text)
                spent += len(output.tokens) if parser.reasons else 0
                over = parser.reasons and spent >= self.budget
                if output.finish_reason is not None or not over:
                    yield output if asked or output.finish_reason else _without_timings(output)
                if output.finish_reason is not None:
                    return
                if over:
                    break
        # what the engine still held back belongs to the reasoning
        decoded = self.tokenizer.decode(tokens, special=submit.special).decode("utf-8", "replace")
        held = decoded[len(text) :] if decoded.startswith(text) else ""
        ids = self.tokenizer.encode(self.ending, add_special=False, parse_special=True)
        yield msgspec.structs.replace(
            output, text=output.text + held + self.ending, tokens=[*output.tokens, *ids],
            timings=timings if asked else None,
        )  # fmt: skip
        generated = len(tokens) + len(ids)
        left = submit.max_tokens if submit.max_tokens < 0 else max(0, submit.max_tokens - generated)
        rest = msgspec.structs.replace(
            submit, id=f"{submit.id}-behind-reasoning", prompt=[*submit.prompt, *tokens, *ids],
            max_tokens=left, constraint=self.constraint, progress=False,
        )  # fmt: skip
        async with aclosing(self.engine.generate(rest)) as outputs:
            async for output in outputs:
                if output.error is not None and output.error.type == ContextSizeError.type:
                    output = Output(id=submit.id, finish_reason="length", stop_type="limit")
                own = output.timings or (Timings() if output.finish_reason else None)
                both = own and _added(timings, own, len(ids))
                yield msgspec.structs.replace(output, id=submit.id, timings=both)


def _without_timings(output: Output) -> Output:
    return output if output.timings is None else msgspec.structs.replace(output, timings=None)


def _added(first: Timings, second: Timings, ending: int) -> Timings:
    """The numbers of both halves as those of one generation, whose prompt is the first one's."""
    return msgspec.structs.replace(
        first,
        predicted_n=first.predicted_n + ending + second.predicted_n,
        predicted_ms=first.predicted_ms + second.queue_ms + second.prompt_ms + second.predicted_ms,
        draft_n=first.draft_n + second.draft_n,
        draft_n_accepted=first.draft_n_accepted + second.draft_n_accepted,
    )
