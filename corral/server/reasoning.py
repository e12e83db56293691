"""How much a model is to reason, and where the reasoning goes: the request's word, else the server's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corral.chat.reader import Thoughts
from corral.config import ServerConfig
from corral.errors import RequestError
from corral.server.decode import shown
from corral.server.schema import ChatRequest

FORMATS: dict[str, Thoughts] = {
    "none": "inside",
    "deepseek": "apart",
    "deepseek-legacy": "both",
    "auto": "apart",
}
"""`reasoning_format`: whether reasoning is in `reasoning_content`, in the content, or in both."""


OTHER_NAMES: dict[str, dict[bool, Any]] = {
    "thinking": {True: True, False: False},  # DeepSeek, Granite, Kimi K3
    "reasoning": {True: True, False: False},  # Cohere, GigaChat 3.5
    "thinking_mode": {True: "enabled", False: "disabled"},  # MiniMax M3
    "thinking_budget": {False: 0},  # Seed-OSS
}
"""What templates call `enable_thinking`, and its values there."""


@dataclass(frozen=True)
class Reasoning:
    """`variables` are the template's. `budget`: most tokens of reasoning, -1: any; `message` ends it then."""

    thoughts: Thoughts
    variables: dict[str, Any]
    budget: int = -1
    message: str = ""


def read_reasoning(request: ChatRequest, config: ServerConfig) -> Reasoning:
    """Raises RequestError."""
    format = config.reasoning_format if request.reasoning_format is None else request.reasoning_format
    if format not in FORMATS:
        raise RequestError(
            f"Field 'reasoning_format': expected one of {', '.join(FORMATS)}, got {shown(format)}"
        )
    budgets = (request.reasoning_budget_tokens, request.thinking_budget_tokens, config.reasoning_budget)
    budget = next(b for b in budgets if b is not None)
    given = request.reasoning_budget_message
    message = config.reasoning_budget_message if given is None else given
    variables: dict[str, Any] = {}
    if config.reasoning != "auto":
        variables["enable_thinking"] = config.reasoning == "on"
    if config.reasoning_effort != "default":
        variables["reasoning_effort"] = config.reasoning_effort
    if budget == 0:
        variables["enable_thinking"] = False
    variables |= config.chat_template_kwargs
    variables |= request.chat_template_kwargs or {}
    if request.enable_thinking is not None:
        variables["enable_thinking"] = request.enable_thinking
    if request.reasoning_effort == "none":
        variables["enable_thinking"] = False
    elif request.reasoning_effort is not None:
        variables["reasoning_effort"] = request.reasoning_effort
    if isinstance(on := variables.get("enable_thinking"), bool):
        for name, words in OTHER_NAMES.items():
            if on in words:
                variables.setdefault(name, words[on])
    return Reasoning(FORMATS[format], variables, budget, message or "")
