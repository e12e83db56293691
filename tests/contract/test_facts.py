"""The contract, row by row: the smallest request to each endpoint, and facts about the fields of the answer.

The facts are llama-server's documented behaviour (OpenAI's, Anthropic's, Ollama's where it has none), seen
from outside: a real model in a process of its own. No fact depends on what the model likes to say, but that
the likeliest text after PROMPT begins with " Paris.", by a factor of three at each token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_server import Server

pytestmark = [pytest.mark.model, pytest.mark.native, pytest.mark.slow]

HI: Any = [{"role": "user", "content": "Say hello."}]
PROMPT = "The capital of France is"
FUNCTION: Any = {
    "name": "get_time",
    "parameters": {"type": "object", "properties": {"city": {"const": "Oslo"}}, "required": ["city"]},
}
TOOL: Any = {"type": "function", "function": FUNCTION}
ANTHROPIC_TOOL = {"name": "get_time", "input_schema": FUNCTION["parameters"]}
CONST = {"const": "zz"}
HELLO: Any = {"grammar": 'root ::= "Hello!"', "ignore_eos": False}
LIMIT: Any = {"temperature": 0, "ignore_eos": True}
"""Beside a limit of tokens: as many are generated."""
LONG = "word " * 2000


def matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None


def keys(names: str) -> Callable[[Any], bool]:
    """These and no others."""
    return lambda value: set(value) == set(names.split())


def has(names: str) -> Callable[[Any], bool]:
    return lambda value: set(names.split()) <= set(value)


def says(*words: str) -> Callable[[Any], bool]:
    return lambda value: all(word in value for word in words)


def length(n: int) -> Callable[[Any], bool]:
    return lambda value: len(value) == n


def positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and value > 0


def is_json(expected: Any) -> Callable[[Any], bool]:
    return lambda value: bool(json.loads(value) == expected)


@dataclass
class Row:
    """A request, and what is true of the answer: `facts[path]` is a value, or a check of the value there."""

    request: str
    body: Any = None
    facts: dict[str, Any] = field(default_factory=dict)
    status: int = 200


def wrong(
    request: str, body: Any, *words: str, status: int = 400, type: str = "invalid_request_error"
) -> Row:
    facts = {"error.code": status, "error.type": type, "error.message": says(*words)}
    return Row(request, body, facts, status)


TIMINGS = has(
    "cache_n prompt_n prompt_ms prompt_per_token_ms prompt_per_second predicted_n predicted_ms "
    "predicted_per_token_ms predicted_per_second"
)
CHAT, COMPLETIONS, NATIVE = "POST /v1/chat/completions", "POST /v1/completions", "POST /completion"
RESPONSES, MESSAGES, OLLAMA = "POST /v1/responses", "POST /v1/messages", "POST /api/chat"
BODY = {
    CHAT: {"messages": HI},
    COMPLETIONS: {"prompt": PROMPT},
    NATIVE: {"prompt": PROMPT},
    RESPONSES: {"input": "Say hello."},
    MESSAGES: {"messages": HI, "max_tokens": 20},
}
ANSWER = {
    CHAT: "choices.0.message.content",
    COMPLETIONS: "choices.0.text",
    NATIVE: "content",
    RESPONSES: "output.0.content.0.text",
    MESSAGES: "content.0.text",
}


def chat(facts: dict[str, Any], **changes: Any) -> Row:
    return Row(CHAT, {"messages": HI, "max_tokens": 5, **LIMIT, **changes}, facts)


def native(facts: dict[str, Any], **changes: Any) -> Row:
    return Row(NATIVE, {"prompt": PROMPT, "n_predict": 5, **LIMIT, **changes}, facts)


def completion(facts: dict[str, Any], **changes: Any) -> Row:
    return Row(COMPLETIONS, {"prompt": PROMPT, "max_tokens": 5, **LIMIT, **changes}, facts)


def response(facts: dict[str, Any], **changes: Any) -> Row:
    return Row(RESPONSES, {"input": "Say hello.", "max_output_tokens": 5, **LIMIT, **changes}, facts)


def message(facts: dict[str, Any], **changes: Any) -> Row:
    return Row(MESSAGES, {"messages": HI, "max_tokens": 5, **LIMIT, **changes}, facts)


ROWS: list[Row] = [
    # health, models, properties
    *(
        Row(f"GET {path}", facts={"": {"status": "ok"}})
        for path in ("/health", "/v1/health", "/livez", "/readyz")
    ),
    *(
        Row(
            f"GET {path}",
            facts={
                "object": "list",
                "data.0.id": "another",  # the alphabetically first alias
                "data.0.aliases": ["another", "smol"],
                "data.0.object": "model",
                "data.0.owned_by": "llamacpp",
                "data.0.meta": keys("vocab_type n_vocab n_ctx n_ctx_train n_embd n_params size ftype"),
                "models.0": has("name model capabilities details"),
            },
        )
        for path in ("/v1/models", "/models")
    ),
    Row("GET /v1/models/smol", facts={"id": "another"}),
    wrong("GET /v1/models/no", None, "no", status=404, type="not_found_error"),
    Row(
        "GET /props",
        facts={
            "": has(
                "default_generation_settings total_slots model_alias model_path model_ftype modalities "
                "media_marker endpoint_slots endpoint_props endpoint_metrics ui ui_settings chat_template "
                "chat_template_caps bos_token eos_token build_info is_sleeping cors_proxy_enabled"
            ),
            "total_slots": 2,
            "default_generation_settings.n_ctx": 1024,
            "default_generation_settings.params.temperature": 0.8,
            "build_info": matches("b.+"),
        },
    ),
    wrong("POST /props", {}, "--props", status=501, type="not_supported_error"),
    Row("GET /slots", facts={"": length(2), "0": has("id n_ctx speculative is_processing")}),
    wrong("GET /nothing", None, "File Not Found", status=404, type="not_found_error"),
    # tokens and templates
    Row("POST /tokenize", {"content": "Hello world"}, {"tokens": [19556, 905]}),
    Row("POST /tokenize", {"content": "<|im_start|>"}, {"tokens": [1]}),
    Row(
        "POST /tokenize",
        {"content": "<|im_start|>", "parse_special": False},
        {"tokens": lambda t: len(t) > 1},
    ),
    Row(
        "POST /tokenize",
        {"content": "é😀", "with_pieces": True},
        {"tokens.0.piece": "é", "tokens.1.piece": [240, 159]},
    ),
    Row("POST /detokenize", {"tokens": [19556, 905]}, {"": {"content": "Hello world"}}),
    Row("POST /apply-template", {"messages": HI}, {"": keys("prompt"), "prompt": matches(".*assistant\n")}),
    *(
        Row(f"POST {path}", {"messages": HI}, {"": {"object": "response.input_tokens", "input_tokens": 33}})
        for path in ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens")
    ),
    # chat
    chat(
        {
            "": keys("choices created id model object system_fingerprint timings usage"),
            "id": matches("chatcmpl-.{32}"),
            "object": "chat.completion",
            "model": "another",
            "system_fingerprint": matches("b.+"),
            "choices.0": keys("finish_reason index message"),
            "choices.0.message": keys("role content"),
            "choices.0.finish_reason": "length",
            "usage.prompt_tokens": 33,
            "usage.completion_tokens": 5,
            "usage.total_tokens": 38,
            "usage.prompt_tokens_details": keys("cached_tokens"),
            "timings": TIMINGS,
        }
    ),
    chat({"timings.predicted_per_second": 0.0, "timings.predicted_n": 1}, max_tokens=1),
    chat({"usage.completion_tokens": 3}, max_tokens=None, n_predict=3),
    chat({"usage.completion_tokens": 3}, max_tokens=None, max_completion_tokens=3),
    chat({"choices": length(2), "choices.1.index": 1}, n=2),
    chat({"timings.cache_n": 0}, cache_prompt=False),
    chat(
        {"choices.0.finish_reason": "stop", "choices.0.message.content": "Hello"},
        stop=["!"],
        max_tokens=20,
        **HELLO,
    ),
    chat(
        {
            "choices.0.logprobs.content": length(5),
            "choices.0.logprobs.content.0": keys("id token bytes logprob top_logprobs"),
            "choices.0.logprobs.content.0.top_logprobs": length(20),
            "choices.0.logprobs.content.0.top_logprobs.0": keys("id token bytes logprob"),
        },
        logprobs=True,
    ),
    chat({"choices.0.logprobs.content.0.top_logprobs": []}, logprobs=True, top_logprobs=0),
    completion(
        {"choices.0.logprobs.tokens.0": lambda token: token != " Paris"},
        logprobs=1,
        logit_bias=[[" Paris", False]],
    ),
    chat(
        {
            "choices.0.finish_reason": "tool_calls",
            "choices.0.message.content": None,
            "choices.0.message.tool_calls.0": keys("id type function"),
            "choices.0.message.tool_calls.0.function.name": "get_time",
            "choices.0.message.tool_calls.0.function.arguments": is_json({"city": "Oslo"}),
        },
        tools=[TOOL],
        tool_choice="required",
        max_tokens=200,
        ignore_eos=False,
    ),
    chat({"__verbose.generation_settings": has("temperature samplers seed")}, verbose=True),
    chat(
        {"choices.0.finish_reason": "length"}, user="u", store=True, metadata={}, service_tier="x", unknown=1
    ),
    chat(
        {"choices.0.finish_reason": "length"}, top_k=None, stop=None, tools=None, response_format=None, n=None
    ),
    wrong(CHAT, {}, "Field 'messages'"),
    wrong(CHAT, {"messages": HI, "top_p": 2}, "Field 'top_p'", "0.0 to 1.0", "got 2"),
    wrong(CHAT, {"messages": HI, "n": 3}, "Field 'n'", "1 to 2", "got 3"),
    wrong(CHAT, {"messages": HI, "id_slot": 2}, "Field 'id_slot'", "-1 to 1", "got 2"),
    wrong(CHAT, {"messages": HI, "n_discard": -1}, "Field 'n_discard'", "0 to", "got -1"),
    wrong(CHAT, {"messages": HI, "top_logprobs": 1}, "Field 'top_logprobs'"),
    wrong(CHAT, {"messages": HI, "response_format": {"type": "x"}}, "response_format.type"),
    wrong(CHAT, {"messages": HI, "json_schema": {"type": "x"}}, "schema is not valid"),
    wrong(CHAT, {"messages": HI, "grammar": "root ::= x"}, "grammar is not valid"),
    wrong(CHAT, {"messages": HI, "grammar": 'root ::= "x"', "tools": [TOOL]}, "'grammar'", "'tools'"),
    wrong(CHAT, {"messages": HI, "tools": [TOOL], "logprobs": True, "stream": True}, "'logprobs'"),
    wrong(CHAT, {"messages": [*HI, *[{"role": "assistant", "content": "a"}] * 2]}, "Cannot have 2 or more"),
    wrong(CHAT, {"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "unsupported content[].type"),
    wrong(
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "image_url",
        status=501,
        type="not_supported_error",
    ),
    Row(
        CHAT,
        {"messages": [{"role": "user", "content": LONG}]},
        {
            "error.type": "exceed_context_size_error",
            "error.message": says("exceeds the available context size"),
            "error.n_prompt_tokens": positive,
            "error.n_ctx": 1024,
        },
        400,
    ),
    # OpenAI's completions
    completion(
        {
            "": keys("choices created id model object system_fingerprint timings usage"),
            "id": matches("chatcmpl-.{32}"),
            "object": "text_completion",
            "choices.0": keys("text index logprobs finish_reason"),
            "choices.0.text": matches(r" Paris\..*"),
            "timings": TIMINGS,
        }
    ),
    completion({"choices": length(2)}, prompt=[[1, 2], "a"]),
    completion({"usage.prompt_tokens": 3}, prompt=[1, 2, 3]),
    completion({"choices.0.text": matches(f"{PROMPT} Paris.*")}, echo=True),
    completion(
        {
            "choices.0.logprobs": keys("content tokens token_logprobs top_logprobs text_offset"),
            "choices.0.logprobs.tokens.0": " Paris",
            "choices.0.logprobs.text_offset.1": 6,
            "choices.0.logprobs.top_logprobs.0": length(2),
        },
        logprobs=2,
    ),
    wrong(COMPLETIONS, {"prompt": 5}, "Field 'prompt'", "got 5"),
    # llama-server's own
    *(
        Row(
            f"POST {path}",
            {"prompt": PROMPT, "n_predict": 5, **LIMIT},
            {
                "": keys(
                    "index content tokens id_slot stop model tokens_predicted tokens_evaluated prompt "
                    "generation_settings has_new_line truncated stop_type stopping_word tokens_cached timings"
                ),
                "content": matches(r" Paris\..*"),
                "tokens": [],
                "stop": True,
                "stop_type": "limit",
                "prompt": PROMPT,
                "tokens_predicted": 5,
                "tokens_evaluated": 5,
                "generation_settings.n_predict": 5,
                "has_new_line": True,
                "truncated": False,
            },
        )
        for path in ("/completion", "/completions")
    ),
    native({"": length(2), "1.index": 1}, prompt=[PROMPT, [1, 2]]),
    native({"prompt": PROMPT}, prompt={"prompt_string": PROMPT}),
    native({"tokens": length(5)}, return_tokens=True),
    native(
        {"": keys("content generation_settings/seed")},
        response_fields=["content", "generation_settings/seed"],
    ),
    native({"stop_type": "word", "stopping_word": "Paris", "content": " "}, stop=["Paris"]),
    native(
        {
            "completion_probabilities": length(5),
            "completion_probabilities.0": keys("id token bytes logprob top_logprobs"),
            "completion_probabilities.0.top_logprobs": length(3),
        },
        n_probs=3,
    ),
    native(
        {"completion_probabilities.0": keys("id token bytes prob top_probs")},
        n_probs=3,
        post_sampling_probs=True,
    ),
    native({"generation_settings.logit_bias.0.bias": None}, ignore_eos=True),
    # Responses
    response(
        {
            "id": matches("resp_.{32}"),
            "object": "response",
            "status": "incomplete",
            "incomplete_details.reason": "max_output_tokens",
            "output.0.type": "message",
            "output.0.id": matches("msg_.{32}"),
            "output.0.content.0": has("type text annotations"),
            "usage": has("input_tokens output_tokens total_tokens input_tokens_details"),
        }
    ),
    response({"status": "completed", "completed_at": positive}, max_output_tokens=20, **HELLO),
    response(
        {
            "output.0.type": "function_call",
            "output.0.id": matches("fc_.{32}"),
            "output.0.call_id": matches("call_.+"),
            "output.0.name": "get_time",
        },
        tools=[{"type": "function", **FUNCTION}],
        tool_choice="required",
        max_output_tokens=200,
        ignore_eos=False,
    ),
    wrong(RESPONSES, {"input": "a", "previous_response_id": "resp_x"}, "previous_response_id"),
    wrong(RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input_file"),
    Row("POST /v1/responses/input_tokens", {"input": "Say hello."}, {"input_tokens": 33}),
    # Anthropic's messages
    message(
        {
            "": keys("id type role content model stop_reason stop_sequence usage"),
            "type": "message",
            "role": "assistant",
            "content.0": keys("type text"),
            "stop_reason": "max_tokens",
            "stop_sequence": None,
            "usage": has("cache_read_input_tokens input_tokens output_tokens"),
            "usage.output_tokens": 5,
        }
    ),
    message(
        {"stop_reason": "stop_sequence", "stop_sequence": "!"},
        stop_sequences=["!"],
        max_tokens=20,
        **HELLO,
    ),
    message(
        {"stop_reason": "tool_use", "content.0": keys("type id name input"), "content.0.name": "get_time"},
        tools=[ANTHROPIC_TOOL],
        tool_choice={"type": "any"},
        max_tokens=200,
        ignore_eos=False,
    ),
    message({"type": "message"}, messages=[]),
    Row(
        MESSAGES, {"messages": HI, "top_p": 2}, {"type": "error", "error.type": "invalid_request_error"}, 400
    ),
    Row("POST /v1/messages/count_tokens", {"messages": HI}, {"": {"input_tokens": 33}}),
    # Ollama's
    Row(
        OLLAMA,
        {"messages": HI, "stream": False, "format": {"const": LONG}, "options": {"num_predict": 5}},
        {"message": keys("role content"), "done": True, "done_reason": "length", "eval_count": 5},
    ),
    Row("GET /api/tags", facts={"models.0": has("name model size details")}),
    # a grammar and schemas, wherever text is generated
    *(
        Row(name, {**BODY[name], **asked}, {ANSWER[name]: check})
        for name in BODY
        for asked, check in (
            ({"grammar": 'root ::= "q"'}, "q"),
            ({"json_schema": CONST}, is_json("zz")),
            ({"response_format": {"type": "json_schema", "json_schema": {"schema": CONST}}}, is_json("zz")),
        )
    ),
    # slots
    Row("POST /slots/0?action=erase", None, {"": keys("id_slot n_erased")}),
    wrong("POST /slots/0?action=save", {"filename": "../x"}, "'../x'"),
    wrong("POST /slots/0?action=x", None, "'x'", "save, restore or erase"),
    # what there is none of
    *(
        wrong(request, {}, status=501, type="not_supported_error")
        for request in (
            *("POST /v1/embeddings", "POST /embedding", "POST /rerank", "POST /v1/reranking"),
            *("POST /v1/audio/transcriptions", "POST /lora-adapters", "POST /models/load", "GET /models/sse"),
        )
    ),
    wrong("POST /infill", {"input_prefix": "a", "input_suffix": "b"}, status=501, type="not_supported_error"),
    Row("GET /lora-adapters", facts={"": []}),
]


@pytest.fixture(scope="module")
def client(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    slots = str(tmp_path_factory.mktemp("slots"))
    options = ("-c", "1024", "-np", "2", "--alias", "smol,another", "--metrics", "--slot-save-path", slots)
    server = Server(smollm2_path, *options)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
    server.stop()


def at(value: Any, path: str) -> Any:
    for key in filter(None, path.split(".")):
        value = value[int(key) if isinstance(value, list) else key]
    return value


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.request.replace(" ", ""))
def test_row(client: httpx.Client, row: Row) -> None:
    method, path = row.request.split()
    answer = client.request(method, path, json=row.body)
    assert answer.status_code == row.status, answer.text
    assert answer.headers["server"] == "llama.cpp"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    body = answer.json()
    for where, expected in row.facts.items():
        found = at(body, where)
        holds = expected(found) if callable(expected) else found == expected
        assert holds, f"{where or 'the answer'}: {found}"


def events(client: httpx.Client, path: str, body: Any) -> list[tuple[str, Any]]:
    """(name, data) of each event; the data of what is no JSON as it is."""
    answer = client.post(path, json={**body, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    found = []
    for block in answer.text.removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        assert set(lines) <= {"event", "data"}
        data = lines["data"]
        found.append((lines.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


SMALL = {"max_tokens": 5, **LIMIT}


def test_the_stream_of_a_chat(client: httpx.Client) -> None:
    *chunks, done = [data for _, data in events(client, "/v1/chat/completions", {"messages": HI, **SMALL})]
    assert done == "[DONE]"
    first, *middle, last = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert "timings" not in first
    assert all(list(c["choices"][0]["delta"]) == ["content"] for c in middle)
    assert all(c["choices"][0]["delta"]["content"] for c in middle)
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    assert TIMINGS(last["timings"])
    assert len({c["id"] for c in chunks}) == 1
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    body = {"messages": HI, "stream_options": {"include_usage": True}, **SMALL}
    *_, (_, usage), _ = events(client, "/v1/chat/completions", body)
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 5)


def test_the_stream_of_a_completion(client: httpx.Client) -> None:
    *chunks, done = [data for _, data in events(client, "/v1/completions", {"prompt": PROMPT, **SMALL})]
    assert done == "[DONE]"
    assert "".join(c["choices"][0]["text"] for c in chunks).startswith(" Paris.")
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 5


def test_the_stream_of_llama_servers_own(client: httpx.Client) -> None:
    *parts, last = [
        data for _, data in events(client, "/completion", {"prompt": PROMPT, **SMALL, "n_probs": 1})
    ]
    for part in parts:
        assert keys(
            "index content tokens stop id_slot tokens_predicted tokens_evaluated completion_probabilities"
        )(part)
        assert part["stop"] is False
    assert "".join(p["content"] for p in parts).startswith(" Paris.")
    assert (last["stop"], last["content"], last["stop_type"]) == (True, "", "limit")


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"max_output_tokens": 5, "ignore_eos": True}, "incomplete"),
        ({"text": {"format": {"type": "json_schema", "name": "z", "schema": CONST}}}, "completed"),
    ],
)
def test_the_stream_of_a_response(client: httpx.Client, changes: dict[str, Any], end: str) -> None:
    found = events(client, "/v1/responses", {"input": "Say hello.", **changes})
    assert all(name == data["type"] for name, data in found)
    assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
    names = [name.removeprefix("response.") for name, _ in found]
    assert list(dict.fromkeys(names)) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", end,
    ]  # fmt: skip
    assert len({data["item_id"] for _, data in found if "item_id" in data}) == 1


def test_the_stream_of_a_message(client: httpx.Client) -> None:
    found = events(client, "/v1/messages", {"messages": HI, **SMALL})
    assert all(name == data["type"] for name, data in found)
    assert list(dict.fromkeys(name for name, _ in found)) == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip
    assert found[0][1]["message"]["usage"]["input_tokens"] > 0
    assert found[-2][1]["delta"]["stop_reason"] == "max_tokens"
    assert found[-2][1]["usage"]["output_tokens"] == 5


def test_a_slot_is_saved_forgotten_and_restored(client: httpx.Client) -> None:
    body = {"prompt": PROMPT + " word" * 70, "n_predict": 1, "id_slot": 1}
    id = client.post("/completion", json=body).json()["id_slot"]
    saved = client.post(f"/slots/{id}?action=save", json={"filename": "f"}).json()
    assert keys("id_slot filename n_saved n_written timings")(saved)
    assert client.post(f"/slots/{id}?action=erase").json()["n_erased"] >= saved["n_saved"] == 64
    restored = client.post(f"/slots/{id}?action=restore", json={"filename": "f"}).json()
    assert keys("id_slot filename n_restored n_read timings")(restored)
    assert restored["n_restored"] == 64
    assert client.post("/completion", json=body).json()["timings"]["cache_n"] == 64


def test_metrics(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answer.headers["process-start-time-unix"].isdecimal()
    for name in (
        *(
            "prompt_tokens_total",
            "prompt_tokens_cached_total",
            "prompt_seconds_total",
            "tokens_predicted_total",
        ),
        *("tokens_predicted_seconds_total", "n_decode_total", "n_tokens_max", "prompt_tokens_seconds"),
        *("spec_decode_num_draft_tokens_total", "spec_decode_num_accepted_tokens_total"),
        *(
            "spec_decode_num_drafts_total",
            "predicted_tokens_seconds",
            "requests_processing",
            "requests_deferred",
        ),
        "n_busy_slots_per_decode",
    ):
        assert re.search(
            rf"^# HELP llamacpp:{name} .+\n# TYPE llamacpp:{name} \w+\nllamacpp:{name} ", answer.text, re.M
        )


def test_a_preflight(client: httpx.Client) -> None:
    for path in ("/v1/chat/completions", "/anything"):
        answer = client.options(path, headers={"Origin": "http://page.example"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "http://page.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS"
        assert answer.headers["access-control-allow-headers"] == "*"
    answer = client.get("/nothing", headers={"Origin": "http://page.example"})
    assert answer.headers["access-control-allow-origin"] == "http://page.example"
