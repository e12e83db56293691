"""Reasoning between two markers, as most models write it. A row for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.chat.reader import Reader, Script


@dataclass(frozen=True)
class Thinking:
    """`start` and `end` are around the reasoning, at the beginning of a reply.

    The prompt may end with `start` already. A template that uses the markers has `found_by` in it.
    """

    start: str
    end: str
    found_by: tuple[str, ...] = ()

    def used_by(self, template: str) -> bool:
        return any(text in template for text in self.found_by or (self.start, self.end))

    def opened_by(self, prompt: str) -> bool:
        """Whether a prompt leaves the reasoning open: the reply goes on with it."""
        last = prompt.rfind(self.start)
        return last >= 0 and not prompt[last + len(self.start) :].strip()

    def closed_by(self, prompt: str) -> bool:
        """Whether a prompt ends the reasoning: the reply has none."""
        return prompt.rstrip().endswith(self.end)

    def script(self, r: Reader, *, opened: bool) -> Script[None]:
        """Reads the reasoning, if there is any."""
        if not opened:
            begun = yield from r.after_spaces(self.start, self.end)
            if begun:
                r.marker(begun)
            if begun != self.start:  # an end right away: it thinks of nothing
                return
        r.reasons = True
        found = yield from r.until([self.end], r.reasoning)
        r.reasons = False
        if found:
            r.marker(self.end)


THINKING: Sequence[Thinking] = (
    Thinking("<|channel>thought", "<channel|>", found_by=("<|channel>thought",)),  # Gemma 4
    Thinking("<|START_THINKING|>", "<|END_THINKING|>"),  # Command R7B, Command A
    Thinking("[THINK]", "[/THINK]"),  # Magistral, Ministral
    Thinking("<seed:think>", "</seed:think>"),  # Seed-OSS
    Thinking(
        "<|open|>think<|sep|>", "<|close|>think<|sep|>", ("<|end_of_msg|>", "<|open|>think<|sep|>")
    ),  # Kimi K3
    Thinking("<mm:think>", "</mm:think>"),  # MiniMax M3
    Thinking("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Thinking("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
    Thinking("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", ("[BEGIN FINAL RESPONSE]",)),  # Apriel
    Thinking("<think:opensource>", "</think:opensource>", ("<think{}>", "<think:opensource>")),  # Hy3
    Thinking("<thought>", "</thought>"),  # EXAONE Deep
    Thinking("<reasoning>", "</reasoning>"),
    Thinking(
        "<think>", "</think>"
    ),  # DeepSeek R1, Qwen 3, QwQ, GLM, Nemotron, SmolLM3, MiniMax and many more
)


def thinking_of(template: str) -> Thinking | None:
    """The markers of a chat template's reasoning; None: it says nothing of any."""
    return next((t for t in THINKING if t.used_by(template)), None)
