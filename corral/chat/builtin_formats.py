"""The rest of the names that `--chat-template` knows: a row for each format, as its turns are written.

`%s` is a message's text. A family without a system turn leaves it out; the text then goes to the user.
"""

from __future__ import annotations


def _forms(
    system: str,
    user: str,
    assistant: str,
    prompt: str = "",
    *,
    start: str = "",
    tool: str = "",
    trim: bool = False,
) -> str:
    """A template of the turns of each role. `start` is Jinja, `prompt` opens the reply."""
    text = "message.content|trim" if trim else "message.content"

    def put(form: str) -> str:
        before, _, after = form.partition("%s")
        return f"{{{{ {before!r} + text + {after!r} }}}}" if form else ""

    tool_turn = "{%- elif message.role == 'tool' -%}" + put(tool) if tool else ""
    return (
        f"{start}"
        "{%- for message in messages -%}{%- set text = " + text + " -%}"
        "{%- if message.role == 'system' -%}" + put(system) + "{%- elif message.role == 'assistant' -%}"
        f"{put(assistant)}{tool_turn}"
        "{%- else -%}" + put(user) + "{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt %}{{ " + repr(prompt) + " }}{% endif -%}"
    )


def _marked(form: str, prompt: str, *, start: str = "", trim: bool = False) -> str:
    """The same for turns that differ in the role's name only: `%r`."""
    system, user, assistant = (form.replace("%r", role) for role in ("system", "user", "assistant"))
    return _forms(system, user, assistant, prompt, start=start, tool=form.replace("%r", "tool"), trim=trim)


def _without_system(text: str) -> str:
    """Jinja for what stands in front of a conversation that has no system message."""
    return "{%- if not messages or messages[0].role != 'system' %}{{ " + repr(text) + " }}{% endif -%}"


def _exaone(start: str, end: str, line: str, user_end: str) -> str:
    system, user, assistant, tool = (
        start.replace("%r", role) + line for role in ("system", "user", "assistant", "tool")
    )
    return _forms(
        f"{system}%s{end}\n",
        f"{user}%s{user_end}\n",
        f"{assistant}%s{end}\n",
        assistant,
        tool=f"{tool}%s{end}\n",
        trim=True,
    )


_EXAONE = _exaone("[|%r|]", "[|endofturn|]", "", "")
_GRANITE = _marked(
    "<|start_of_role|>%r<|end_of_role|>%s<|end_of_text|>\n", "<|start_of_role|>assistant<|end_of_role|>"
)
_BAILING = ("<role>SYSTEM</role>%s", "<role>HUMAN</role>%s", "<role>ASSISTANT</role>%s")

