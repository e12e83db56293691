"""The sampling chain of one request: a row of logits in, a token out."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from corral.errors import InternalError, RequestError
from corral.sampling.candidates import Candidates
from corral.sampling.constraint import Matcher
from corral.sampling.kernels import Float32
from corral.sampling.logits import Logits
from corral.sampling.params import SamplingParams
from corral.sampling.samplers import LOGIT_BIAS, SAMPLERS, Place, Sampler, leaves_one
from corral.sampling.selectors import Memory, selector

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class LogProbs(NamedTuple):
    """Logarithms of probabilities: of the chosen token, and of the most likely ones."""

    chosen: float
    top: list[tuple[int, float]]
    post_sampling: bool = False
    """They are those that the chain has left, not the model's."""


class Chain:
    """Samples the tokens of one request.

    A token depends on the logits, the tokens before it, the parameters and the seed only: there is no state
    that neighbours or preemption could change. What mirostat and adaptive_p remember is kept by the number of
    tokens that it is for, so that a token may be sampled again.
    """

    def __init__(
        self,
        params: SamplingParams,
        seed: int,
        eog: Collection[int] = (),
        pieces: Sequence[bytes] = (),
        matcher: Matcher | None = None,
        prompt_length: int = 0,
    ) -> None:
        """eog: the tokens that end a generation; pieces: the bytes of each token (DRY needs them).

        matcher: what the text after a prompt of that length has to match.
        """
        if params.ignore_eos and eog:
            banned = dict.fromkeys(eog, -math.inf)
            params = msgspec.structs.replace(params, logit_bias={**params.logit_bias, **banned})
        if params.mirostat:  # it comes after the temperature, and nothing else does
            params = msgspec.structs.replace(params, samplers=("temperature",), dynatemp_range=0.0)
        self._params = params
        self.seed = seed
        self._eog, self._pieces = frozenset(eog), pieces
        self._matcher = matcher
        if matcher:
            matcher.begin(prompt_length)
        self._shifted = 0
        self._other_seed = _mix(seed ^ _GOLDEN)
        self._samplers = plan(params)
        self._selector = selector(params)
        self._memories = {0: self._selector.start(params)}
        self._row: Logits | None = None  # the last one, ...
        self._left: Candidates | None = None  # ... and what the samplers left of it, if it is to be reported

    def sample(self, row: Float32, tokens: Sequence[int]) -> int:
        """The token that follows `tokens` (prompt and generated ones), given its logits [V].

        Raises:
            InternalError: the logits are not finite numbers.
            RequestError: the request has banned every token, or its grammar is too complex.
        """
        length = len(tokens) + self._shifted
        self._row = logits = Logits(row)
        if not logits.all_finite:
            raise InternalError(f"the model's logits for token {length} are not finite numbers")
        if self._matcher is None:
            return self._pick(logits, length, tokens)
        token = self._pick(logits.masked(self._matcher.allowed(length, tokens)), length, tokens)
        self._matcher.accept(token)
        return token

    @property
    def is_complete(self) -> bool:
        """The text is complete: nothing more that its grammar allows could be added."""
        return self._matcher is not None and self._matcher.is_complete

    def shift(self, count: int) -> None:
        """So many tokens were taken out of the sequence: they still count for places in it."""
        self._shifted += count

    def _pick(self, row: Logits, length: int, tokens: Sequence[int]) -> int:
        place = Place(
            self._params,
            tokens,
            self._pieces,
            self._eog,
            uniform(self.seed, length),
            uniform(self._other_seed, length),
        )
        candidates = Candidates(
            row.copy() if self._params.n_probs else row
        )  # to report those before the chain
        for sampler in self._samplers:
            sampler.apply(candidates, place)
            if sampler is LOGIT_BIAS and candidates.largest() == -math.inf:
                return self._last_resort()
        before = self._memory(length)
        token, after = self._selector.select(candidates, place, before)
        self._memories = {length: before, length + 1: after}
        self._left = candidates if self._params.post_sampling_probs else None
        return token

    def _last_resort(self) -> int:
        """Where nothing is left: the end, if the text is complete."""
        if self._matcher is None:
            raise RequestError(
                "logit_bias bans every token of the vocabulary, expected at least one to be left"
            )
        if not self._matcher.is_accepting:
            raise RequestError(
                "logit_bias bans every token that the grammar allows at this place of the text"
            )
        return min(self._eog)

    def log_probs(self, token: int) -> LogProbs | None:
        """What is to be reported of the token just sampled; None: nothing."""
        count = self._params.n_probs
        if count == 0 or self._row is None:
            return None
        if self._left is None:
            return log_probs(self._row, token, count)
        return _log_probs_of(self._left, token, count)

    def _memory(self, length: int) -> Memory:
        """What was known at so many tokens; tokens that were not sampled taught nothing."""
        known = [at for at in self._memories if at <= length]
        return self._memories[max(known) if known else min(self._memories)]


def plan(params: SamplingParams) -> list[Sampler]:
    """The samplers to run: those with an effect. Where one leaves a single candidate (greedy) it is the last,
    and those just before it that only discard others are left out."""
    wanted = [LOGIT_BIAS, *(SAMPLERS[name] for name in params.samplers if name in SAMPLERS)]
    active: list[Sampler] = []
    for sampler in wanted:
        if sampler.is_identity(params):
            continue
        if leaves_one(sampler, params):
            while active and active[-1].keeps_best:
                active.pop()
            return [*active, sampler]
        active.append(sampler)
    return active


def prompt_log_probs(row: Float32, token: int, count: int) -> LogProbs:
    """The same for a token that was not sampled, given the logits [V] of what is before it. InternalError."""
    logits = Logits(row)
    if not logits.all_finite:
        raise InternalError("the model's logits for a token of the prompt are not finite numbers")
    return log_probs(logits, token, count)


def log_probs(row: Logits, chosen: int, count: int) -> LogProbs:
    """Log probabilities of a token and of the `count` most likely ones."""
    log_mass = row.log_mass()
    ids, logits = row.top(count)
    top = [(int(token), float(logit) - log_mass) for token, logit in zip(ids, logits, strict=True)]
    return LogProbs(float(row[np.array([chosen], np.int32)][0]) - log_mass, top)


def _log_probs_of(candidates: Candidates, chosen: int, count: int) -> LogProbs:
    """The same by what the samplers have left; tokens without a probability are none of the most likely."""
    log_mass = candidates.largest() + math.log(candidates.mass())
    ids, logits = candidates.first(count)
    top = [
        (int(token), float(logit) - log_mass)
        for token, logit in zip(ids, logits, strict=True)
        if math.exp(logit - log_mass) > 0
    ]
    return LogProbs(math.log(max(candidates.prob(chosen), 1e-300)), top, post_sampling=True)


def uniform(seed: int, index: int) -> float:
    """The number in [0, 1) for a place in a sequence: splitmix64 (Steele, Lea, Flood 2014)."""
    bits = _mix((_mix((seed & _MASK) + _GOLDEN) + _GOLDEN * (index + 1)) & _MASK)
    return (bits >> 11) * 2.0**-53


def _mix(bits: int) -> int:
    bits &= _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)
