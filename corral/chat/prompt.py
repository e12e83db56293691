"""The text of a prompt from a conversation: normalise, render, mend the ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from corral.chat.capabilities import Capabilities, probe
from corral.chat.messages import normalise
from corral.chat.reply_format import ReplyFormat
from corral.chat.template import ChatTemplate, TemplateError, TemplateSource
from corral.chat.tool_formats import GENERIC
from corral.chat.tools import Tools
from corral.errors import RequestError


@dataclass(frozen=True)
class Prompt:
    """The reply begins inside of reasoning that it leaves `opened`, or of an answer (`answering`)."""

    text: str
    opened: bool = False
    answering: bool = False


@dataclass(frozen=True)
class ChatPrompter:
    """A template with what is known about it. `strip_bos`, `strip_eos`: the tokenizer adds these itself.

    `with_tools` is another template, for conversations with tools; some models have one.
    """

    template: ChatTemplate
    capabilities: Capabilities
    format: ReplyFormat = ReplyFormat()  # noqa: RUF009  (frozen)
    strip_bos: bool = False
    strip_eos: bool = False
    with_tools: ChatPrompter | None = None

    @classmethod
    def of(
        cls,
        source: TemplateSource,
        *,
        bos_token: str = "",
        eos_token: str = "",
        add_bos: bool = False,
        add_eos: bool = False,
        with_tools: ChatPrompter | None = None,
    ) -> ChatPrompter:
        """Compiles and probes. Raises OptionError."""
        template = ChatTemplate(source, bos_token, eos_token)
        capabilities = probe(template)
        format = ReplyFormat.of(source.text, knows_tools=capabilities.tools)
        if format.tools is GENERIC:  # calls are said as they are to be written
            capabilities = replace(capabilities, calls=False, object_arguments=False)
        return cls(template, capabilities, format, add_bos, add_eos, with_tools)

    def chosen(self, tools: Tools | None) -> ChatPrompter:
        """The one for a conversation with these tools."""
        return self.with_tools if tools and self.with_tools else self

    def prompt(self, messages: Sequence[Any], **options: Any) -> str:
        """The text of `render`."""
        return self.render(messages, **options).text

    def render(
        self,
        messages: Sequence[Any],
        *,
        tools: Tools | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """The prompt, to be tokenized with special tokens parsed.

        A trailing assistant message is a reply to go on with, unless `continue_final_message` is false.
        Raises RequestError (TemplateError when the template refuses).
        """
        if add_generation_prompt and continue_final_message:
            raise RequestError("Cannot set both add_generation_prompt and continue_final_message to true.")
        described = tools is not None and self.format.tools is GENERIC
        said = normalise(
            messages, self.capabilities, self.format.tools, instructions(tools) if tools and described else ""
        )
        trailing = said[-1]["role"] == "assistant" and not said[-1].get("tool_calls")
        if continue_final_message and not trailing:
            raise RequestError("Field 'continue_final_message': the last message is not an assistant's")
        go_on = trailing and continue_final_message is not False and not add_generation_prompt

        def rendered(shown: list[dict[str, Any]] | None) -> Prompt:
            if go_on:
                *before, reply = said
                return self._continued(self._before(before, reply, shown, kwargs), reply)
            text = self._render(said, add_generation_prompt is not False, shown, kwargs)
            return Prompt(text, self.format.opened_by(text))

        if tools and not described:
            try:
                prompt = rendered(tools.described())
            except TemplateError:  # some templates stumble over what schemas may leave out
                prompt = rendered(tools.described(plain=True))
        else:
            prompt = rendered([] if self.capabilities.tools_always else None)
        return replace(prompt, text=self._without_ends(prompt.text))

    def _before(
        self, messages: Sequence[Mapping[str, Any]], reply: Mapping[str, Any], tools: Any, kwargs: Any
    ) -> str:
        """The prompt up to the reply. If nothing is before it, not every template has one for that."""
        try:
            return self._render(messages, True, tools, kwargs)
        except TemplateError:
            if messages:
                raise
        nothing = "" if isinstance(reply["content"], str) else []
        return self._render([{"role": "user", "content": nothing}], True, tools, kwargs)

    def _continued(self, text: str, reply: Mapping[str, Any]) -> Prompt:
        """A prompt with the beginning of the reply: what it thought, if said apart, and what it answered."""
        content, thought = _plain(reply["content"]), reply.get("reasoning_content") or ""
        thinking, opened = self.format.thinking, self.format.opened_by(text)
        if thinking is None:
            tools = self.format.tools
            if thought and tools.reasoning_end:
                text += tools.reasoning_start + thought + tools.reasoning_end
            else:
                text += tools.answer_start
            return Prompt(text + content, answering=bool(tools.answer_start))
        if opened or thought:
            text += ("" if opened else thinking.start + "\n") + thought
            if not content:
                return Prompt(text, opened=True)
            if content.lstrip().startswith(thinking.start):  # the reply says it itself
                content = content.lstrip().removeprefix(thinking.start)
            elif thinking.end not in content:
                text += f"\n{thinking.end}\n\n{self.format.tools.answer_start}"
                return Prompt(text + content)
            return Prompt(text + content, thinking.end not in content)
        begun = content.rfind(thinking.start)
        return Prompt(text + content, begun >= 0 and thinking.end not in content[begun:])

    def _render(
        self, messages: Sequence[Mapping[str, Any]], generation: bool, tools: Any, kwargs: Any
    ) -> str:
        return self.template.render(messages, add_generation_prompt=generation, tools=tools, kwargs=kwargs)

    def _without_ends(self, text: str) -> str:
        bos, eos = self.template.bos_token, self.template.eos_token
        if self.strip_bos and bos:
            text = text.removeprefix(bos)
        if self.strip_eos and eos:
            text = text.removesuffix(eos)
        return text


def instructions(tools: Tools) -> str:
    """What a model is told that was not made for tools: they are called in the syntax `GENERIC`."""
    described = "\n".join(json.dumps(t["function"], ensure_ascii=False) for t in tools.described())
    several = "To call several at once, reply with a JSON array of such objects. " if tools.parallel else ""
    otherwise = "You have to call one now." if tools.required else "When none helps, answer in plain text."
    return (
        f"You can call these functions:\n{described}\n\n"
        'To call one, reply with nothing but a JSON object of the form {"name": NAME, "arguments": OBJECT}. '
        f"{several}{otherwise}"
    )


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content or ())
