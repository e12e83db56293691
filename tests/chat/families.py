"""Facts about the templates of real model families, as small templates of our own.

A row says how a family writes its turns; `template` makes Jinja of it. What it refuses is refused.
`{}` is a turn's text; `call` and `tools` are Jinja: `f` is a call's function, `r` a tool's result.
"""

from __future__ import annotations

from dataclasses import dataclass

ARGS = "f.arguments | tojson"
HERMES_CALL = '<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ ' + ARGS + " }}}\n</tool_call>"
CHATML = {
    "system": "<|im_start|>system\n{}<|im_end|>\n",
    "user": "<|im_start|>user\n{}<|im_end|>\n",
    "assistant": "<|im_start|>assistant\n{}<|im_end|>\n",
    "result": "<|im_start|>user\n<tool_response>\n{}\n</tool_response><|im_end|>\n",
    "generation": "<|im_start|>assistant\n",
}
CHATML_TOOLS = "<|im_start|>system\n# Tools\n{{ tools | tojson }}<|im_end|>\n"
LLAMA_3 = {
    "system": "<|start_header_id|>system<|end_header_id|>\n\n{}<|eot_id|>",
    "user": "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
    "assistant": "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
    "result": "<|start_header_id|>ipython<|end_header_id|>\n\n{}<|eot_id|>",
    "generation": "<|start_header_id|>assistant<|end_header_id|>\n\n",
}
INST = {"user": "[INST] {} [/INST]", "assistant": " {}</s>", "start": "{{ bos_token }}"}
TEKKEN = {
    "system": "[SYSTEM_PROMPT]{}[/SYSTEM_PROMPT]",
    "user": "[INST]{}[/INST]",
    "assistant": "{}</s>",
    "result": "[TOOL_RESULTS]{}[/TOOL_RESULTS]",
    "start": "{{ bos_token }}",
}
GEMMA = {
    "user": "<start_of_turn>user\n{}<end_of_turn>\n",
    "assistant": "<start_of_turn>model\n{}<end_of_turn>\n",
    "generation": "<start_of_turn>model\n",
    "start": "{{ bos_token }}",
}
DEEPSEEK = {
    "system": "{}",
    "user": "<｜User｜>{}",
    "assistant": "<｜Assistant｜>{}<｜end▁of▁sentence｜>",
    "result": "<｜tool▁output▁begin｜>{}<｜tool▁output▁end｜>",
    "generation": "<｜Assistant｜>",
    "start": "{{ bos_token }}",
}
GRANITE = {
    "system": "<|start_of_role|>system<|end_of_role|>{}<|end_of_text|>\n",
    "user": "<|start_of_role|>user<|end_of_role|>{}<|end_of_text|>\n",
    "assistant": "<|start_of_role|>assistant<|end_of_role|>{}<|end_of_text|>\n",
    "result": "<|start_of_role|>tool<|end_of_role|>{}<|end_of_text|>\n",
    "generation": "<|start_of_role|>assistant<|end_of_role|>",
}
COHERE = {
    "system": "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{}<|END_OF_TURN_TOKEN|>",
    "user": "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|>",
    "assistant": "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{}<|END_OF_TURN_TOKEN|>",
    "result": "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>{}</results><|END_OF_TURN_TOKEN|>",
    "generation": "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "start": "{{ bos_token }}",
}
THINK_SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


