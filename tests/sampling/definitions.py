"""The samplers as they are defined: all candidates in full, in float64, with nothing shared or put off.

`Twin` notes how near any comparison came to going the other way: corral sums a vocabulary in float32.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from corral.sampling.params import SamplingParams

Float64 = NDArray[np.float64]


def softmax(logits: Float64) -> Float64:
    terms = np.exp(logits - logits.max())
    return terms / terms.sum()


def bits(logits: Float64) -> Float64:
    with np.errstate(divide="ignore"):
        return -np.log2(softmax(logits))


class Twin:
    def __init__(
        self,
        row: NDArray[np.float32],
        params: SamplingParams,
        tokens: Sequence[int],
        pieces: Sequence[bytes],
        chances: tuple[float, float],
    ) -> None:
        self.vocab_size = len(row)
        self.ids = np.arange(len(row))
        self.logits = row.astype(np.float64)
        self.params, self.tokens, self.pieces, self.chances = params, list(tokens), pieces, chances
        self.margin = math.inf

    def note(self, differences: Float64 | float) -> None:
        values = np.abs(np.atleast_1d(differences))
        values = values[np.isfinite(values)]
        self.margin = min(self.margin, float(values.min())) if values.size else self.margin

    def sort(self) -> None:
        self.only(np.lexsort((self.ids, -self.logits)))

    def only(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> None:
        self.ids, self.logits = self.ids[which], self.logits[which]

    # -- samplers --------------------------------------------------------------------------------------------

    def logit_bias(self) -> None:
        for token, bias in self.params.logit_bias.items():
            self.logits[self.ids == token] += bias

    def penalties(self) -> None:
        p = self.params
        last = self.tokens if p.repeat_last_n < 0 else self.tokens[::-1][: p.repeat_last_n]
        for token, times in Counter(last).items():
            for at in np.flatnonzero(self.ids == token):
                logit = self.logits[at]
                logit = logit * p.repeat_penalty if logit <= 0 else logit / p.repeat_penalty
                self.logits[at] = logit - times * p.frequency_penalty - p.presence_penalty

    def dry(self) -> None:
        p = self.params
        n = p.dry_penalty_last_n
        if p.dry_multiplier == 0 or n == 0:
            return
        window = self.tokens if n < 0 else self.tokens[-n:]
        # from the last breaker on: the text before a token, and whether a breaker ends in it
        start = 0
        for i in range(len(window)):
            text = b"".join(self.pieces[t] for t in window[: i + 1])
            before = len(text) - len(self.pieces[window[i]])
            for breaker in (b.encode() for b in p.dry_sequence_breakers):
                if text.rfind(breaker) + len(breaker) > before and breaker in text:
                    start = i + 1
        limit = len(window) - start
        if len(window) <= p.dry_allowed_length or limit < p.dry_allowed_length:
            return
        for at, token in enumerate(self.ids):
            lengths = [-1]
            for i in range(len(window)):
                if window[i] == token and i > 0:
                    length = 0
                    while length < i and window[i - 1 - length] == window[-1 - length]:
                        length += 1
                    lengths.append(min(length, limit))
            longest = max(lengths)
            breaks = any(b.encode() in self.pieces[token] for b in p.dry_sequence_breakers)
            if longest >= p.dry_allowed_length and not breaks:
                self.logits[at] -= p.dry_multiplier * p.dry_base ** (longest - p.dry_allowed_length)

    def top_n_sigma(self) -> None:
        if self.params.top_n_sigma > 0 and len(self.logits) > 1:
            real = self.logits[self.logits > -math.inf]
            limit = real.max() - self.params.top_n_sigma * real.std()
            self.note(self.logits - limit)
            self.only(self.logits >= limit)

    def top_k(self) -> None:
        if self.params.top_k > 0:
            self.sort()
            self.only(np.arange(min(self.params.top_k, len(self.ids))))

    def typ_p(self) -> None:
        if self.params.typical_p < 1:
            self.sort()
            probs = softmax(self.logits)
            surprise = bits(self.logits) * math.log(2)
            entropy = float((probs[probs > 0] * surprise[probs > 0]).sum())
            score = np.abs(surprise - entropy)
            order = np.argsort(score, kind="stable")
            sums = np.cumsum(probs[order])
            self.note(sums - self.params.typical_p)
            count = max(1 + int((sums <= self.params.typical_p).sum()), self.params.min_keep)
            if count < len(order):
                self.note(score[order[count]] - score[order[count - 1]])
            self.only(np.sort(order[:count]))

    def top_p(self) -> None:
        if self.params.top_p < 1:
            self.sort()
            sums = np.cumsum(softmax(self.logits))
            self.note(sums - self.params.top_p)
            count = max(1 + int((sums < self.params.top_p).sum()), self.params.min_keep)
            self.only(np.arange(min(count, len(self.ids))))

    def min_p(self) -> None:
        if self.params.min_p > 0:
            self.sort()
            limit = self.logits[0] + math.log(self.params.min_p)
            self.note(self.logits - limit)
            count = max(1, int((self.logits >= limit).sum()), self.params.min_keep)
            self.only(np.arange(min(count, len(self.ids))))

    def xtc(self) -> None:
        p = self.params
        if p.xtc_probability > 0 and p.xtc_threshold <= 0.5 and len(self.ids) >= 2:
            if self.chances[1] > p.xtc_probability:
                return
            self.sort()
            probs = softmax(self.logits)
            self.note(probs - p.xtc_threshold)
            last = max(0, int((probs >= max(p.xtc_threshold, 1e-300)).sum()) - 1)
            if last > 0 and len(self.ids) - last >= p.min_keep:
                if len(self.ids) == self.vocab_size:
                    self.logits[:last] = -math.inf
                else:
                    self.only(np.arange(last, len(self.ids)))

    def temperature(self) -> None:
        p = self.params
        value = p.temperature
        if p.dynatemp_range > 0:
            if len(self.ids) == 1:
                return
            probs = softmax(self.logits)
            entropy = -float((probs[probs > 0] * np.log(probs[probs > 0])).sum())
            low, high = max(0.0, value - p.dynatemp_range), value + p.dynatemp_range
            value = low + (high - low) * (entropy / math.log(len(self.ids))) ** p.dynatemp_exponent
        if value <= 0:
            self.sort()
            self.only(np.arange(1))
        else:
            self.logits = self.logits / value

    # -- the pick --------------------------------------------------------------------------------------------

    def draw(self) -> int:
        self.sort()
        sums = np.cumsum(softmax(self.logits))
        self.note(sums - self.chances[0])
        return int(self.ids[min(int((sums < self.chances[0]).sum()), len(self.ids) - 1)])

    def mirostat(self, mu: float) -> tuple[int, float]:
        """The token and the next mu."""
        self.sort()
        real = self.logits[self.logits > -math.inf][:100]
        if len(real) > 1:
            t = [math.log((i + 2) / (i + 1)) for i in range(len(real) - 1)]
            b = [real[i] - real[i + 1] for i in range(len(real) - 1)]
            s = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
            k = ((s - 1) * 2**mu / (1 - self.vocab_size ** -(s - 1))) ** (1 / s)
            self.note(k - round(k))
            self.only(np.arange(min(max(int(k), 1), len(self.ids))))
        return self._after(mu)

    def mirostat_2(self, mu: float) -> tuple[int, float]:
        self.sort()
        surprise = bits(self.logits)
        self.note(surprise - mu)
        self.only(np.arange(max(1, int((surprise <= mu).sum()))))
        return self._after(mu)

    def _after(self, mu: float) -> tuple[int, float]:
        token = self.draw()
        surprise = float(bits(self.logits)[self.ids == token][0])
        return token, mu - self.params.mirostat_eta * (surprise - self.params.mirostat_tau)

    def adaptive_p(self, history: Sequence[float]) -> tuple[int, float]:
        """The token and its probability; `history` has those of the tokens before, the oldest first."""
        p = self.params
        if p.adaptive_target < 0:
            return self.draw(), 0.0
        # as if there had always been the target before
        weight = 1 / (1 - p.adaptive_decay)
        total = p.adaptive_target * weight
        for prob in history:
            total, weight = prob + p.adaptive_decay * total, 1 + p.adaptive_decay * weight
        aim = min(max(2 * p.adaptive_target - total / weight, 0.0), 1.0)
        self.sort()
        probs = softmax(self.logits)
        ids = self.ids
        far = np.abs(probs - aim) / 0.3
        self.logits = np.where(self.logits > -math.inf, 5 - 10 * far**2 / (1 + far), -math.inf)
        # nearly equal logits may change places
        self.sort()
        token = self.draw()
        return token, float(probs[ids == token][0])


def samplers(params: SamplingParams) -> list[Callable[[Twin], None]]:
    return [Twin.logit_bias, *(getattr(Twin, name) for name in params.samplers if name != "adaptive_p")]
