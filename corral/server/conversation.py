"""A request's conversation as the model gets it, and the rules for its reply."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from corral.chat.prompt import ChatPrompter, Prompt
from corral.chat.reply_format import ReplyFormat
from corral.chat.tools import Tools, read_tools
from corral.config import ServerConfig
from corral.engine.messages import Constraint
from corral.errors import RequestError
from corral.server.reasoning import Reasoning, read_reasoning
from corral.server.schema import ChatRequest
from corral.server.state import LoadedModel, Tokenizer


@dataclass(frozen=True)
class Conversation:
    """The prompt, and what may be in the reply."""

    prompt: Prompt
    format: ReplyFormat
    tools: Tools | None
    reasoning: Reasoning

    @classmethod
    def of(cls, model: LoadedModel, request: ChatRequest, config: ServerConfig) -> Conversation:
        """Blocking: a template is the model's code. Raises RequestError."""
        reasoning = read_reasoning(request, config)
        tools = read_tools(request.tools, request.tool_choice, request.parallel_tool_calls)
        if request.tools and not config.jinja:
            raise RequestError(
                "Field 'tools': tools param requires --jinja flag, and this server has --no-jinja"
            )
        go_on = request.continue_final_message
        messages = request.messages if config.reasoning_preserve else _without_reasoning(request.messages)
        prompter: ChatPrompter = model.prompter.chosen(tools)
        if prompter.format.reasoning_end(tools):  # a model that reasons does, unless someone says otherwise
            reasoning.variables.setdefault("enable_thinking", True)
        prompt = prompter.render(
            messages,
            tools=tools,
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=False if go_on is None and not config.prefill_assistant else go_on,
            kwargs=reasoning.variables,
        )
        if prompt.opened and reasoning.budget == 0:
            end = prompter.format.reasoning_end(tools)
            prompt = Prompt(prompt.text.rstrip() + "\n" + reasoning.message + end)
        return cls(prompt, prompter.format, tools, reasoning)


def _without_reasoning(messages: list[Any]) -> list[Any]:
    return [
        {k: v for k, v in m.items() if k != "reasoning_content"} if isinstance(m, dict) else m
        for m in messages
    ]


@dataclass(frozen=True)
class ReplyRules:
    """What a Submit says of the reply's text."""

    constraint: Constraint | None
    behind_reasoning: Constraint | None
    """The same for what follows reasoning that was cut off."""
    special: bool
    """The parser needs the text of control tokens."""


def reply_rules(tokenizer: Tokenizer, talk: Conversation, asked: Constraint | None) -> ReplyRules:
    """`asked`: what the text has to be, if no call of a tool. Blocking. Raises RequestError."""
    token = lru_cache(maxsize=None)(partial(control_token, tokenizer))
    special = any(token(m) is not None for m in talk.format.markers(tools=talk.tools is not None))
    schema = asked.text if asked is not None and asked.kind == "json_schema" else None
    if talk.tools and asked is not None and schema is None:
        raise RequestError("Field 'grammar': not possible together with 'tools'")
    reasons = talk.format.reasoning_end(talk.tools) != ""
    if talk.prompt.answering or (talk.tools is None and (schema is None or not reasons)):
        return ReplyRules(asked, asked, special)

    def rules(*, thinks: bool) -> Constraint:
        thinks = thinks and not talk.format.closed_by(talk.prompt.text)
        lark = talk.format.grammar(
            talk.tools, token, schema=schema, opened=thinks and talk.prompt.opened, thinks=thinks
        )
        return Constraint("lark", lark)

    # without tools, what ends the reasoning leads straight into the answer
    return ReplyRules(rules(thinks=True), rules(thinks=False) if talk.tools else asked, special)


def control_token(tokenizer: Tokenizer, text: str) -> int | None:
    """The id of the control token with exactly this text."""
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    return ids[0] if len(ids) == 1 and tokenizer.is_control(ids[0]) else None
