"""GET /slots."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
from fake_engine import READY, FakeEngine, fake_state

from corral.engine.messages import ErrorInfo, Output, SlotResult, SlotStats, Stats, Status

FRESH = {"n_ctx": 256, "speculative": False, "is_processing": False}


async def test_fresh_slots_have_no_parameters(client: httpx.AsyncClient) -> None:
    slots = (await client.get("/slots")).json()
    assert slots == [{"id": i, **FRESH} for i in range(4)]


async def test_a_used_slot_says_what_ran_in_it(connected: Any) -> None:
    engine = FakeEngine([Output(id="", text="a\n", tokens=[1], id_slot=1), "b"])
    async with connected(fake_state(engine)) as client:
        await client.post("/completion", json={"prompt": "a", "temperature": 0.25, "stop": ["x"]})
        (submit,) = engine.submits
        slot = SlotStats(
            1, request=submit.id, task=7, n_prompt_tokens=5, n_prompt_tokens_processed=2,
            n_prompt_tokens_cache=1, n_decoded=3,
        )  # fmt: skip
        engine.status = Status(state="ready", ready=READY, stats=Stats(slots=[SlotStats(0), slot]))
        first, second = (await client.get("/slots")).json()
    assert first == {"id": 0, **FRESH}
    params = second.pop("params")
    assert second == {
        "id": 1, **FRESH, "id_task": 7, "n_prompt_tokens": 5, "n_prompt_tokens_processed": 2,
        "n_prompt_tokens_cache": 1,
        "next_token": [{"has_next_token": False, "has_new_line": True, "n_remain": -1, "n_decoded": 3}],
    }  # fmt: skip
    assert params["temperature"] == 0.25
    assert "stop" not in params


async def test_speculation_is_told_of(connected: Any) -> None:
    engine = FakeEngine(["a"])
    ready = msgspec.structs.replace(READY, speculation=("ngram-simple",))
    engine.status = Status(state="ready", ready=ready)
    async with connected(fake_state(engine)) as client:
        assert all(slot["speculative"] for slot in (await client.get("/slots")).json())
        done = (await client.post("/completion", json={"prompt": "a"})).json()
        props = (await client.get("/props")).json()
    for settings in (done["generation_settings"], props["default_generation_settings"]["params"]):
        assert settings["speculative.types"] == "ngram-simple"


async def test_no_slot_is_free(connected: Any) -> None:
    engine = FakeEngine()
    slots = [SlotStats(0, is_processing=True), SlotStats(1)]
    async with connected(fake_state(engine)) as client:
        for busy, status in ((False, 200), (True, 503)):
            stats = Stats(slots=[slots[0], msgspec.structs.replace(slots[1], is_processing=busy)])
            engine.status = Status(state="ready", ready=READY, stats=stats)
            response = await client.get("/slots?fail_on_no_slot=1")
            assert response.status_code == status
            assert (await client.get("/slots")).status_code == 200
    assert response.json()["error"]["message"] == "no slot available"


async def test_they_can_be_switched_off(connected: Any) -> None:
    async with connected(fake_state(slots=False)) as client:
        response = await client.get("/slots")
    assert (response.status_code, response.json()["error"]["type"]) == (501, "not_supported_error")


@pytest.mark.parametrize(
    ("action", "body", "expected"),
    [
        (
            "save",
            {"filename": "f"},
            {
                "id_slot": 1, "filename": "f", "n_saved": 64, "n_written": 999,
                "timings": {"save_ms": 1.5},
            },
        ),
        (
            "restore",
            {"filename": "f"},
            {
                "id_slot": 1, "filename": "f", "n_restored": 64, "n_read": 999,
                "timings": {"restore_ms": 1.5},
            },
        ),
        ("erase", None, {"id_slot": 1, "n_erased": 64}),
    ],
)  # fmt: skip
async def test_slot_actions(
    connected: Any, action: str, body: dict[str, str] | None, expected: dict[str, Any]
) -> None:
    engine = FakeEngine()
    engine.result = SlotResult(id="", n_tokens=64, n_bytes=999, ms=1.5)
    async with connected(fake_state(engine)) as client:
        response = await client.post(f"/slots/1?action={action}", json=body)
    assert (response.status_code, response.json()) == (200, expected)
    (asked,) = engine.actions
    assert (asked.action, asked.id_slot, asked.filename) == (action, 1, (body or {}).get("filename", ""))


async def test_a_slot_action_that_failed(connected: Any) -> None:
    engine = FakeEngine()
    engine.result = SlotResult(id="", error=ErrorInfo(503, "unavailable_error", "busy", retry_after=3))
    async with connected(fake_state(engine)) as client:
        response = await client.post("/slots/0?action=erase")
    assert (response.status_code, response.headers["retry-after"]) == (503, "3")
    assert response.json()["error"]["message"] == "busy"


@pytest.mark.parametrize(
    "path", ["/slots/0", "/slots/0?action=", "/slots/0?action=load", "/slots/x?action=erase"]
)
async def test_slot_actions_that_make_no_sense(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, json={"filename": "f"})
    assert response.status_code == 400
    assert "Invalid" in response.json()["error"]["message"]
