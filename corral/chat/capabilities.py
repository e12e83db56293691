"""What a chat template can take, found out by rendering small conversations with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corral.chat.template import ChatTemplate, TemplateError

_SYSTEM, _USER, _USER_2, _REPLY = "corral-probe-s", "corral-probe-u", "corral-probe-v", "corral-probe-a"
_SECONDS = 0.5
"""Longest rendering of a probe: an honest template takes less than a millisecond."""


@dataclass(frozen=True)
class Capabilities:
    """Facts about a template. The defaults are those of a template that takes everything as plain text."""

    system: bool = True
    """A system message first in the list reaches the prompt."""
    alternation: bool = False
    """Two user messages in a row are refused."""
    typed_content: bool = False
    """Only a list of `{"type": "text", "text": ...}` reaches the prompt; a plain string is lost."""

    def describe(self) -> str:
        """For the log."""
        facts = {
            "system messages go into the user's": not self.system,
            "roles must alternate": self.alternation,
            "content in parts": self.typed_content,
        }
        return ", ".join(fact for fact, holds in facts.items() if holds) or "takes system messages"


def probe(template: ChatTemplate) -> Capabilities:
    """Finds the capabilities of a template. Takes about a millisecond; never raises."""

    def shows(messages: Sequence[Mapping[str, Any]], *wanted: str) -> bool:
        try:
            text = template.render(messages, max_seconds=_SECONDS)
        except TemplateError:
            return False
        return all(word in text for word in wanted)

    def typed(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text}]

    user = {"role": "user", "content": _USER}
    typed_user = {"role": "user", "content": typed(_USER)}
    typed_content = not shows([user], _USER) and shows([typed_user], _USER)

    def say(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": typed(text) if typed_content else text}

    user, user_2, reply = say("user", _USER), say("user", _USER_2), say("assistant", _REPLY)
    dialogue = shows([user, reply, user_2], _USER, _REPLY, _USER_2)
    return Capabilities(
        system=shows([say("system", _SYSTEM), user], _SYSTEM, _USER),
        alternation=dialogue and not shows([user, user_2], _USER, _USER_2),
        typed_content=typed_content,
    )
