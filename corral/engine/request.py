"""One request inside the engine."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from corral.engine.draft import NgramDraft
from corral.engine.messages import Submit, Timings
from corral.engine.output import TextStream
from corral.program.batch import BLOCK_TOKENS
from corral.sampling.chain import Chain


class State(enum.Enum):
    WAITING = "waiting"
    """Holds no blocks. A preempted request waits again, with the tokens it has generated."""
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Request:
    """A sequence of tokens that grows, and how far the KV cache has caught up with it.

        tokens        [0, num_prompt) prompt          [num_prompt, num_tokens) generated
        KV cache      [0, num_computed_tokens) done   [num_computed_tokens, num_tokens) todo
        block_table   [0, len(block_table) * B) has a place, and covers all that is done

    A sequence with nothing todo gets its next token from the logits of its last one. A context shift takes
    tokens out of the middle, and what is behind them is todo again.
    """

    submit: Submit
    arrival: int
    """Rising number of submission: the age of the request."""
    max_new: int
    """Generated tokens after which it ends."""
    chain: Chain
    text: TextStream
    tokens: list[int]
    num_computed_tokens: int = 0
    block_table: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    """Of its full blocks, from the beginning on (`prefix.py`)."""
    num_cached: int = 0
    """Prompt tokens that were found in the cache instead of being computed."""
    slot: int = -1
    """Where it runs, or ran last."""
    state: State = State.WAITING
    preemptions: int = 0
    draft: NgramDraft | None = None
    """Guesses its next tokens."""
    num_discarded: int = 0
    """Tokens that context shifts took out."""
    has_line_break: bool = False
    """In what was generated."""
    num_told: int = 1
    """Prompt tokens whose probabilities were given; nothing is before the first, so it has none."""

    # Seconds on the engine's clock; None until it happened.
    submitted: float = 0.0
    started: float | None = None
    first_token: float | None = None
    last_token: float | None = None

    @property
    def id(self) -> str:
        return self.submit.id

    @property
    def num_prompt(self) -> int:
        return len(self.submit.prompt)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) + self.num_discarded - len(self.submit.prompt)

    @property
    def num_prompt_done(self) -> int:
        """Prompt tokens in the KV cache, or that were there before a preemption."""
        return self.num_prompt if self.num_generated else min(self.num_computed_tokens, self.num_prompt)

    @property
    def num_todo(self) -> int:
        return len(self.tokens) - self.num_computed_tokens

    @property
    def shares_prefix(self) -> bool:
        """Whether it may begin behind what others have computed."""
        return self.submit.cache_prompt and not self.submit.prompt_probs

    def to_tell(self, num_new: int) -> range:
        """Of the next `num_new` tokens, by place, those whose logits say how likely a prompt token was."""
        if not self.submit.prompt_probs:
            return range(0)
        start = self.num_computed_tokens
        return range(max(start, self.num_told - 1), min(start + num_new, self.num_prompt - 1))

    def with_rows(self, num_new: int, rows: int) -> int:
        """As many of the next `num_new` tokens as need no more than `rows` rows of logits `to_tell`."""
        places = self.to_tell(num_new)
        return num_new if len(places) <= rows else places.start + rows - self.num_computed_tokens

    def blocks_lacking(self, num_tokens: int) -> int:
        """Blocks to add to the block table before it has a place for `num_tokens` tokens."""
        return max(0, -(-num_tokens // BLOCK_TOKENS) - len(self.block_table))

    def timings(self, now: float) -> Timings:
        """The time so far. As in llama-server, the first token is part of the prompt's time."""
        started = now if self.started is None else self.started
        first = now if self.first_token is None else self.first_token
        last = first if self.last_token is None else self.last_token
        return Timings(
            queue_ms=1e3 * (started - self.submitted),
            cache_n=self.num_cached,
            prompt_n=self.num_prompt - self.num_cached,
            prompt_ms=1e3 * (first - started),
            predicted_n=self.num_generated,
            predicted_ms=1e3 * (last - first),
            draft_n=self.draft.guessed if self.draft else 0,
            draft_n_accepted=self.draft.accepted if self.draft else 0,
        )

    def check(self) -> None:
        """Assert the intervals of the docstring."""
        assert 0 <= self.num_computed_tokens <= self.num_tokens, f"{self.id}: computed past the end"
        assert self.num_computed_tokens <= len(self.block_table) * BLOCK_TOKENS, (
            f"{self.id}: computed without a place"
        )
        assert self.state is State.RUNNING or not self.block_table, (
            f"{self.id}: {self.state.value} but holds blocks"
        )
