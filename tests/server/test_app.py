"""What holds for every path: routes, errors, keys, CORS, loading, draining."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import msgspec
import pytest
from fake_engine import READY, FakeEngine, fake_state

from corral.engine.messages import Status
from corral.log import JsonFormatter
from corral.server.state import ServerState

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}]}


def error(code: int, message: str, type: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "type": type}}


LOADING = error(503, "Loading model", "unavailable_error")


def loading(**config: Any) -> ServerState:
    engine = FakeEngine()
    engine.status = Status(state="loading", progress=0.5)
    return fake_state(engine, **config)


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/livez", "/readyz"])
async def test_health_is_ok_when_requests_are_served(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["server"] == "llama.cpp"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", "/health"), ("GET", "/v1/health"), ("GET", "/readyz"), ("GET", "/v1/models")),
        *(("GET", "/models"), ("POST", CHAT), ("GET", "/nothing")),
    ],
)
async def test_while_loading_everything_is_503(connected: Any, method: str, path: str) -> None:
    async with connected(loading()) as client:
        response = await client.request(method, path)
        assert (response.status_code, response.json()) == (503, LOADING)
        assert response.headers["retry-after"] == "1"
        assert (await client.get("/livez")).status_code == 200


async def test_an_engine_that_is_ready_before_the_tokenizer_is_still_loading(connected: Any) -> None:
    state = fake_state()
    state.model = None
    async with connected(state) as client:
        assert (await client.get("/health")).json() == LOADING


async def test_while_draining_new_requests_are_turned_away(connected: Any) -> None:
    state = fake_state()
    state.draining = True
    async with connected(state) as client:
        for path in ("/health", "/v1/models"):
            response = await client.get(path)
            assert response.status_code == 503
            assert response.json()["error"]["message"] == "The server is shutting down"


async def test_a_failed_engine_says_why(connected: Any) -> None:
    engine = FakeEngine()
    engine.status = Status(state="failed", message="out of memory", ready=READY)
    async with connected(fake_state(engine)) as client:
        assert (await client.get("/health")).json() == error(503, "out of memory", "unavailable_error")


async def test_the_one_model_is_listed_in_both_forms(client: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/models"):
        listed = (await client.get(path)).json()
        assert listed["object"] == "list"
        (model,) = listed["data"]
        assert set(model) == {"id", "aliases", "tags", "object", "created", "owned_by", "meta"}
        assert (model["id"], model["object"], model["owned_by"]) == ("tiny", "model", "llamacpp")
        assert model["meta"] == {"n_vocab": 1000, "n_ctx": 256}
        assert listed["models"][0]["name"] == listed["models"][0]["model"] == "tiny"
        assert listed["models"][0]["capabilities"] == ["completion"]
    for name in ("tiny", "small"):
        assert (await client.get(f"/v1/models/{name}")).json() == model
    missing = await client.get("/v1/models/some/other")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nothing", 404, "File Not Found"),
        ("GET", "/v1/model", 404, "File Not Found"),
        ("GET", "/health/", 404, "File Not Found"),
        ("POST", "/v2/chat/completions", 404, "File Not Found"),
        ("GET", CHAT, 405, "Method Not Allowed, expected POST"),
        ("DELETE", "/health", 405, "Method Not Allowed, expected GET or HEAD"),
        ("POST", "/v1/models", 405, "Method Not Allowed, expected GET or HEAD"),
    ],
)
async def test_wrong_paths_and_methods_have_the_envelope(
    client: httpx.AsyncClient, method: str, path: str, status: int, message: str
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    body = response.json()["error"]
    assert body["code"] == status
    assert body["message"] == message
    assert body["type"] == ("not_found_error" if status == 404 else "invalid_request_error")


INVALID_KEY = error(401, "Invalid API Key", "authentication_error")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic one"}, 401),
        ({"Authorization": "one"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"X-Api-Key": "on"}, 401),
        ({"X-Api-Key": ""}, 401),
        ({"X-Api-Key": "k\xe9y".encode("latin-1")}, 401),
        ({"Authorization": "Bearer one"}, 200),
        ({"Authorization": "bearer two"}, 200),
        ({"X-Api-Key": "two"}, 200),
    ],
)
async def test_a_key_is_asked_for(connected: Any, headers: dict[str, str], status: int) -> None:
    async with connected(fake_state(api_keys=("one", "two"))) as client:
        for method, path in (("POST", CHAT), ("POST", "/v1/completions"), ("GET", "/v1/models")):
            body = {**BODY, "prompt": "x"}
            response = await client.request(method, path, json=body, headers=headers)
            assert response.status_code == status
            if status == 401:
                assert response.json() == INVALID_KEY
        assert (await client.get("/nothing")).status_code == 401
        assert (await client.get("/health")).status_code == 200


async def test_without_keys_any_key_will_do(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json=BODY, headers={"Authorization": "Bearer not-needed"})
    assert response.status_code == 200


async def test_the_scheduler_is_fair_to_keys_that_were_asked_for(connected: Any) -> None:
    engine = FakeEngine()
    async with connected(fake_state(engine, api_keys=("one", "two"))) as client:
        for headers in (
            {"Authorization": "Bearer one"},
            {"X-Api-Key": "one"},
            {"X-Api-Key": "one", "Authorization": "Bearer other"},
            {"Authorization": "Bearer two"},
        ):
            assert (await client.post(CHAT, json=BODY, headers=headers)).status_code == 200
    clients = [submit.client for submit in engine.submits]
    assert clients[0] == clients[1] == clients[2] != clients[3]
    assert not {"", "one", "two"} & set(clients)


async def test_without_keys_it_is_fair_to_addresses_and_connections(connected: Any) -> None:
    engine = FakeEngine()
    async with connected(fake_state(engine)) as client:
        for key in ("", "Bearer sk-no-key", "Bearer sk-another"):
            await client.post(CHAT, json={**BODY, "n": 2}, headers={"Authorization": key} if key else {})
    (host,) = {submit.client for submit in engine.submits}
    assert host
    assert all(submit.connection.startswith(f"{host}:") for submit in engine.submits)


async def test_cors_reflects_the_origin(client: httpx.AsyncClient) -> None:
    preflight = await client.options("/any/path", headers={"Origin": "https://a.example"})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://a.example"
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert preflight.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS"
    assert preflight.headers["access-control-allow-headers"] == "*"
    for path in ("/health", "/nothing"):
        response = await client.get(path, headers={"Origin": "https://a.example"})
        assert response.headers["access-control-allow-origin"] == "https://a.example"
        assert response.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in (await client.get("/health")).headers


@pytest.mark.parametrize(
    ("method", "path", "line"),
    [
        (
            "POST",
            CHAT,
            r"POST /v1/chat/completions 200, \d+ ms, queued 3 ms, prompt of 53 \(1 cached\) 2 ms, "
            r"2 tokens 4 ms \[abc\]",
        ),
        ("GET", "/no%0Asuch%1b[31m", r"GET /no%0Asuch%1b\[31m 404, \d+ ms \[abc\]"),
        (
            "POST",
            "/v1/completions",
            r"POST /v1/completions 400, \d+ ms \[abc\]: Field 'prompt': missing, but required",
        ),
        ("GET", "/health", None),
        ("OPTIONS", "/health", None),
    ],
)
async def test_a_request_is_a_line_of_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, method: str, path: str, line: str | None
) -> None:
    caplog.set_level("INFO", "corral.http")
    await client.request(method, path, json=BODY, headers={"X-Request-Id": "abc"})
    if line is None:
        assert not caplog.messages
    else:
        (message,) = caplog.messages
        assert re.fullmatch(line, message), message


async def test_a_request_is_an_object_of_the_json_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "corral.http")
    for stream in (False, True):
        caplog.clear()
        body = {**BODY, "n": 2, "stream": stream}
        await client.post(CHAT, json=body, headers={"X-Request-Id": "abc"})
        entry = json.loads(JsonFormatter().format(caplog.records[0]))
        assert entry.pop("message").startswith("POST /v1/chat/completions 200")
        assert entry.pop("ms") >= 0
        assert {name: entry[name] for name in entry if name not in ("time", "level", "logger")} == {
            "request_id": "abc", "method": "POST", "path": CHAT, "status": 200, "prompt_tokens": 106,
            "cached_tokens": 2, "predicted_tokens": 4, "queue_ms": 3.0, "prompt_ms": 2.0, "predicted_ms": 4.0,
        }  # fmt: skip


async def test_what_a_client_says_stays_in_its_line(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "corral.http")
    await client.post(CHAT, json={"messages": [{"role": "a\nb\x1b[1m", "content": [{"type": "\n\x1b"}]}]})
    (message,) = caplog.messages
    assert message.isprintable()


@pytest.mark.parametrize(
    ("allowed", "origin", "reflected"),
    [
        (("https://a.example", "https://b.example"), "https://b.example", True),
        (("https://a.example",), "https://a.example.evil", False),
        (("localhost",), "http://localhost:3000", True),
        (("localhost",), "https://127.0.0.1", True),
        (("localhost",), "http://[::1]:8080", True),
        (("localhost",), "http://localhost.evil", False),
        (("localhost",), "http://[oops", False),
        (("localhost",), "null", False),
        (("localhost", "null"), "null", True),
    ],
)
async def test_cors_of_named_origins(
    connected: Any, allowed: tuple[str, ...], origin: str, reflected: bool
) -> None:
    async with connected(fake_state(cors_origins=allowed)) as client:
        for response in (
            await client.get("/health", headers={"Origin": origin}),
            await client.options(CHAT, headers={"Origin": origin}),
        ):
            assert response.headers.get("access-control-allow-origin") == (origin if reflected else None)
            assert response.headers["vary"] == "Origin"


async def test_cors_methods_headers_and_credentials(connected: Any) -> None:
    state = fake_state(cors_methods="GET", cors_headers="Authorization", cors_credentials=False)
    async with connected(state) as client:
        headers = (await client.options(CHAT, headers={"Origin": "http://x"})).headers
    assert headers["access-control-allow-methods"] == "GET"
    assert headers["access-control-allow-headers"] == "Authorization"
    assert "access-control-allow-credentials" not in headers


async def test_preflights_need_no_key_and_no_model(connected: Any) -> None:
    async with connected(loading(api_keys=("one",))) as client:
        assert (await client.options(CHAT, headers={"Origin": "http://x"})).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401  # the key comes first


@pytest.mark.parametrize("wrong", ["", "x" * 129, "a b", "a\tb", "\x7f", "é".encode(), b"\x80"])
async def test_a_request_id_of_another_form_is_not_taken_over(
    client: httpx.AsyncClient, wrong: str | bytes
) -> None:
    headers: Any = {"X-Request-Id": wrong}
    assert len((await client.get("/health", headers=headers)).headers["x-request-id"]) == 32


async def test_the_request_id_is_echoed_or_made(client: httpx.AsyncClient) -> None:
    for id in ("abc", "x" * 128):
        assert (await client.get("/x", headers={"X-Request-Id": id})).headers["x-request-id"] == id
    made = {(await client.get("/health")).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2


async def test_the_prefix_is_before_every_path(connected: Any) -> None:
    async with connected(fake_state(api_prefix="/llm", api_keys=("k",))) as client:
        assert (await client.get("/llm/health")).status_code == 200
        assert (await client.get("/health")).status_code == 401
        assert (await client.get("/health", headers={"X-Api-Key": "k"})).status_code == 404
        response = await client.post("/llm" + CHAT, json=BODY, headers={"X-Api-Key": "k"})
        assert response.status_code == 200


async def test_a_bug_is_a_500_that_says_nothing(connected: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(fake_state(FakeEngine([ZeroDivisionError("the secret")]))) as client:
        response = await client.post(CHAT, json=BODY)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "secret" not in response.text
    assert "the secret" in caplog.text


async def test_a_compressed_body_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"content-encoding": "gzip"}
    response = await client.post("/tokenize", content=b"\x1f\x8b", headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(
        "Header 'Content-Encoding': 'gzip' is not supported"
    )
    plain = await client.post("/tokenize", json={"content": "a"}, headers={"content-encoding": "identity"})
    assert plain.status_code == 200


async def test_a_body_that_is_too_large_is_413(connected: Any) -> None:
    state = fake_state()
    state.max_body = 100
    body = msgspec.json.encode({"prompt": "x" * 200})

    async def chunks() -> Any:
        yield body[:60]
        yield body[60:]

    async with connected(state) as client:
        for content in (body, chunks()):
            response = await client.post("/v1/completions", content=content)
            assert response.status_code == 413
            assert response.json()["error"]["code"] == 413
            assert "at most 100" in response.json()["error"]["message"]
        assert (await client.post("/v1/completions", json={"prompt": "x"})).status_code == 200
