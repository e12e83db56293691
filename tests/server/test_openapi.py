"""GET /openapi.json, and that the server keeps to it."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
from fake_engine import FakeEngine, fake_state
from jsonschema import Draft202012Validator

from corral.engine.messages import Output, Progress, Timings
from corral.server.app import ROUTES
from corral.server.fields import DIFFERS, MEANING, OF_STRUCT, meaning
from corral.server.openapi import OPERATIONS, document

DOCUMENT = document(ROUTES)
BODIES = {o.body for o in OPERATIONS.values() if o.body is not None}
HI = [{"role": "user", "content": "hi"}]


def validator(schema: Any) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def answer_schema(method: str, path: str, kind: str = "application/json") -> Any:
    return DOCUMENT["paths"][path][method.lower()]["responses"]["200"]["content"][kind]


async def test_it_is_served(client: httpx.AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert response.headers["content-type"].startswith("application/json")
    assert response.json() == DOCUMENT


async def test_its_paths_have_the_prefix(connected: Any) -> None:
    async with connected(fake_state(api_prefix="/x")) as client:
        paths = (await client.get("/x/openapi.json")).json()["paths"]
    assert "/x/v1/chat/completions" in paths
    assert all(path.startswith("/x/") for path in paths)


def test_every_route_is_in_it() -> None:
    found = {(m.upper(), path) for path, methods in DOCUMENT["paths"].items() for m in methods}
    assert found == {(method, path.replace(":path", "")) for method, path, _ in ROUTES}


def test_operations_have_names_of_their_own() -> None:
    ids = [o["operationId"] for methods in DOCUMENT["paths"].values() for o in methods.values()]
    assert len(ids) == len(set(ids)) == len(ROUTES)


def test_every_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_every_field_has_a_meaning_and_its_bounds(body: type[msgspec.Struct]) -> None:
    properties = DOCUMENT["components"]["schemas"][body.__name__]["properties"]
    assert list(properties) == list(body.__struct_encode_fields__)
    for name, schema in properties.items():
        assert schema["description"] == meaning(body.__name__, name)
        for kind in schema.get("anyOf", [schema]):
            if kind.get("type") in ("integer", "number"):
                assert "minimum" in kind, f"{body.__name__}.{name} has no bounds"
                assert "maximum" in kind, f"{body.__name__}.{name} has no bounds"


def test_no_meaning_is_of_a_field_that_is_gone() -> None:
    names = {name for body in BODIES for name in body.__struct_fields__}
    assert set(MEANING) - names == set(DIFFERS) - names == set()
    by_name = {body.__name__: body.__struct_fields__ for body in BODIES}
    assert all(name in by_name[struct] for struct, name in OF_STRUCT)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/health", None),
        ("GET", "/v1/models", None),
        ("GET", "/props", None),
        ("GET", "/slots", None),
        ("GET", "/lora-adapters", None),
        ("POST", "/v1/chat/completions", {"messages": HI, "logprobs": True, "n": 2}),
        ("POST", "/v1/completions", {"prompt": ["a", "b"], "logprobs": 2, "echo": False}),
        ("POST", "/completion", {"prompt": "a", "n_probs": 2, "return_tokens": True}),
        ("POST", "/completion", {"prompt": ["a", "b"], "response_fields": ["content"]}),
        ("POST", "/v1/responses", {"input": "hi"}),
        ("POST", "/v1/responses/input_tokens", {"input": "hi"}),
        ("POST", "/v1/messages", {"messages": HI, "max_tokens": 5}),
        ("POST", "/v1/messages/count_tokens", {"messages": HI}),
        ("POST", "/v1/chat/completions/input_tokens", {"messages": HI}),
        ("POST", "/apply-template", {"messages": HI}),
        ("POST", "/api/chat", {"messages": HI, "stream": False}),
        ("POST", "/api/chat", {"messages": []}),
        ("POST", "/api/generate", {"prompt": "a", "stream": False}),
        ("POST", "/api/show", {"model": "x"}),
        ("GET", "/api/tags", None),
        ("GET", "/api/ps", None),
        ("GET", "/api/version", None),
        ("POST", "/tokenize", {"content": "abc", "with_pieces": True}),
        ("POST", "/detokenize", {"tokens": [97]}),
        ("POST", "/slots/0?action=save", {"filename": "a"}),
        ("POST", "/slots/0?action=erase", None),
    ],
)
async def test_answers_are_as_it_says(client: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    response = await client.request(method, path, json=body)
    assert response.status_code == 200, response.text
    at = path.partition("?")[0].replace("/slots/0", "/slots/{id}")
    validator(answer_schema(method, at)["schema"]).validate(response.json())


@pytest.mark.parametrize(
    ("path", "body"), [("/api/chat", {"messages": HI}), ("/api/generate", {"prompt": "a"})]
)
async def test_lines_are_as_it_says(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    lines = (await client.post(path, json=body)).text.splitlines()
    assert len(lines) == 3
    schema = answer_schema("POST", path, "application/x-ndjson")["schema"]
    for line in lines:
        validator(schema).validate(msgspec.json.decode(line))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HI, "stream_options": {"include_usage": True}}),
        ("/v1/completions", {"prompt": "a"}),
        ("/completion", {"prompt": "a"}),
    ],
)
async def test_events_are_as_it_says(connected: Any, path: str, body: dict[str, Any]) -> None:
    words = [
        Output(id="", progress=Progress(total=9, cache=2, processed=5, time_ms=1.5)),
        Output(id="", text="x", tokens=[1], timings=Timings(predicted_n=1)),
        Output(id="", finish_reason="length", timings=Timings(predicted_n=2)),
    ]
    async with connected(fake_state(FakeEngine(words))) as client:
        text = (await client.post(path, json={**body, "stream": True})).text
    events = [e.removeprefix("data: ") for e in text.split("\n\n") if e and "[DONE]" not in e]
    assert len(events) >= 3
    data = answer_schema("POST", path, "text/event-stream")["schema"]["properties"]["data"]
    for event in events:
        validator(data["contentSchema"]).validate(msgspec.json.decode(event))


@pytest.mark.parametrize(("path", "body"), [("/v1/completions", {}), ("/v1/messages", {}), ("/nowhere", {})])
async def test_errors_are_as_it_says(client: httpx.AsyncClient, path: str, body: Any) -> None:
    response = await client.post(path, json=body)
    known = DOCUMENT["paths"].get(path, DOCUMENT["paths"]["/health"] | DOCUMENT["paths"]["/tokenize"])
    schema = known["post"]["responses"]["4XX"]["content"]["application/json"]["schema"]
    validator(schema).validate(response.json())