@dataclass(frozen=True)
class Family:
    """One row. Empty: the family has no such turn; it is then an error or ignored, as `system_is` says."""

    user: str
    assistant: str
    system: str = ""
    result: str = ""
    generation: str = ""
    start: str = ""
    tools: str = ""
    call: str = ""
    opens: str = ""
    """Jinja behind the generation prompt, as `<think>\\n`."""
    alternates: bool = False
    first_system_only: bool = False
    one_call: bool = False
    short_ids: bool = False
    text_arguments: bool = False
    null_content: bool = False
    """A reply with calls is known by its null content."""
    wants_user: bool = False
    """A conversation without a user is refused."""
    wants_tools: bool = False
    """It goes through the tools without asking whether there are any."""
    wants_text: bool = False
    """A reply of neither text nor calls is refused."""
    mentions: str = ""
    """What else the real template says, that its syntax is known by."""

    # What is to be found out.
    format: str = "generic"
    thinking: str = ""

    @property
    def template(self) -> str:
        def turn(form: str, text: str = "m.content") -> str:
            before, after = form.split("{}")
            return f"{{{{ {before!r} ~ {text} ~ {after!r} }}}}"

        refuse = "{{ raise_exception('%s') }}"
        parts = [self.start]
        if self.mentions:
            parts.append("{# " + self.mentions + " #}")
        if self.tools:
            parts.append("{% if tools %}" + self.tools + "{% endif %}")
        if self.wants_user:
            parts.append(
                "{% if not messages | selectattr('role', 'equalto', 'user') | list %}"
                + refuse % "No user query found"
                + "{% endif %}"
            )
        if self.wants_tools:
            parts.append("{% for t in tools %}{% endfor %}")
        parts.append("{% set ns = namespace(turns=0) %}{% for m in messages %}")
        if self.wants_text:
            parts.append(
                "{% if m.role == 'assistant' and not m.content and not m.tool_calls %}"
                + refuse % "A reply needs content or calls"
                + "{% endif %}"
            )
        if self.alternates:
            parts.append(
                "{% if m.role in ['user', 'assistant'] and not m.tool_calls %}"
                "{% if (m.role == 'user') != (ns.turns % 2 == 0) %}"
                + refuse % "Conversation roles must alternate"
                + "{% endif %}{% set ns.turns = ns.turns + 1 %}{% endif %}"
            )
        parts.append("{% if m.role == 'system' %}")
        if self.first_system_only:
            parts.append("{% if not loop.first %}" + refuse % "System message must be first" + "{% endif %}")
        parts.append(turn(self.system) if self.system else refuse % "System role not supported")
        parts.append("{% elif m.role == 'user' %}" + turn(self.user))
        if self.call:
            known = "m.content is none" if self.null_content else "m.tool_calls"
            parts.append("{% elif m.role == 'assistant' and " + known + " %}")
            if self.one_call:
                parts.append("{% if m.tool_calls | length > 1 %}" + refuse % "only one call" + "{% endif %}")
            before, after = self.assistant.split("{}")
            parts.append(f"{{{{ {before!r} }}}}{{{{ m.content or '' }}}}")
            parts.append("{% for c in m.tool_calls %}{% set f = c.function %}")
            if self.short_ids:
                parts.append("{% if c.id | length != 9 %}" + refuse % "ids have 9 characters" + "{% endif %}")
            if self.text_arguments:
                parts.append("{{ '' + f.arguments if f.arguments is not string }}")
            parts.append(self.call + f"{{% endfor %}}{{{{ {after!r} }}}}")
        parts.append("{% elif m.role == 'assistant' %}" + turn(self.assistant))
        if self.result:
            parts.append("{% elif m.role == 'tool' %}" + turn(self.result))
        parts.append("{% else %}" + refuse % "unknown role" + "{% endif %}{% endfor %}")
        parts.append("{% if add_generation_prompt %}" + self.generation + self.opens + "{% endif %}")
        return "".join(parts)


def parameters(form: str) -> str:
    """Jinja for arguments one by one; `K` and `V` are key and value."""
    value = "{{ v if v is string else v | tojson }}"
    body = form.replace("K", "{{ k }}").replace("V", value)
    return "{% for k, v in f.arguments.items() %}" + body + "{% endfor %}"


