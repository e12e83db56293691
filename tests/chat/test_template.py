"""Choosing a template, what it says when it refuses, and the built-in formats."""

from __future__ import annotations

import pytest

from corral.chat.builtin import BUILTIN, CHATML
from corral.chat.prompt import ChatPrompter
from corral.chat.template import ChatTemplate, TemplateError, TemplateSource, choose_template
from corral.errors import OptionError

TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "V"},
]

BUILTIN_PROMPTS = {
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
    "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
    "llama2": "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral-v1": " [INST] S\n\nU [/INST] A</s> [INST] V [/INST]",
    "mistral-v3": "[INST] S\n\nU[/INST] A</s>[INST] V[/INST]",
    "mistral-v3-tekken": "[INST]S\n\nU[/INST]A</s>[INST]V[/INST]",
    "mistral-v7": "[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] U[/INST] A</s>[INST] V[/INST]",
    "gemma": "<start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
    "<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n",
    "phi3": "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n"
    "<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
    "zephyr": "<|system|>\nS<|endoftext|>\n<|user|>\nU<|endoftext|>\n<|assistant|>\nA<|endoftext|>\n"
    "<|user|>\nV<|endoftext|>\n<|assistant|>\n",
    "deepseek": "S### Instruction:\nU\n### Response:\nA\n<|EOT|>\n### Instruction:\nV\n### Response:\n",
    "deepseek3": "S\n\n<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>V<｜Assistant｜>",
    "llama2-sys": "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]A</s>[INST] V [/INST]",
    "llama2-sys-bos": "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]A</s><s>[INST] V [/INST]",
    "llama2-sys-strip": "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]A</s>[INST] V [/INST]",
    "mistral-v7-tekken": "[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]A</s>[INST]V[/INST]",
    "falcon3": "<|system|>\nS\n<|user|>\nU\n<|assistant|>\nA\n<|user|>\nV\n<|assistant|>\n",
    "monarch": "<s>system\nS</s>\n<s>user\nU</s>\n<s>assistant\nA</s>\n<s>user\nV</s>\n<s>assistant\n",
    "openchat": "S<|end_of_turn|>GPT4 Correct User: U<|end_of_turn|>GPT4 Correct Assistant: A<|end_of_turn|>"
    "GPT4 Correct User: V<|end_of_turn|>GPT4 Correct Assistant:",
    "vicuna": "S\n\nUSER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:",
    "vicuna-orca": "SYSTEM: S\nUSER: U\nASSISTANT: A</s>\nUSER: V\nASSISTANT:",
    "deepseek2": "S\n\nUser: U\n\nAssistant: A<｜end▁of▁sentence｜>User: V\n\nAssistant:",
    "chatglm3": "[gMASK]sop<|system|>\n S<|user|>\n U<|assistant|>\n A<|user|>\n V<|assistant|>",
    "chatglm4": "[gMASK]<sop><|system|>\nS<|user|>\nU<|assistant|>\nA<|user|>\nV<|assistant|>\n",
    "glmedge": "<|system|>\nS<|user|>\nU<|assistant|>\nA<|user|>\nV<|assistant|>",
    "minicpm": "S<用户>U<AI>A<用户>V<AI>",
    "exaone3": "[|system|]S[|endofturn|]\n[|user|]U\n[|assistant|]A[|endofturn|]\n[|user|]V\n[|assistant|]",
    "exaone-moe": "<|system|>\nS<|endofturn|>\n<|user|>\nU<|endofturn|>\n"
    "<|assistant|>\nA<|endofturn|>\n<|user|>\nV<|endofturn|>\n<|assistant|>\n",
    "rwkv-world": "System: S\n\nUser: U\n\nAssistant: A\n\nUser: V\n\nAssistant:",
    "bailing-think": "<role>SYSTEM</role>S<role>HUMAN</role>U<role>ASSISTANT</role>A<role>HUMAN</role>V"
    "<role>ASSISTANT</role><think>",
    "llama4": "<|header_start|>system<|header_end|>\n\nS<|eot|><|header_start|>user<|header_end|>\n\nU<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\nA<|eot|><|header_start|>user<|header_end|>\n\nV<|eot|>"
    "<|header_start|>assistant<|header_end|>\n\n",
    "smolvlm": "<|im_start|>S\n\nUser: U<end_of_utterance>\nAssistant: A<end_of_utterance>\n"
    "User: V<end_of_utterance>\nAssistant:",
    "hunyuan-moe": "<|startoftext|>S<|extra_4|><|startoftext|>U<|extra_0|>A<|eos|>"
    "<|startoftext|>V<|extra_0|>",
    "gpt-oss": "<|start|>system<|message|>S<|end|><|start|>user<|message|>U<|end|>"
    "<|start|>assistant<|channel|>final<|message|>A<|end|><|start|>user<|message|>V<|end|><|start|>assistant",
    "seed_oss": "<seed:bos>system\nS<seed:eos><seed:bos>user\nU<seed:eos><seed:bos>assistant\nA<seed:eos>"
    "<seed:bos>user\nV<seed:eos><seed:bos>assistant\n",
    "grok-2": "System: S<|separator|>\n\nHuman: U<|separator|>\n\nAssistant: A<|separator|>\n\n"
    "Human: V<|separator|>\n\nAssistant:",
    "solar-open": "<|begin|>system<|content|>S<|end|><|begin|>user<|content|>U<|end|>"
    "<|begin|>assistant<|content|>A<|end|><|begin|>user<|content|>V<|end|><|begin|>assistant",
    "command-r": "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>V<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
}


