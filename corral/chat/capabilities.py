"""What a chat template can take, found out by rendering small conversations with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from corral.chat.template import ChatTemplate, TemplateError

_SYSTEM, _SYSTEM_2 = "corral-probe-s", "corral-probe-t"
_USER, _USER_2, _REPLY = "corral-probe-u", "corral-probe-v", "corral-probe-a"
_TOOL, _TOOL_2, _KEY, _VALUE, _RESULT = (
    *("corral_probe_f", "corral_probe_g", "corral_probe_k", "corral-probe-w"),
    "corral-probe-r",
)
_ID, _ID_2, _LONG_ID = "Corral001", "Corral002", "call_corral_probe_0"
_BROKEN = '{"corral'
_THINKING_KEYS = ("thinking", "reasoning", "thought")  # gpt-oss and LFM 2.5; Solar; Apriel
_SECONDS = 0.5
"""Longest rendering of a probe: an honest template takes less than a millisecond."""

_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "probe",
            "parameters": {
                "type": "object",
                "properties": {_KEY: {"type": "string", "description": "probe"}},
                "required": [_KEY],
            },
        },
    }
    for name in (_TOOL, _TOOL_2)
]


Render = Callable[..., str]
Say = Callable[[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Capabilities:
    """Facts about a template. The defaults are those of a template that takes everything as plain text."""

    system: bool = True
    """A system message first in the list reaches the prompt."""
    late_system: bool = True
    """So does one in the middle of the conversation, or a second one."""
    lone_system: bool = True
    """So does one that is the only message."""
    alternation: bool = False
    """Two user messages in a row are refused."""
    typed_content: bool = False
    """Only a list of `{"type": "text", "text": ...}` reaches the prompt; a plain string is lost."""

    tools: bool = False
    """The tools of a request reach the prompt."""
    tools_always: bool = False
    """A conversation without tools is refused, unless it has an empty list of them."""
    calls: bool = False
    """So do the calls of earlier replies and their results."""
    tool_role: bool = False
    """So do results behind a reply that has its calls in its text."""
    string_arguments: bool = False
    """The arguments of earlier calls have to be JSON text, not an object."""
    object_arguments: bool = False
    """Arguments that are no object are refused."""
    null_content: bool = False
    """A reply with calls needs a content of null."""
    calls_apart: bool = False
    """The calls of a reply that also says something are lost."""
    single_calls: bool = False
    """A reply with several calls is refused."""
    thinking_key: str = ""
    """What earlier reasoning is called, if not `reasoning_content`."""
    short_ids: bool = False
    """Ids of calls must be nine letters and digits."""

    def describe(self) -> str:
        """For the log."""
        facts = {
            "system messages go into the user's": not self.system,
            "later system messages go into the user's": self.system and not self.late_system,
            "roles must alternate": self.alternation,
            "content in parts": self.typed_content,
            "knows tools": self.tools,
        }
        return ", ".join(fact for fact, holds in facts.items() if holds) or "takes system messages"


def probe(template: ChatTemplate) -> Capabilities:
    """Finds the capabilities of a template. Takes some milliseconds; never raises."""

    no_tools: list[Any] | None = None

    def render(messages: Sequence[Mapping[str, Any]], tools: Any = None) -> str:
        try:
            return template.render(messages, tools=tools or no_tools, max_seconds=_SECONDS)
        except TemplateError:
            return ""

    def shows(messages: Sequence[Mapping[str, Any]], *wanted: str) -> bool:
        text = render(messages)
        return all(word in text for word in wanted)

    def typed(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text}]

    user = {"role": "user", "content": _USER}
    typed_user = {"role": "user", "content": typed(_USER)}
    if not render([user]) and not render([typed_user]):
        no_tools = []
        if not render([user]) and not render([typed_user]):
            no_tools = None
    typed_content = not shows([user], _USER) and shows([typed_user], _USER)

    def say(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": typed(text) if typed_content else text}

    user, user_2, reply = say("user", _USER), say("user", _USER_2), say("assistant", _REPLY)
    system, system_2 = say("system", _SYSTEM), say("system", _SYSTEM_2)
    dialogue = shows([user, reply, user_2], _USER, _REPLY, _USER_2)
    takes_system = shows([system, user], _SYSTEM, _USER)
    facts = Capabilities(
        system=takes_system,
        late_system=takes_system
        and shows([system, user, reply, system_2, user_2], _SYSTEM, _SYSTEM_2, _USER_2)
        and shows([system, system_2, user], _SYSTEM, _SYSTEM_2),
        lone_system=takes_system and shows([system], _SYSTEM),
        alternation=dialogue and not shows([user, user_2], _USER, _USER_2),
        typed_content=typed_content,
        tools_always=no_tools is not None,
        thinking_key=_thinking_key(template.source.text),
    )
    return _probe_tools(facts, render, say)


def _thinking_key(template: str) -> str:
    if "reasoning_content" in template:
        return ""
    return next((k for k in _THINKING_KEYS if re.search(rf"message(\.{k}\b|\['{k}'\])", template)), "")


def _probe_tools(facts: Capabilities, render: Render, say: Say) -> Capabilities:
    """The same with what the template makes of tools: the first way of saying a call that comes through."""
    user = say("user", _USER)
    result = {**say("tool", _RESULT), "tool_call_id": _ID, "name": _TOOL}
    facts = replace(
        facts,
        tools=_TOOL in render([user], _TOOLS),
        tool_role=_RESULT in render([user, say("assistant", _REPLY), result]),
    )
    if not facts.tools:
        return facts

    def talk(arguments: Any, content: Any, *ids: str) -> str:
        names = (_TOOL, _TOOL_2)[: len(ids)]
        calls = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id, name in zip(ids, names, strict=True)
        ]
        results = [
            {**say("tool", _RESULT + str(i)), "tool_call_id": id, "name": names[i]}
            for i, id in enumerate(ids)
        ]
        reply = {"role": "assistant", "content": content, "tool_calls": calls}
        text: str = render([user, reply, *results], _TOOLS)
        # the tools themselves are in the prompt too: what counts is behind the user's words
        after = text[text.rfind(_USER) :]
        whole = all(name in after for name in names) and _RESULT + "0" in after
        plain = f"'{_KEY}'" not in after and f'\\"{_KEY}' not in after
        return after if whole and plain and _KEY in after and _VALUE in after else ""

    def takes_arguments(arguments: Any) -> bool:
        """Whether a call with them is rendered at all."""
        call = {"id": _ID, "type": "function", "function": {"name": _TOOL, "arguments": arguments}}
        reply = {"role": "assistant", "content": empty, "tool_calls": [call]}
        return render([user, reply, result], _TOOLS) != ""

    empty: Any = [] if facts.typed_content else ""
    as_object, as_text = {_KEY: _VALUE}, f'{{"{_KEY}": "{_VALUE}"}}'
    for arguments in (as_object, as_text):
        for content in (empty, None):
            if not talk(arguments, content, _ID):
                continue
            return replace(
                facts,
                calls=True,
                string_arguments=arguments is as_text,
                object_arguments=arguments is as_object and not takes_arguments(_BROKEN),
                null_content=content is None,
                calls_apart=not talk(arguments, say("assistant", _REPLY)["content"], _ID),
                single_calls=not talk(arguments, content, _ID, _ID_2),
                short_ids=not talk(arguments, content, _LONG_ID),
            )
    return facts
