"""What the assistant has said so far in one choice: text, reasoning and calls of tools."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.chat.deltas import Content, Delta, Reasoning, ToolArguments, ToolCall
from corral.engine.messages import Output
from corral.server.reply import Reply


@dataclass
class Call:
    """A call of a tool; `arguments` joined are the text of a JSON object."""

    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


@dataclass
class ChatReply(Reply):
    """The steps of one choice, added up. `text` is all that was generated, `content` what is the answer."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def add_step(self, deltas: list[Delta], output: Output) -> None:
        self.add(output)
        for delta in deltas:
            match delta:
                case Content(text):
                    self.content.append(text)
                case Reasoning(text):
                    self.reasoning.append(text)
                case ToolCall(id=id, name=name):
                    self.calls.append(Call(id, name))
                case ToolArguments(index, text):
                    self.calls[index].arguments.append(text)

    @property
    def ended_with(self) -> str | None:
        """OpenAI's finish_reason: that of the generation, or tool_calls."""
        return "tool_calls" if self.calls and self.finish_reason == "stop" else self.finish_reason
