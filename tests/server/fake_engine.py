"""An engine and a tokenizer of a few lines each, and a state of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from corral.chat.builtin import CHATML
from corral.chat.prompt import ChatPrompter
from corral.chat.template import TemplateSource
from corral.config import ServerConfig
from corral.engine.messages import (
    Output,
    Ready,
    SlotAction,
    SlotResult,
    Status,
    Submit,
    Timings,
    TokenInfo,
    TopToken,
)
from corral.server.app import build_app
from corral.server.state import LoadedModel, ModelInfo, ServerState
from corral.tokenizer.special_ids import SpecialIds

READY = Ready(
    n_ctx=256,
    kv_tokens=1024,
    parallel=4,
    threads=2,
    isa="avx2",
    executor="fake",
    weights_bytes=1,
    kv_bytes=1,
    load_ms=1,
)


HALVES = [TopToken(7, b"\xc3", -1.0), TopToken(8, b"\xa9", -2.0)]


class FakeEngine:
    """Says the given words, one an output. An Output among them is given as it is, an exception is raised.

    `hold` keeps it silent before word number `hold`.
    """

    restarts = 0
    pid: int | None = None

    def __init__(
        self, words: Sequence[str | Output | Exception] = ("Hel", "lo"), hold: int | None = None
    ) -> None:
        self.status = Status(state="ready", ready=READY)
        self.words, self.hold = words, hold
        self.submits: list[Submit] = []
        self.actions: list[SlotAction] = []
        self.result = SlotResult(id="")
        self.cancelled: list[str] = []

    async def act(self, action: SlotAction) -> SlotResult:
        self.actions.append(action)
        return msgspec.structs.replace(self.result, id=action.id)

    async def generate(self, submit: Submit) -> AsyncGenerator[Output, None]:
        self.submits.append(submit)
        done = False
        try:
            if submit.prompt_probs:  # two outputs, and half a character among the alternatives
                tokens = [TokenInfo(t, chr(t).encode(), -float(t), HALVES) for t in submit.prompt[1:]]
                for infos in (tokens[:1], tokens[1:]):
                    yield Output(id=submit.id, prompt_infos=infos)
            for i, word in enumerate(self.words):
                await asyncio.sleep(0)
                if i == self.hold:
                    await asyncio.sleep(3600)
                if isinstance(word, Exception):
                    raise word
                if isinstance(word, Output):
                    done = word.finish_reason is not None
                    yield word
                    if done:
                        return
                    continue
                piece = word.encode()
                info = TokenInfo(
                    i, piece, -0.5, [TopToken(i, piece, -0.5), TopToken(99, b"\xff", float("-inf"))]
                )
                yield Output(
                    id=submit.id, text=word, tokens=[i], infos=[info] if submit.sampling.n_probs else []
                )
            n = len(self.words)
            done = True
            yield Output(
                id=submit.id,
                finish_reason="stop",
                stop_type="eos",
                timings=Timings(
                    queue_ms=3.0,
                    cache_n=1,
                    prompt_n=len(submit.prompt) - 1,
                    prompt_ms=2.0,
                    predicted_n=n,
                    predicted_ms=4.0,
                ),
            )
        finally:
            if not done:
                self.cancelled.append(submit.id)


class FakeTokenizer:
    """A token a character, and 1 to begin with."""

    bos_id: int | None = 1
    add_bos = True
    add_eos = False
    add_sep = False
    longest = 4
    special = SpecialIds(bos=1, eos=2)
    eog_ids = frozenset((2, 0))

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        return [1] * add_special + [ord(c) % 1000 for c in text]

    def is_control(self, id: int) -> bool:
        return id < 3

    def decode(self, ids: Sequence[int], *, special: bool = False) -> bytes:
        return b"".join((b"<s>" if special else b"") if i == 1 else chr(i).encode() for i in ids)


def fake_state(engine: Any = None, template: str = CHATML, **config: Any) -> ServerState:
    info = ModelInfo(
        id="tiny", aliases=("tiny", "small"), path="/m/tiny.gguf", n_vocab=1000, meta={"n_vocab": 1000}
    )
    prompter = ChatPrompter.of(
        TemplateSource(template, "test"), bos_token="<s>", eos_token="</s>", add_bos=True
    )
    return ServerState(
        config=ServerConfig(**config),
        engine=engine or FakeEngine(),
        model=LoadedModel(info, FakeTokenizer(), prompter),
    )


@asynccontextmanager
async def connect(state: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app over `state`, without a port."""
    transport = httpx.ASGITransport(build_app(state))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