@pytest.mark.parametrize(("name", "prompt"), BUILTIN_PROMPTS.items(), ids=BUILTIN_PROMPTS.keys())
def test_a_built_in_template_writes_its_format(name: str, prompt: str) -> None:
    assert ChatTemplate(choose_template({}, name)).render(TALK) == prompt


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_template_puts_the_texts_in_order(name: str) -> None:
    prompt = ChatPrompter.of(choose_template({}, name)).prompt(
        [{**m, "content": f"#{m['content']}"} for m in TALK]
    )
    places = [prompt.index(f"#{text}") for text in "SUAV"]
    assert places == sorted(places)


def test_the_option_wins_over_the_file_and_chatml_is_the_last_resort() -> None:
    metadata = {"tokenizer.chat_template": "from the file"}
    assert choose_template(metadata).text == "from the file"
    assert choose_template(metadata, "chatml").text == CHATML
    assert choose_template(metadata, "{{ 1 }}").text == "{{ 1 }}"
    assert choose_template({}).text == CHATML
    assert "chatml" in choose_template({}).note


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"'chatlm' is neither .* chatml, llama2"):
        choose_template({}, "chatlm")


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("\n\n{{ raise_exception('No system role!') }}", 3, "No system role!"),
        ("a\n{% for m in messages %}\n{{ m.content.nothing.at_all }}{% endfor %}", 3, "UndefinedError"),
        ("{{ 1 / 0 }}", 1, "ZeroDivisionError"),
    ],
)
def test_a_refusal_names_the_line_the_reason_and_the_roles(source: str, line: int, reason: str) -> None:
    with pytest.raises(TemplateError, match="system, user, assistant, user") as caught:
        ChatTemplate(TemplateSource(source, "test")).render(TALK)
    assert caught.value.line == line
    assert reason in str(caught.value)
    assert caught.value.status == 400


def test_the_variables_of_a_template() -> None:
    source = "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}{{ tools }}{{ x }}"
    template = ChatTemplate(TemplateSource(source, "test"), "<s>", "</s>")
    assert template.render(TALK, kwargs={"x": "y"}) == "<s></s>TrueNoney"
    assert template.render(TALK, add_generation_prompt=False) == "<s></s>FalseNone"
