"""Templates for `--chat-template NAME`, and for model files that have none.

Each writes the prompt format its model family was trained on; the first `bos_token` is left to the tokenizer.
"""

from __future__ import annotations

from corral.chat.builtin_formats import MORE

DEFAULT = "chatml"

CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}
"""


def _instruct(first: str, system: str, user: str, assistant: str, rest: str = "") -> str:
    """Formats of the [INST] family: the system text goes inside the first user turn. `%s` is the text."""

    def put(form: str, name: str) -> str:
        before, after = form.split("%s")
        return f"{{{{ {before!r} + {name} + {after!r} }}}}"

    return (
        "{%- set ns = namespace(system='', first=true) -%}"
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' -%}"
        "{%- set ns.system = (" + system.replace("%s", "message.content") + ") -%}"
        "{%- elif message.role == 'user' -%}"
        "{%- if not ns.first %}{{ " + repr(rest) + " }}{% endif -%}"
        "{%- set text = ns.system + message.content -%}{%- set ns.system = '' -%}{%- set ns.first = false -%}"
        + put(user, "text")
        + "{%- else -%}"
        + put(assistant, "message.content")
        + "{%- endif -%}"
        "{%- endfor -%}"
    ).replace("{%- set ns = ", first + "{%- set ns = ", 1)


def _turns(
    turn: str, prompt: str, *, roles: str = "", start: str = "", between: str = "", trim: bool = False
) -> str:
    """Formats where every message is a marked turn. `turn` is a Jinja expression of `role` and `text`."""
    rename = "{{%- set role = {}.get(message.role, message.role) -%}}".format(roles or "{}")
    text = "message.content|trim" if trim else "message.content"
    return (
        f"{start}"
        "{%- for message in messages -%}" + rename + "{%- set text = " + text + " -%}"
        "{{ " + turn + " }}" + between + "{%- endfor -%}"
        "{%- if add_generation_prompt %}{{ " + repr(prompt) + " }}{% endif -%}"
    )


_LLAMA2_SYSTEM = r"'<<SYS>>\n' + %s + '\n<</SYS>>\n\n'"
_PLAIN_SYSTEM = r"%s + '\n\n'"

BUILTIN: dict[str, str] = {
    "chatml": CHATML,
    "llama2": _instruct("", _LLAMA2_SYSTEM, "[INST] %s [/INST]", " %s </s>", rest="<s>"),
    "llama3": _turns(
        r"'<|start_header_id|>' + role + '<|end_header_id|>\n\n' + text + '<|eot_id|>'",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        trim=True,
    ),
    "mistral-v1": _instruct("", _PLAIN_SYSTEM, " [INST] %s [/INST]", " %s</s>"),
    "mistral-v3": _instruct("", _PLAIN_SYSTEM, "[INST] %s[/INST]", " %s</s>"),
    "mistral-v3-tekken": _instruct("", _PLAIN_SYSTEM, "[INST]%s[/INST]", "%s</s>"),
    "mistral-v7": (
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' -%}{{ '[SYSTEM_PROMPT] ' + message.content + '[/SYSTEM_PROMPT]' }}"
        "{%- elif message.role == 'user' -%}{{ '[INST] ' + message.content + '[/INST]' }}"
        "{%- else -%}{{ ' ' + message.content + '</s>' }}{%- endif -%}"
        "{%- endfor -%}"
    ),
    "gemma": (
        "{%- set ns = namespace(system='') -%}"
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' -%}{%- set ns.system = message.content|trim + '\n\n' -%}"
        "{%- else -%}"
        "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' "
        "+ ns.system + message.content|trim + '<end_of_turn>\n' }}{%- set ns.system = '' -%}"
        "{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif -%}"
    ),
    "phi3": _turns(r"'<|' + role + '|>\n' + text + '<|end|>\n'", "<|assistant|>\n"),
    "phi4": _turns(
        r"'<|im_start|>' + role + '<|im_sep|>' + text + '<|im_end|>'", "<|im_start|>assistant<|im_sep|>"
    ),
    "zephyr": _turns(r"'<|' + role + '|>\n' + text + '<|endoftext|>\n'", "<|assistant|>\n"),
    "deepseek": (
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' -%}{{ message.content }}"
        "{%- elif message.role == 'user' -%}{{ '### Instruction:\n' + message.content + '\n' }}"
        "{%- else -%}{{ '### Response:\n' + message.content + '\n<|EOT|>\n' }}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt %}{{ '### Response:\n' }}{% endif -%}"
    ),
    "deepseek3": (
        "{%- for message in messages -%}"
        "{%- if message.role == 'system' -%}{{ message.content + '\n\n' }}"
        "{%- elif message.role == 'user' -%}{{ '<｜User｜>' + message.content }}"
        "{%- else -%}{{ '<｜Assistant｜>' + message.content + '<｜end▁of▁sentence｜>' }}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif -%}"
    ),
    "command-r": _turns(
        "'<|START_OF_TURN_TOKEN|>' + role + text + '<|END_OF_TURN_TOKEN|>'",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        roles="{'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}",
        trim=True,
    ),
    "granite": _turns(
        r"'<|start_of_role|>' + role + '<|end_of_role|>' + text + '<|end_of_text|>\n'",
        "<|start_of_role|>assistant<|end_of_role|>",
    ),
    "smollm": CHATML,
    "llama2-sys": _instruct("", _LLAMA2_SYSTEM, "[INST] %s [/INST]", "%s</s>"),
    "llama2-sys-bos": _instruct("", _LLAMA2_SYSTEM, "[INST] %s [/INST]", "%s</s>", rest="<s>"),
    "llama2-sys-strip": _instruct("", _LLAMA2_SYSTEM, "[INST] %s [/INST]", "%s</s>").replace(
        "message.content", "message.content|trim"
    ),
    **MORE,
}
