"""What the handlers share. `build_app` gives it to each of them; nothing here is global."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from corral import __version__
from corral.chat.prompt import ChatPrompter
from corral.config import ServerConfig
from corral.engine.messages import Output, Ready, SlotAction, SlotResult, Status, Submit
from corral.errors import NotSupported, Unavailable
from corral.server.observer import Observer
from corral.server.response_store import ResponseStore
from corral.system import budget
from corral.tokenizer.special_ids import SpecialIds

BUILD = "b1-corral-" + __version__
"""`system_fingerprint` and build_info: clients expect a 'b' and a number first."""


class Engine(Protocol):
    """What the server asks of the engine (`corral.engine.client.EngineClient`, or a fake in tests)."""

    @property
    def status(self) -> Status: ...

    @property
    def restarts(self) -> int:
        """How often it was started anew."""
        ...

    @property
    def pid(self) -> int | None:
        """Its process, if it has one of its own."""
        ...

    def generate(self, submit: Submit, /) -> AsyncGenerator[Output, None]:
        """Outputs until one has a finish_reason. Closing the generator cancels the request."""
        ...


class WholeEngine(Engine, Protocol):
    """An engine that has slots, too; those that only watch a generation pass them by."""

    async def act(self, action: SlotAction, /) -> SlotResult:
        """Save, restore or erase what the cache has of a slot."""
        ...


class Tokenizer(Protocol):
    """What the server asks of a tokenizer."""

    @property
    def bos_id(self) -> int | None: ...

    @property
    def add_bos(self) -> bool: ...

    @property
    def add_eos(self) -> bool: ...

    @property
    def add_sep(self) -> bool: ...

    @property
    def special(self) -> SpecialIds: ...

    @property
    def eog_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        ...

    @property
    def longest(self) -> int:
        """Most characters that one token can stand for."""
        ...

    def encode(self, text: str, *, add_special: bool = ..., parse_special: bool = ...) -> list[int]: ...

    def is_control(self, id: int) -> bool: ...

    def decode(self, ids: Sequence[int], *, special: bool = ...) -> bytes: ...


@dataclass(frozen=True)
class ModelInfo:
    """Facts about the served model that don't depend on the engine."""

    id: str
    aliases: tuple[str, ...]
    path: str
    n_vocab: int
    meta: Mapping[str, Any]
    """`meta` of /v1/models but for `n_ctx`, which the engine decides."""
    arch: str = "unknown"
    """`general.architecture` of the file."""
    created: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True)
class LoadedModel:
    """A model that can take requests."""

    info: ModelInfo
    tokenizer: Tokenizer
    prompter: ChatPrompter
    rerank_template: str | None = None
    """A prompt to rank, with `{query}` and `{document}` in it; None: special tokens hold the two together."""


@dataclass
class ServerState:
    """Requests are served once `model`, with tokenizer and template, is set and the engine is ready."""

    config: ServerConfig
    engine: WholeEngine
    model: LoadedModel | None = None
    draining: bool = False
    """Asked to stop: running requests finish, new ones are turned away."""
    ping_seconds: float = 30.0
    """Silence of a stream after which a comment keeps the connection open."""
    max_body: int = 64 << 20
    """Bytes of a request's body."""
    memory_left: Callable[[], int | None] = budget.memory_left
    """Bytes that the container has left; None if nobody knows."""
    responses: ResponseStore = field(default_factory=ResponseStore)
    now: Callable[[], float] = time.time
    observer: Observer = field(default_factory=Observer)

    def __post_init__(self) -> None:
        self.engine = self.observer.watch(self.engine)

    def refusal(self) -> Unavailable | None:
        """Why no request can be served at the moment."""
        if self.draining:
            return Unavailable("The server is shutting down")
        status = self.engine.status
        if status.state == "failed":
            return Unavailable(status.message or "The engine failed")
        if self.model is None or status.state != "ready":
            return Unavailable("Loading model")
        return None

    def expect_to_generate(self) -> None:
        """Raises NotSupported if the engine makes embeddings, Unavailable."""
        _, ready = self.loaded()
        if ready.encoder:
            raise NotSupported("This server does not support completions: its model is an encoder")
        if ready.pooling:
            raise NotSupported("This server does not support completions. Start it without `--embeddings`")

    def loaded(self) -> tuple[LoadedModel, Ready]:
        """Raises Unavailable."""
        refusal = self.refusal()
        ready = self.engine.status.ready
        if refusal is not None or self.model is None or ready is None:
            raise refusal or Unavailable("Loading model")
        return self.model, ready
