"""What models write when they call tools: an example of each syntax, and readers of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from corral.chat.deltas import Content, Delta, Reasoning, ToolArguments, ToolCall
from corral.chat.reply_format import ReplyFormat
from corral.chat.tools import Tools, read_tools

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}, "exact": {"type": "boolean"}},
            "required": ["query"],
        },
    },
}
TOOLS = [WEATHER, SEARCH]

PARIS = ("get_weather", {"city": "Paris", "days": 3})
ZURICH = ("search", {"query": 'the "Zürich" lake\nat 5', "exact": True})


def tools(choice: Any = "auto", parallel: bool | None = None) -> Tools:
    made = read_tools(TOOLS, choice, parallel)
    assert made is not None
    return made


@dataclass
class Read:
    """A reply, put together again."""

    content: str
    reasoning: str
    calls: list[tuple[str, str]]
    ids: list[str]

    @property
    def parsed(self) -> list[tuple[str, Any]]:
        return [(name, json.loads(arguments)) for name, arguments in self.calls]


def gather(deltas: Iterable[Delta]) -> Read:
    read = Read("", "", [], [])
    for delta in deltas:
        match delta:
            case Content(text):
                assert text
                read.content += text
            case Reasoning(text):
                assert text
                read.reasoning += text
            case ToolCall(index, id, name):
                assert index == len(read.calls)
                read.calls.append((name, ""))
                read.ids.append(id)
            case ToolArguments(index, text):
                assert text
                assert index == len(read.calls) - 1
                name, so_far = read.calls[index]
                read.calls[index] = (name, so_far + text)
    return read


def read(
    format: ReplyFormat, pieces: Sequence[str], offered: Tools | None, *, opened: bool = False, **more: Any
) -> Read:
    ids = count()
    parser = format.parser(offered, opened=opened, new_id=lambda: f"id{next(ids)}", **more)
    deltas = [d for piece in pieces for d in parser.feed(piece)]
    return gather([*deltas, *parser.finish()])


@dataclass
class Example:
    """`text` calls PARIS, `several` both; `template` is what a chat template of the syntax has in it."""

    name: str
    template: str
    text: str
    several: str = ""
    markers: tuple[str, ...] = ()


def js(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


A, B = js(PARIS[1]), js(ZURICH[1])
Z = ZURICH[1]["query"]
CALL = '{"name": "get_weather", "arguments": ' + A + "}"
CALL_2 = '{"name": "search", "arguments": ' + B + "}"


def dsml(language: str, block: str, *calls: str) -> str:
    text = f"<#{block}>\n" + "\n".join(calls) + f"\n</#{block}>"
    return text.replace("#", f"｜{language}｜")


PARIS_ML = (
    '<#invoke name="get_weather">\n<#parameter name="city" string="true">Paris</#parameter>\n'
    '<#parameter name="days" string="false">3</#parameter>\n</#invoke>'
)
ZURICH_ML = (
    f'<#invoke name="search">\n<#parameter name="query" string="true">{Z}</#parameter>\n'
    '<#parameter name="exact" string="false">true</#parameter>\n</#invoke>'
)
GLM_PARIS = (
    "<tool_call@>get_weather<tool_sep@>\n<arg_key@>city</arg_key@>\n<arg_value@>Paris</arg_value@>\n"
    "<arg_key@>days</arg_key@>\n<arg_value@>3</arg_value@>\n</tool_call@>\n"
)
GLM_ZURICH = (
    f"<tool_call@>search<tool_sep@>\n<arg_key@>query</arg_key@>\n<arg_value@>{Z}</arg_value@>\n"
    "<arg_key@>exact</arg_key@>\n<arg_value@>true</arg_value@>\n</tool_call@>\n"
)
CPM_PARIS = (
    '<function name="get_weather"><param name="city">Paris</param><param name="days">3</param></function>'
)
SOLAR_CALLS = "<|tool_calls|>{}<|calls|>"
SOLAR_PARIS = (
    f"<|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>get_weather<|tool_call:args|>{A}<|tool_call:end|>"
)
SOLAR_ZURICH = f"<|tool_call:begin|>f6g7h8i9j0<|tool_call:name|>search<|tool_call:args|>{B}<|tool_call:end|>"
MUSE_PARIS = (
    ' to=get_weather<|message|><atem:function_calls>\n<atem:invoke name="get_weather">\n'
    '<atem:parameter name="city">Paris</atem:parameter>\n<atem:parameter name="days">3</atem:parameter>\n'
    "</atem:invoke>\n</atem:function_calls>"
)
MUSE_ZURICH = (
    ' to=search<|message|><atem:function_calls>\n<atem:invoke name="search">\n'
    f'<atem:parameter name="query">{Z}</atem:parameter>\n<atem:parameter name="exact">true</atem:parameter>\n'
    "</atem:invoke>\n</atem:function_calls>"
)
K3_PARIS = (
    '<|open|>call tool="get_weather" index="1"<|sep|>'
    '<|open|>argument key="city" type="string"<|sep|>Paris<|close|>argument<|sep|>'
    '<|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|><|close|>call<|sep|>'
)
K3_ZURICH = (
    '<|open|>call tool="search" index="2"<|sep|>'
    f'<|open|>argument key="query" type="string"<|sep|>{Z}<|close|>argument<|sep|>'
    '<|open|>argument key="exact" type="boolean"<|sep|>true<|close|>argument<|sep|><|close|>call<|sep|>'
)
M3 = "]<]minimax[>["
M3_PARIS = f'{M3}<invoke name="get_weather">{M3}<city>Paris{M3}</city>{M3}<days>3{M3}</days>{M3}</invoke>'
M3_ZURICH = f'{M3}<invoke name="search">{M3}<query>{Z}{M3}</query>{M3}<exact>true{M3}</exact>{M3}</invoke>'
GLM_CALLS = "<tool_calls@>\n{}</tool_calls@>"

EXAMPLES = [
    Example(
        "hermes",
        "<tool_call>",
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL_2}\n</tool_call>",
    ),
    Example("granite", "<|tool_call|>", f"<|tool_call|>[{CALL}]", f"<|tool_call|>[{CALL}, {CALL_2}]"),
    Example(
        "phi-4-mini",
        "<|tool_call|><|/tool_call|>",
        f"<|tool_call|>[{CALL}]<|/tool_call|>",
        f"<|tool_call|>[{CALL}, {CALL_2}]<|/tool_call|>",
    ),
    Example(
        "nemotron-v2",
        "<TOOLCALL>",
        f"<TOOLCALL>[{CALL}]</TOOLCALL>",
        f"<TOOLCALL>[{CALL}, {CALL_2}]</TOOLCALL>",
    ),
    Example(
        "apriel",
        "<tool_calls>[",
        f"<tool_calls>[{CALL}]</tool_calls>",
        f"<tool_calls>[{CALL}, {CALL_2}]</tool_calls>",
    ),
    Example("minimax-m1", "<tool_calls>", f"<tool_calls>\n{CALL}\n</tool_calls>"),
    Example(
        "apertus",
        "<|tools_prefix|>",
        '<|tools_prefix|>[{"get_weather": ' + A + "}]<|tools_suffix|>",
        '<|tools_prefix|>[{"get_weather": ' + A + '}, {"search": ' + B + "}]<|tools_suffix|>",
    ),
    Example("firefunction-v2", " functools[", f"functools[{CALL}]", f"functools[{CALL}, {CALL_2}]"),
    Example(
        "command-r7b",
        "<|START_ACTION|>",
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": '
        + A
        + "}\n]<|END_ACTION|>",
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": '
        + A
        + '},\n    {"tool_call_id": "1", "tool_name": "search", "parameters": '
        + B
        + "}\n]<|END_ACTION|>",
    ),
    Example(
        "command-r",
        'Action:```json"tool_name"',
        'Action:\n```json\n[\n{"tool_name": "get_weather", "parameters": ' + A + "}\n]\n```",
        'Action:\n```json\n[\n{"tool_name": "get_weather", "parameters": '
        + A
        + '},\n{"tool_name": "search", "parameters": '
        + B
        + "}\n]```",
    ),
    Example(
        "mistral",
        "[TOOL_CALLS]",
        "[TOOL_CALLS][" + CALL[:-1] + ', "id": "abcdefgh1"}]',
        f"[TOOL_CALLS][{CALL}, {CALL_2}]",
    ),
    Example(
        "mistral-args",
        "[TOOL_CALLS][ARGS]",
        f"[TOOL_CALLS]get_weather[ARGS]{A}",
        f"[TOOL_CALLS]get_weather[ARGS]{A}[TOOL_CALLS]search[ARGS]{B}",
    ),
    Example(
        "deepseek-v3",
        "<｜tool▁calls▁begin｜>```json",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{A}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{A}\n```"
        f"<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n{B}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    Example(
        "deepseek-v3.1",
        "<｜tool▁calls▁begin｜>",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{A}<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{A}<｜tool▁call▁end｜>"
        f"<｜tool▁call▁begin｜>search<｜tool▁sep｜>{B}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    Example(
        "kimi-k2",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        f"{A}<|tool_call_end|><|tool_calls_section_end|>",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        f"{A}<|tool_call_end|><|tool_call_begin|>functions.search:1<|tool_call_argument_begin|>{B}"
        "<|tool_call_end|><|tool_calls_section_end|>",
    ),
    Example(
        "functionary-v3.1",
        "<function=</function>",
        f"<function=get_weather>{A}</function>",
        f"<function=get_weather>{A}</function><function=search>{B}</function>",
    ),
    Example("functionary-v3.2", ">>>all", f"get_weather\n{A}", f"get_weather\n{A}>>>search\n{B}"),
    Example(
        "glm-4.5",
        "<tool_call><arg_key><arg_value>",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>search\n"
        f"<arg_key>query</arg_key>\n<arg_value>{Z}</arg_value>\n"
        "<arg_key>exact</arg_key>\n<arg_value>true</arg_value>\n</tool_call>",
    ),
    Example(
        "qwen3-coder",
        "<tool_call><function=<parameter=",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=search>\n<parameter=query>\n"
        f"{Z}\n</parameter>\n<parameter=exact>\ntrue\n</parameter>\n</function>\n</tool_call>",
    ),
    Example(
        "seed-oss",
        "<seed:tool_call>",
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n"
        "<parameter=days>3</parameter>\n</function>\n</seed:tool_call>",
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n"
        "<parameter=days>3</parameter>\n</function>\n</seed:tool_call>\n<seed:tool_call>\n"
        f"<function=search>\n<parameter=query>{Z}</parameter>\n<parameter=exact>true</parameter>\n"
        "</function>\n</seed:tool_call>",
    ),
    Example(
        "minimax-m2",
        "<minimax:tool_call>",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n</minimax:tool_call>',
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n<invoke name="search">\n'
        f'<parameter name="query">{Z}</parameter>\n<parameter name="exact">true</parameter>\n</invoke>\n'
        "</minimax:tool_call>",
    ),
    Example(
        "minimax-m3",
        f"{M3}<tool_call><invoke name=",
        f"{M3}<tool_call>\n{M3_PARIS}\n{M3}</tool_call>",
        f"{M3}<tool_call>\n{M3_PARIS}\n{M3_ZURICH}\n{M3}</tool_call>",
    ),
    Example(
        "kimi-k3",
        "<|open|><|close|><|end_of_msg|>",
        f"<|open|>tools<|sep|>{K3_PARIS}<|close|>tools<|sep|>",
        f"<|open|>tools<|sep|>{K3_PARIS}{K3_ZURICH}<|close|>tools<|sep|>",
    ),
    Example(
        "deepseek-v3.2",
        "｜DSML｜ function_calls>",
        dsml("DSML", "function_calls", PARIS_ML),
        dsml("DSML", "function_calls", PARIS_ML, ZURICH_ML),
    ),
    Example(
        "deepseek-v4",
        "｜DSML｜ tool_calls>",
        dsml("DSML", "tool_calls", PARIS_ML),
        dsml("DSML", "tool_calls", PARIS_ML, ZURICH_ML),
    ),
    Example(
        "gigachat-3.5",
        "｜GCML｜ tool_calls>",
        dsml("GCML", "tool_calls", PARIS_ML),
        dsml("GCML", "tool_calls", PARIS_ML, ZURICH_ML),
    ),
    Example(
        "gigachat-3.1",
        "<|role_sep|><|message_sep|><|function_call|>",
        f"<|function_call|>{CALL}",
        f"<|function_call|>{CALL}<|function_call|>{CALL_2}",
    ),
    Example(
        "gigachat-3",
        "<|role_sep|><|message_sep|>",
        f"<|message_sep|>\n\nfunction call<|role_sep|>\n{CALL}",
        f"<|message_sep|>\n\nfunction call<|role_sep|>\n{CALL}"
        f"<|message_sep|>\n\nfunction call<|role_sep|>\n{CALL_2}",
    ),
    Example(
        "nemotron-mini",
        "<extra_id_1><tool> ",
        f"<toolcall> {CALL} </toolcall>",
        f"<toolcall> {CALL} </toolcall> <toolcall> {CALL_2} </toolcall>",
    ),
    Example(
        "minicpm-5",
        '<function name="<param name="',
        CPM_PARIS,
        CPM_PARIS + '\n<function name="search">'
        f'<param name="query"><![CDATA[{Z}]]></param><param name="exact">true</param>'
        "</function>",
    ),
    Example(
        "hy3",
        "<tool_sep{}><arg_key{}>:opensource",
        GLM_CALLS.format(GLM_PARIS).replace("@", ":opensource"),
        GLM_CALLS.format(GLM_PARIS + GLM_ZURICH).replace("@", ":opensource"),
    ),
    Example(
        "functiongemma",
        "<start_function_call>",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>"
        f"<start_function_call>call:search{{query:<escape>{Z}<escape>,exact:true}}<end_function_call>",
    ),
    Example(
        "gemma-4",
        "<|tool_call>",
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>',
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>'
        f'<|tool_call>call:search{{query:<|"|>{Z}<|"|>,exact:true}}<tool_call|>',
    ),
    Example(
        "lfm2",
        "<|tool_call_start|>",
        '<|tool_call_start|>[get_weather(city="Paris", days=3)]<|tool_call_end|>',
        f'<|tool_call_start|>[get_weather(city="Paris", days=3), search(query={js(Z)}, exact=True)]'
        "<|tool_call_end|>",
    ),
    Example(
        "olmo-3",
        "<functions><function_calls>",
        '<function_calls>\nget_weather(city="Paris", days=3)\n</function_calls>',
        f'<function_calls>\nget_weather(city="Paris", days=3)\nsearch(query={js(Z)}, exact=true)\n'
        "</function_calls>",
    ),
    Example(
        "pythonic",
        "<|start_header_id|>ipython [func_name1(params_name1=params_value1)]",
        '[get_weather(city="Paris", days=3)]',
        f'[get_weather(city="Paris", days=3), search(query={js(Z)}, exact=True)]',
    ),
    Example(
        "harmony",
        "<|start|><|channel|><|message|>",
        f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{A}<|call|>",
    ),
    Example(
        "solar-open",
        "<|tool_call:begin|><|tool_call:args|>",
        SOLAR_CALLS.format(SOLAR_PARIS),
        SOLAR_CALLS.format(SOLAR_PARIS + SOLAR_ZURICH),
    ),
    Example(
        "muse",
        "<|start|><atem:function_calls>",
        MUSE_PARIS,
        f"{MUSE_PARIS}<|eom|><|start|>assistant{MUSE_ZURICH}",
    ),
    Example(
        "llama-3",
        '<|start_header_id|>"parameters"',
        '{"name": "get_weather", "parameters": ' + A + "}",
        '[{"name": "get_weather", "parameters": ' + A + '}, {"name": "search", "parameters": ' + B + "}]",
    ),
    Example(
        "llama-4",
        '<|header_start|>"parameters"',
        '{"name": "get_weather", "parameters": ' + A + "}",
        '[{"name": "get_weather", "parameters": ' + A + '}, {"name": "search", "parameters": ' + B + "}]",
    ),
    Example(
        "xlam",
        "<|start_header_id|>ipython make calls in a single JSON array",
        f"[{CALL}]",
        f"[{CALL}, {CALL_2}]",
    ),
    Example("generic", "", CALL, f"[{CALL}, {CALL_2}]"),
]
PARTS = ("functionary-v3.2", "harmony", "solar-open", "muse")
"""Each part of a reply says what it is: text that does not is none."""
WHOLE = ("llama-3", "llama-4", "generic", "xlam", "pythonic", *PARTS)
"""Where a call begins a reply or a part of it."""
BY_NAME = {e.name: e for e in EXAMPLES}
