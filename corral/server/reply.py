"""What has been generated for one choice of a response, and the numbers about it."""

from __future__ import annotations

import math
import secrets
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.engine.messages import Output, Timings, TokenInfo, TopToken

LOWEST = -3.4028234663852886e38
"""The float32 that stands for the logarithm of zero, since JSON has no infinity."""

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """As "chatcmpl-" and 32 random characters."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(32))


@dataclass
class Reply:
    """The outputs of one generation, added up. `infos` wait to be sent when streaming."""

    text: list[str] = field(default_factory=list)
    infos: list[TokenInfo] = field(default_factory=list)
    prompt_infos: list[TokenInfo] = field(default_factory=list)
    """The same of the prompt's tokens, where they were asked for."""
    tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    timings: Timings = Timings()  # noqa: RUF009  (frozen)
    last: Output | None = None
    """The newest output: with a finish_reason, it says why the generation ended."""
    taken: int = 0
    """Bytes of the tokens whose infos were taken."""

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    def add(self, output: Output) -> None:
        self.text.append(output.text)
        self.infos += output.infos
        self.prompt_infos += output.prompt_infos
        self.tokens += output.tokens
        self.last = output
        if output.finish_reason is not None:
            self.finish_reason = output.finish_reason
        if output.timings is not None:
            self.timings = output.timings
        if output.stop_type == "word" and self.infos:
            self._drop_stop_word()

    def take_infos(self) -> list[TokenInfo]:
        infos, self.infos = self.infos, []
        self.taken += sum(len(i.piece) for i in infos)
        return infos

    def take_prompt_infos(self) -> list[TokenInfo]:
        infos, self.prompt_infos = self.prompt_infos, []
        return infos

    def _drop_stop_word(self) -> None:
        """Forget the tokens of which no byte is in the text."""
        shown = len("".join(self.text).encode())
        while self.infos and self.taken + sum(len(i.piece) for i in self.infos[:-1]) >= shown:
            self.infos.pop()


def usage(prompts: Sequence[Sequence[int]], replies: Iterable[Reply]) -> dict[str, Any]:
    """Tokens of the prompts, each counted once however many choices it has, and of all replies."""
    replies = list(replies)
    prompt = sum(map(len, prompts))
    completion = sum(r.n_tokens for r in replies)
    cached = max((r.timings.cache_n for r in replies), default=0) if len(prompts) == 1 else 0
    if len(prompts) > 1:
        cached = min(prompt, sum(r.timings.cache_n for r in replies))
    return {
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def timings(t: Timings) -> dict[str, Any]:
    """llama-server's `timings`. The first token belongs to the prompt: decoding counts one fewer."""
    decoded = max(0, t.predicted_n - 1)
    return {
        "cache_n": t.cache_n,
        "prompt_n": t.prompt_n,
        "prompt_ms": t.prompt_ms,
        "prompt_per_token_ms": _ratio(t.prompt_ms, t.prompt_n),
        "prompt_per_second": _ratio(1000 * t.prompt_n, t.prompt_ms),
        "predicted_n": t.predicted_n,
        "predicted_ms": t.predicted_ms,
        "predicted_per_token_ms": _ratio(t.predicted_ms, decoded),
        "predicted_per_second": _ratio(1000 * decoded, t.predicted_ms),
        **({"draft_n": t.draft_n, "draft_n_accepted": t.draft_n_accepted} if t.draft_n else {}),
    }


def _ratio(a: float, b: float) -> float:
    return a / b if a > 0 and b > 0 else 0.0


def logprobs(infos: Iterable[TokenInfo], most: int | None = None) -> dict[str, Any]:
    """OpenAI's `logprobs` of a chat choice, with up to `most` alternatives."""
    return {"content": token_probs(infos, most)}


def token_probs(infos: Iterable[TokenInfo], most: int | None = None) -> list[dict[str, Any]]:
    """Each token with the likeliest alternatives; what the chain has left as probabilities, no logarithms."""
    return [
        {**_prob(i), "top_probs": [_prob(t) for t in i.top[:most]]}
        if i.post_sampling
        else {**_logprob(i), "top_logprobs": [_logprob(t) for t in i.top[:most]]}
        for i in infos
    ]


def logprob(info: TokenInfo | TopToken) -> float:
    """The logarithm of the probability, as JSON can say it."""
    return max(info.logprob, LOWEST)


def _logprob(info: TokenInfo | TopToken) -> dict[str, Any]:
    return {**_token(info), "logprob": logprob(info)}


def _prob(info: TokenInfo | TopToken) -> dict[str, Any]:
    return {**_token(info), "prob": math.exp(info.logprob)}


def _token(info: TokenInfo | TopToken) -> dict[str, Any]:
    return {"id": info.id, "token": info.piece.decode("utf-8", "replace"), "bytes": list(info.piece)}
