"""The text of a prompt from a conversation: normalise, render, mend the ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corral.chat.capabilities import Capabilities, probe
from corral.chat.messages import normalise
from corral.chat.template import ChatTemplate, TemplateSource
from corral.errors import RequestError


@dataclass(frozen=True)
class ChatPrompter:
    """A template with what is known about it. `strip_bos`, `strip_eos`: the tokenizer adds these itself."""

    template: ChatTemplate
    capabilities: Capabilities
    strip_bos: bool = False
    strip_eos: bool = False

    @classmethod
    def of(
        cls,
        source: TemplateSource,
        *,
        bos_token: str = "",
        eos_token: str = "",
        add_bos: bool = False,
        add_eos: bool = False,
    ) -> ChatPrompter:
        """Compiles and probes. Raises OptionError."""
        template = ChatTemplate(source, bos_token, eos_token)
        return cls(template, probe(template), add_bos, add_eos)

    def prompt(
        self,
        messages: Sequence[Any],
        *,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt's text, to be tokenized with special tokens parsed.

        A trailing assistant message is a reply to go on with, unless `continue_final_message` is false.
        Raises RequestError (TemplateError when the template refuses).
        """
        if add_generation_prompt and continue_final_message:
            raise RequestError("Cannot set both add_generation_prompt and continue_final_message to true.")
        said = normalise(messages, self.capabilities)
        trailing = said[-1]["role"] == "assistant"
        if continue_final_message and not trailing:
            raise RequestError("Field 'continue_final_message': the last message is not an assistant's")
        if trailing and continue_final_message is not False and not add_generation_prompt:
            *before, reply = said
            text = self._render(before, True, kwargs) if before else ""
            text += _plain(reply["content"])
        else:
            text = self._render(said, add_generation_prompt is not False, kwargs)
        bos, eos = self.template.bos_token, self.template.eos_token
        if self.strip_bos and bos:
            text = text.removeprefix(bos)
        if self.strip_eos and eos:
            text = text.removesuffix(eos)
        return text

    def _render(self, messages: Sequence[Mapping[str, Any]], generation: bool, kwargs: Any) -> str:
        return self.template.render(messages, add_generation_prompt=generation, kwargs=kwargs)


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