MORE: dict[str, str] = {
    "mistral-v7-tekken": _forms("[SYSTEM_PROMPT]%s[/SYSTEM_PROMPT]", "[INST]%s[/INST]", "%s</s>"),
    "falcon3": _marked("<|%r|>\n%s\n", "<|assistant|>\n"),
    "monarch": _marked("<s>%r\n%s</s>\n", "<s>assistant\n"),
    "orion": _forms("", "Human: %s\n\nAssistant: </s>", "%s</s>"),
    "openchat": _forms(
        "%s<|end_of_turn|>",
        "GPT4 Correct User: %s<|end_of_turn|>",
        "GPT4 Correct Assistant: %s<|end_of_turn|>",
        "GPT4 Correct Assistant:",
    ),
    "vicuna": _forms("%s\n\n", "USER: %s\n", "ASSISTANT: %s</s>\n", "ASSISTANT:"),
    "vicuna-orca": _forms("SYSTEM: %s\n", "USER: %s\n", "ASSISTANT: %s</s>\n", "ASSISTANT:"),
    "deepseek2": _forms("%s\n\n", "User: %s\n\n", "Assistant: %s<｜end▁of▁sentence｜>", "Assistant:"),
    "deepseek-ocr": _forms("%s", "%s", "%s"),
    "chatglm3": _marked("<|%r|>\n %s", "<|assistant|>", start="[gMASK]sop"),
    "chatglm4": _marked("<|%r|>\n%s", "<|assistant|>\n", start="[gMASK]<sop>"),
    "glmedge": _marked("<|%r|>\n%s", "<|assistant|>"),
    "minicpm": _forms("%s", "<用户>%s<AI>", "%s", trim=True),
    "exaone3": _EXAONE,
    "exaone4": _EXAONE,
    "exaone-moe": _exaone("<|%r|>", "<|endofturn|>", "\n", "<|endofturn|>"),
    "rwkv-world": _forms("System: %s\n\n", "User: %s\n\n", "Assistant: %s\n\n", "Assistant:", trim=True),
    "granite-4.0": _GRANITE,
    "granite-4.1": _GRANITE,
    "gigachat": _forms(
        "%s<|message_sep|>",
        "user<|role_sep|>%s<|message_sep|>available functions<|role_sep|>[]<|message_sep|>",
        "assistant<|role_sep|>%s<|message_sep|>",
        "assistant<|role_sep|>",
        start="<s>",
    ),
    "megrez": _marked("<|role_start|>%r<|role_end|>%s<|turn_end|>", "<|role_start|>assistant<|role_end|>"),
    "yandex": _forms("", " Пользователь: %s\n\n", " Ассистент: %s\n\n", " Ассистент:[SEP]"),
    "bailing": _forms(*_BAILING, "<role>ASSISTANT</role>"),
    "bailing-think": _forms(*_BAILING, "<role>ASSISTANT</role><think>"),
    "bailing2": _forms(
        "<role>SYSTEM</role>%s<|role_end|>",
        "<role>HUMAN</role>%s<|role_end|>",
        "<role>ASSISTANT</role>%s<|role_end|>",
        "<role>ASSISTANT</role>",
        start=_without_system("<role>SYSTEM</role>detailed thinking off<|role_end|>"),
    ),
    "llama4": _marked(
        "<|header_start|>%r<|header_end|>\n\n%s<|eot|>",
        "<|header_start|>assistant<|header_end|>\n\n",
        trim=True,
    ),
    "smolvlm": _forms(
        "%s\n\n",
        "User: %s<end_of_utterance>\n",
        "Assistant: %s<end_of_utterance>\n",
        "Assistant:",
        start="<|im_start|>",
    ),
    "hunyuan-moe": _forms("<|startoftext|>%s<|extra_4|>", "<|startoftext|>%s<|extra_0|>", "%s<|eos|>"),
    "hunyuan-dense": _forms(
        "%s<｜hy_place▁holder▁no▁3｜>",
        "<｜hy_User｜>%s",
        "<｜hy_Assistant｜>%s<｜hy_place▁holder▁no▁2｜>",
        "<｜hy_Assistant｜>",
    ),
    "hunyuan-vl": _forms(
        "%s<｜hy_place▁holder▁no▁3｜>",
        "%s<｜hy_User｜>",
        "%s<｜hy_Assistant｜>",
        start="<｜hy_begin▁of▁sentence｜>",
    ),
    "gpt-oss": _forms(
        "<|start|>system<|message|>%s<|end|>",
        "<|start|>user<|message|>%s<|end|>",
        "<|start|>assistant<|channel|>final<|message|>%s<|end|>",
        "<|start|>assistant",
    ),
    "kimi-k2": _forms(
        "<|im_system|>system<|im_middle|>%s<|im_end|>",
        "<|im_user|>user<|im_middle|>%s<|im_end|>",
        "<|im_assistant|>assistant<|im_middle|>%s<|im_end|>",
        "<|im_assistant|>assistant<|im_middle|>",
        tool="<|im_system|>tool<|im_middle|>%s<|im_end|>",
    ),
    "seed_oss": _marked("<seed:bos>%r\n%s<seed:eos>", "<seed:bos>assistant\n"),
    "grok-2": _forms(
        "System: %s<|separator|>\n\n",
        "Human: %s<|separator|>\n\n",
        "Assistant: %s<|separator|>\n\n",
        "Assistant:",
        trim=True,
    ),
    "pangu-embedded": _forms(
        "[unused9]系统：%s[unused10]",
        "[unused9]用户：%s[unused10]",
        "[unused9]助手：%s[unused10]",
        "[unused9]助手：",
        start=_without_system("[unused9]系统：[unused10]"),
        tool="[unused9]工具：%s[unused10]",
    ),
    "solar-open": _marked("<|begin|>%r<|content|>%s<|end|>", "<|begin|>assistant"),
}