FAMILIES: dict[str, Family] = {
    "yi": Family(**CHATML),
    "qwen-2.5": Family(**CHATML, tools=CHATML_TOOLS, call=HERMES_CALL, format="hermes"),
    "qwen-3": Family(
        **CHATML,
        tools=CHATML_TOOLS,
        call=HERMES_CALL,
        opens=THINK_SWITCH,
        format="hermes",
        thinking="<think>",
    ),
    "qwen-3-thinking-2507": Family(
        **CHATML,
        tools=CHATML_TOOLS,
        call=HERMES_CALL,
        opens="<think>\n",
        format="hermes",
        thinking="<think>",
        mentions="</think>",
    ),
    "qwen-3-coder": Family(
        **CHATML,
        tools=CHATML_TOOLS,
        call="<tool_call>\n<function={{ f.name }}>\n"
        + parameters("<parameter=K>\nV\n</parameter>\n")
        + "</function>\n</tool_call>",
        format="qwen3-coder",
    ),
    "qwen-3.5": Family(
        **CHATML,
        first_system_only=True,
        wants_user=True,
        tools="<|im_start|>user\n# Tools\n{{ tools | tojson }}<|im_end|>\n",
        call="<tool_call>\n<function={{ f.name }}>\n"
        + parameters("<parameter=K>\nV\n</parameter>\n")
        + "</function>\n</tool_call>",
        opens="<think>\n",
        format="qwen3-coder",
        thinking="<think>",
    ),
    "hermes-3-tool-use": Family(
        **CHATML, wants_tools=True, tools=CHATML_TOOLS, call=HERMES_CALL, format="hermes"
    ),
    "firefunction-2": Family(
        **LLAMA_3,
        start="{{ 'Functions: ' + functions }}",
        call=' functools[{"name": "{{ f.name }}", "arguments": {{ ' + ARGS + " }}}]",
        one_call=True,
        format="firefunction-v2",
    ),
    "ministral-3": Family(
        **TEKKEN,
        alternates=True,
        wants_text=True,
        tools="[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]",
        call="[TOOL_CALLS]{{ f.name }}[ARGS]{{ " + ARGS + " }}",
        mentions="[THINK] [/THINK]",
        format="mistral-args",
        thinking="[THINK]",
    ),
    "apriel-1.6": Family(
        system="<|begin_system|>\n{}\n",
        user="<|begin_user|>\n{}\n",
        assistant="<|begin_assistant|>\n{}\n<|end|>\n",
        result="<|begin_tool_result|>\n{}\n",
        generation="<|begin_assistant|>\n",
        tools="{{ tools | tojson }}",
        call='<tool_calls>[{"name": "{{ f.name }}", "arguments": {{ ' + ARGS + " }}}]</tool_calls>",
        one_call=True,
        opens="Here are my reasoning steps:\n",
        mentions="[BEGIN FINAL RESPONSE]",
        format="apriel",
        thinking="Here are my reasoning steps:",
    ),
    "lfm-2-8b": Family(
        **CHATML,
        tools="<|im_start|>system\nList of tools: <|tool_list_start|>[{{ tools | tojson }}]<|im_end|>\n",
        format="lfm2",
    ),
    "hermes-2-pro": Family(**CHATML, tools=CHATML_TOOLS, call=HERMES_CALL, format="hermes"),
    "smollm-3": Family(
        **CHATML,
        start="{% if xml_tools %}<|im_start|>system\n<tools>{{ xml_tools | tojson }}</tools>\n"
        "<tool_call>...</tool_call><|im_end|>\n{% endif %}",
        opens=THINK_SWITCH,
        format="hermes",
        thinking="<think>",
    ),
    "llama-2": Family(**INST, alternates=True),
    "llama-3": Family(**LLAMA_3),
    "llama-3.1": Family(
        **LLAMA_3,
        tools="Environment: ipython\n{{ tools | tojson }}",
        call='{"name": "{{ f.name }}", "parameters": {{ ' + ARGS + " }}}",
        one_call=True,
        format="llama-3",
    ),
    "toolace-2": Family(
        **LLAMA_3,
        tools="Put calls in the format of [func_name1(params_name1=params_value1), func_name2(params)]\n"
        "{{ tools | tojson }}",
        call="{{ '[' if loop.first else ', ' }}{{ f.name }}("
        + "{% for k, v in f.arguments.items() %}{{ k }}={{ v | tojson }}{% endfor %})"
        + "{{ ']' if loop.last }}",
        format="pythonic",
    ),
    "olmo-3": Family(
        **CHATML,
        tools="<|im_start|>system\n<functions>{{ tools | tojson }}</functions><|im_end|>\n",
        call="<function_calls>\n{{ f.name }}("
        + "{% for k, v in f.arguments.items() %}{{ k }}={{ v | tojson }}{% endfor %})\n</function_calls>",
        one_call=True,
        format="olmo-3",
    ),
    "functionary-3.1": Family(
        **LLAMA_3,
        tools="{{ tools | tojson }}",
        call="<function={{ f.name }}>{{ " + ARGS + " }}</function>",
        format="functionary-v3.1",
    ),
    "functionary-3.2": Family(
        **(LLAMA_3 | {"generation": LLAMA_3["generation"] + ">>>"}),
        tools="{{ tools | tojson }}",
        call=">>>{{ f.name }}\n{{ f.arguments }}",
        text_arguments=True,
        mentions=">>>all",
        format="functionary-v3.2",
    ),
    "mistral-7b-v0.2": Family(**INST, alternates=True),
    "mistral-nemo": Family(
        **(TEKKEN | {"system": ""}),
        alternates=True,
        short_ids=True,
        tools="[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]",
        call='{{ "[TOOL_CALLS][" if loop.first else ", " }}{"name": "{{ f.name }}", "arguments": {{ '
        + ARGS
        + ' }}, "id": "{{ c.id }}"}{{ "]" if loop.last }}',
        format="mistral",
    ),
    "mistral-small-3.2": Family(
        **TEKKEN,
        alternates=True,
        tools="[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]",
        call="[TOOL_CALLS]{{ f.name }}[ARGS]{{ " + ARGS + " }}",
        format="mistral-args",
    ),
    "magistral": Family(
        **TEKKEN,
        alternates=True,
        tools="[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]",
        call="[TOOL_CALLS]{{ f.name }}[ARGS]{{ " + ARGS + " }}",
        mentions="[THINK] [/THINK]",
        format="mistral-args",
        thinking="[THINK]",
    ),
    "gemma-2": Family(**GEMMA, alternates=True),
    "gigachat-3": Family(
        system="system<|role_sep|>\n{}<|message_sep|>\n\n",
        user="user<|role_sep|>\n{}<|message_sep|>\n\n",
        assistant="assistant<|role_sep|>\n{}<|message_sep|>\n\n",
        result="function result<|role_sep|>\n{}<|message_sep|>\n\n",
        generation="assistant<|role_sep|>\n",
        start="{{ bos_token }}",
        first_system_only=True,
        tools="function descriptions<|role_sep|>\n{{ tools | tojson }}<|message_sep|>\n\n",
        call='<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "{{ f.name }}", "arguments": {{ '
        + ARGS
        + " }}}",
        one_call=True,
        format="gigachat-3",
    ),
    "gigachat-3.1": Family(
        system="system<|role_sep|>\n{}<|message_sep|>\n\n",
        user="user<|role_sep|>\n{}<|message_sep|>\n\n",
        assistant="assistant<|role_sep|>\n{}<|message_sep|>\n\n",
        result="function result<|role_sep|>\n{}<|message_sep|>\n\n",
        generation="assistant<|role_sep|>\n",
        tools="function descriptions<|role_sep|>\n{{ tools | tojson }}<|message_sep|>\n\n",
        call='<|function_call|>{"name": "{{ f.name }}", "arguments": {{ ' + ARGS + " }}}",
        one_call=True,
        format="gigachat-3.1",
    ),
    "minicpm-5": Family(
        **CHATML,
        tools="<|im_start|>system\n# Tools\n{{ tools | tojson }}<|im_end|>\n",
        call='<function name="{{ f.name }}">' + parameters('<param name="K">V</param>') + "</function>",
        opens=THINK_SWITCH,
        format="minicpm-5",
        thinking="<think>",
    ),
    "hy3": Family(
        system="{}",
        user="<｜hy_User:opensource｜>{}",
        assistant="<｜hy_Assistant:opensource｜>{}<｜hy_eos:opensource｜>",
        result="<tool_response:opensource>\n{}\n</tool_response:opensource>\n",
        generation="<｜hy_Assistant:opensource｜>",
        start="{% set tag = ':opensource' %}",
        tools="# Tools\n{{ tools | tojson }}",
        call="{{ '<tool_calls{}>\n<tool_call{}>{}<tool_sep{}>\n'.format(tag, tag, f.name, tag) }}"
        + "{% for k, v in f.arguments.items() %}"
        + "{{ '<arg_key{}>{}</arg_key{}>\n'.format(tag, k, tag) }}"
        + "{{ '<arg_value{}>{}</arg_value{}>\n'.format(tag, v, tag) }}"
        + "{% endfor %}{{ '</tool_call{}>\n</tool_calls{}>'.format(tag, tag) }}",
        opens="{{ '<think{}></think{}>'.format(tag, tag) }}",
        format="hy3",
        thinking="<think:opensource>",
    ),
    "nemotron-mini": Family(
        system="<extra_id_0>System\n{}\n",
        user="<extra_id_1>User\n{}\n",
        assistant="<extra_id_1>Assistant\n{}\n",
        result="<extra_id_1>Tool\n{}\n",
        generation="<extra_id_1>Assistant\n",
        tools="{% for t in tools %}<tool> {{ t | tojson }} </tool>{% endfor %}",
        format="nemotron-mini",
    ),
    "functiongemma": Family(
        **(GEMMA | {"system": "<start_of_turn>developer\n{}<end_of_turn>\n"}),
        result="<start_of_turn>developer\n<start_function_response>{}<end_function_response><end_of_turn>\n",
        tools="{{ tools | tojson }}",
        call="<start_function_call>call:{{ f.name }}{ {{- " + "f.arguments | tojson }}}<end_function_call>",
        format="functiongemma",
    ),
    "gemma-4": Family(
        system="<|turn>system\n{}<turn|>\n",
        user="<|turn>user\n{}<turn|>\n",
        assistant="<|turn>model\n{}<turn|>\n",
        result="<|tool_response>{}<tool_response|>",
        generation="<|turn>model\n",
        start="{{ bos_token }}",
        tools="<|tool>{{ tools | tojson }}<tool|>",
        call="<|tool_call>call:{{ f.name }}{ {{- f.arguments | tojson }}}<tool_call|>",
        opens="{% if not enable_thinking %}<|channel>thought\n<channel|>{% endif %}",
        format="gemma-4",
        thinking="<|channel>thought",
    ),
    "deepseek-r1": Family(
        **DEEPSEEK,
        tools="{{ tools | tojson }}",
        call="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ f.name }}\n```json\n"
        "{{ f.arguments }}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        text_arguments=True,
        null_content=True,
        opens="<think>\n",
        format="deepseek-v3",
        thinking="<think>",
    ),
    "deepseek-v3.1": Family(
        **DEEPSEEK,
        tools="{{ tools | tojson }}",
        call="{{ '<｜tool▁calls▁begin｜>' if loop.first }}<｜tool▁call▁begin｜>{{ f.name }}<｜tool▁sep｜>"
        "{{ f.arguments | tojson }}<｜tool▁call▁end｜>{{ '<｜tool▁calls▁end｜>' if loop.last }}",
        opens="{% if thinking %}<think>{% else %}</think>{% endif %}",
        format="deepseek-v3.1",
        thinking="<think>",
    ),
    "deepseek-v3.2": Family(
        **DEEPSEEK,
        tools="{{ tools | tojson }}",
        call='<｜DSML｜function_calls>\n<｜DSML｜invoke name="{{ f.name }}">\n'
        + parameters('<｜DSML｜parameter name="K">V</｜DSML｜parameter>\n')
        + "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        opens="{% if thinking %}<think>{% else %}</think>{% endif %}",
        format="deepseek-v3.2",
        thinking="<think>",
    ),
    "command-r-plus": Family(
        **COHERE,
        tools="{{ tools | tojson }}",
        call='Action:\n```json\n[{"tool_name": "{{ f.name }}", "parameters": {{ ' + ARGS + " }}}]\n```",
        one_call=True,
        format="command-r",
    ),
    "command-r7b": Family(
        **COHERE,
        tools="{{ tools | tojson }}",
        call='<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "{{ f.name }}", "parameters": {{ '
        + ARGS
        + " }}}]<|END_ACTION|>",
        one_call=True,
        mentions="<|START_THINKING|><|END_THINKING|><|START_RESPONSE|><|END_RESPONSE|>",
        format="command-r7b",
        thinking="<|START_THINKING|>",
    ),
    "glm-4.5": Family(
        system="<|system|>\n{}",
        user="<|user|>\n{}",
        assistant="<|assistant|>\n{}",
        result="<|observation|>\n<tool_response>\n{}\n</tool_response>",
        generation="<|assistant|>",
        start="[gMASK]<sop>",
        tools="{{ tools | tojson }}",
        call="<tool_call>{{ f.name }}\n"
        + parameters("<arg_key>K</arg_key>\n<arg_value>V</arg_value>\n")
        + "</tool_call>",
        opens="{% if enable_thinking is defined and not enable_thinking %}\n<think></think>{% endif %}",
        format="glm-4.5",
        thinking="<think>",
    ),
    "kimi-k2": Family(
        system="<|im_system|>system<|im_middle|>{}<|im_end|>",
        user="<|im_user|>user<|im_middle|>{}<|im_end|>",
        assistant="<|im_assistant|>assistant<|im_middle|>{}<|im_end|>",
        result="<|im_system|>tool<|im_middle|>{}<|im_end|>",
        generation="<|im_assistant|>assistant<|im_middle|>",
        tools="<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>",
        call="<|tool_calls_section_begin|><|tool_call_begin|>functions.{{ f.name }}:{{ loop.index0 }}"
        "<|tool_call_argument_begin|>{{ f.arguments | tojson }}<|tool_call_end|><|tool_calls_section_end|>",
        format="kimi-k2",
    ),
    "kimi-k3": Family(
        system='<|open|>message role="system"<|sep|>{}<|close|>message<|sep|><|end_of_msg|>',
        user='<|open|>message role="user"<|sep|>{}<|close|>message<|sep|><|end_of_msg|>',
        assistant='<|open|>message role="assistant"<|sep|><|open|>response<|sep|>{}<|close|>response<|sep|>'
        "<|close|>message<|sep|><|end_of_msg|>",
        result='<|open|>message role="tool"<|sep|>{}<|close|>message<|sep|><|end_of_msg|>',
        generation='<|open|>message role="assistant"<|sep|>',
        tools='<|open|>message role="system"<|sep|>{{ tools | tojson }}<|close|>message<|sep|>',
        call='<|open|>tools<|sep|><|open|>call tool="{{ f.name }}" index="1"<|sep|>'
        + parameters('<|open|>argument key="K" type="string"<|sep|>V<|close|>argument<|sep|>')
        + "<|close|>call<|sep|><|close|>tools<|sep|>",
        opens="<|open|>{{ 'response' if thinking is false else 'think' }}<|sep|>",
        format="kimi-k3",
        thinking="<|open|>think<|sep|>",
    ),
    "minimax-m2": Family(
        system="]~b]system\n{}[e~[\n",
        user="]~b]user\n{}[e~[\n",
        assistant="]~b]ai\n{}[e~[\n",
        result="]~b]tool\n<response>{}</response>[e~[\n",
        generation="]~b]ai\n",
        tools="{{ tools | tojson }}",
        call='<minimax:tool_call>\n<invoke name="{{ f.name }}">\n'
        + parameters('<parameter name="K">V</parameter>\n')
        + "</invoke>\n</minimax:tool_call>",
        opens="<think>\n",
        format="minimax-m2",
        thinking="<think>",
    ),
    "minimax-m3": Family(
        system="]~b]developer\n{}[e~[\n",
        user="]~b]user\n{}[e~[\n",
        assistant="]~b]ai\n{}[e~[\n",
        result="]~b]tool\n<response>{}</response>[e~[\n",
        generation="]~b]ai\n",
        tools="{{ tools | tojson }}",
        call="{% set tag = ']<]minimax[>[' %}{{ tag }}<tool_call>\n{{ tag }}<invoke name=\"{{ f.name }}\">"
        + parameters("{{ tag }}<K>V{{ tag }}</K>")
        + "{{ tag }}</invoke>\n{{ tag }}</tool_call>",
        opens="{% if thinking_mode == 'enabled' %}<mm:think>{% endif %}",
        mentions="</mm:think>",
        format="minimax-m3",
        thinking="<mm:think>",
    ),
    "seed-oss": Family(
        system="<seed:bos>system\n{}<seed:eos>",
        user="<seed:bos>user\n{}<seed:eos>",
        assistant="<seed:bos>assistant\n{}<seed:eos>",
        result="<seed:bos>tool\n{}<seed:eos>",
        generation="<seed:bos>assistant\n",
        tools="{{ tools | tojson }}",
        call="<seed:tool_call>\n<function={{ f.name }}>\n"
        + parameters("<parameter=K>V</parameter>\n")
        + "</function>\n</seed:tool_call>",
        mentions="<seed:think></seed:think>",
        format="seed-oss",
        thinking="<seed:think>",
    ),
    "granite-3.3": Family(
        **GRANITE,
        tools="{{ tools | tojson }}",
        mentions="respond only with <|tool_call|> ... <think></think> <response></response>",
        format="granite",
        thinking="<think>",
    ),
    "granite-4": Family(**GRANITE, tools="{{ tools | tojson }}", call=HERMES_CALL, format="hermes"),
    "phi-3": Family(
        system="<|system|>\n{}<|end|>\n",
        user="<|user|>\n{}<|end|>\n",
        assistant="<|assistant|>\n{}<|end|>\n",
        generation="<|assistant|>\n",
    ),
    "phi-4-mini": Family(
        system="<|system|>{}<|end|>",
        user="<|user|>{}<|end|>",
        assistant="<|assistant|>{}<|end|>",
        result="<|tool|>{}<|end|>",
        generation="<|assistant|>",
        tools="<|tool|>{{ tools | tojson }}<|/tool|>",
        call='<|tool_call|>[{"name": "{{ f.name }}", "arguments": {{ ' + ARGS + " }}}]<|/tool_call|>",
        one_call=True,
        format="phi-4-mini",
    ),
    "lfm-2": Family(
        **CHATML,
        tools="<|im_start|>system\nList of tools: [{{ tools | tojson }}]<|im_end|>\n",
        call="<|tool_call_start|>[{{ f.name }}("
        + "{% for k, v in f.arguments.items() %}{{ k }}={{ v | tojson }}{% endfor %})]<|tool_call_end|>",
        one_call=True,
        format="lfm2",
    ),
    "apertus": Family(
        system="<|system_start|>{}<|system_end|>",
        user="<|user_start|>{}<|user_end|>",
        assistant="<|assistant_start|>{}<|assistant_end|>",
        result="[{}]",
        generation="<|assistant_start|>",
        tools="<|developer_start|>{{ tools | tojson }}<|developer_end|>",
        call='<|tools_prefix|>[{"{{ f.name }}": {{ ' + ARGS + " }}}]<|tools_suffix|>",
        one_call=True,
        mentions="<|inner_prefix|><|inner_suffix|>",
        format="apertus",
        thinking="<|inner_prefix|>",
    ),
    "nemotron-nano-v2": Family(
        system="<SPECIAL_10>System\n{}\n",
        user="<SPECIAL_11>User\n{}\n",
        assistant="<SPECIAL_11>Assistant\n{}\n<SPECIAL_12>\n",
        result="<SPECIAL_11>User\n<TOOL_RESPONSE>[{}]</TOOL_RESPONSE>\n",
        generation="<SPECIAL_11>Assistant\n",
        tools="<AVAILABLE_TOOLS>{{ tools | tojson }}</AVAILABLE_TOOLS>",
        call='<TOOLCALL>[{"name": "{{ f.name }}", "arguments": {{ ' + ARGS + " }}}]</TOOLCALL>",
        one_call=True,
        opens="<think>\n",
        format="nemotron-v2",
        thinking="<think>",
    ),
    "gpt-oss": Family(
        system="<|start|>developer<|message|>{}<|end|>",
        user="<|start|>user<|message|>{}<|end|>",
        assistant="<|start|>assistant<|channel|>final<|message|>{}<|end|>",
        result="<|start|>functions.f to=assistant<|channel|>commentary<|message|>{}<|end|>",
        generation="<|start|>assistant",
        first_system_only=True,
        tools="<|start|>developer<|message|># Tools\n{{ tools | tojson }}<|end|>",
        call="<|start|>assistant to=functions.{{ f.name }}<|channel|>commentary json<|message|>"
        "{{ f.arguments | tojson }}<|call|>",
        one_call=True,
        format="harmony",
    ),
    "solar-open": Family(
        system="<|begin|>system<|content|>{}<|end|>",
        user="<|begin|>user<|content|>{}<|end|>",
        assistant="<|begin|>assistant<|content|>{}<|end|>",
        result="<|begin|>tool<|tool_response|>{}<|end|>",
        generation="<|begin|>assistant",
        tools="<|begin|>system<|content|><|tools:begin|>{{ tools | tojson }}<|tools:end|><|end|>",
        call="<|begin|>assistant<|tool_calls|><|tool_call:begin|>{{ c.id }}<|tool_call:name|>{{ f.name }}"
        "<|tool_call:args|>{{ " + ARGS + " }}<|tool_call:end|><|calls|>",
        format="solar-open",
    ),
    "muse": Family(
        system="<|start|>system<|message|>{}<|eot|>",
        user="<|start|>user<|message|>{}<|eot|>",
        assistant="<|start|>assistant to=user<|message|>{}<|eot|>",
        result="<|start|>tool f<|message|>{}<|eot|>",
        generation="<|start|>assistant",
        tools="<|start|>system<|message|>{{ tools | tojson }}<|eot|>",
        call='<atem:function_calls>\n<atem:invoke name="{{ f.name }}">\n'
        + parameters('<atem:parameter name="K">V</atem:parameter>\n')
        + "</atem:invoke>\n</atem:function_calls>",
        format="muse",
    ),
    "zephyr": Family(
        system="<|system|>\n{}</s>\n",
        user="<|user|>\n{}</s>\n",
        assistant="<|assistant|>\n{}</s>\n",
        generation="<|assistant|>\n",
    ),
    "exaone-deep": Family(
        system="[|system|]{}[|endofturn|]\n",
        user="[|user|]{}\n",
        assistant="[|assistant|]{}[|endofturn|]\n",
        generation="[|assistant|]",
        opens="<thought>\n",
        thinking="<thought>",
    ),
    "openthinker": Family(
        **CHATML, mentions="<|begin_of_thought|> <|end_of_thought|>", thinking="<|begin_of_thought|>"
    ),
}
