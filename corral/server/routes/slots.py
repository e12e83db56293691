"""GET /slots: what runs in each of the places for a sequence. POST /slots/{id}: save, restore, erase."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from corral.engine.messages import Ready, SlotAction, SlotStats
from corral.errors import NotSupported, RequestError, Unavailable
from corral.server import generate
from corral.server.decode import Schema
from corral.server.errors import json_response
from corral.server.generation import GenerationFailed
from corral.server.generation_settings import short_settings
from corral.server.observer import Seen
from corral.server.state import ServerState


async def get_slots(state: ServerState, http: Request) -> Response:
    if not state.config.slots:
        raise NotSupported("This server does not support slots endpoint. Start it with `--slots`")
    _, ready = state.loaded()
    slots = state.engine.status.stats.slots or [SlotStats(i) for i in range(ready.parallel)]
    if http.query_params.get("fail_on_no_slot") and all(s.is_processing for s in slots):
        raise Unavailable("no slot available")
    return json_response([_slot(s, ready, state.observer.slots.get(s.id)) for s in slots])


class SlotRequest(msgspec.Struct, kw_only=True):
    """POST /slots/{id}."""

    filename: str | None = None


SLOT = Schema(SlotRequest)


async def slot_action(state: ServerState, http: Request) -> Response:
    """POST /slots/{id}?action=save|restore|erase."""
    action, slot = http.query_params.get("action"), str(http.path_params["id"])
    if action not in ("save", "restore", "erase"):
        raise RequestError(f"Invalid action {str(action)[:40]!r}, expected save, restore or erase")
    if not slot.isdecimal() or len(slot) > 6:
        raise RequestError(f"Invalid slot ID {slot[:40]!r}, expected a number")
    state.loaded()
    request = SlotRequest() if action == "erase" else await generate.read(state, http, SLOT)
    result = await state.engine.act(
        SlotAction(
            id=f"slot-{secrets.token_hex(8)}",
            action=action,  # type: ignore[arg-type]
            id_slot=int(slot),
            filename=request.filename or "",
        )
    )
    if result.error is not None:
        raise GenerationFailed(result.error)
    value: dict[str, Any] = {"id_slot": int(slot)}
    match action:
        case "save":
            value |= {"filename": request.filename, "n_saved": result.n_tokens, "n_written": result.n_bytes}
            value["timings"] = {"save_ms": result.ms}
        case "restore":
            value |= {"filename": request.filename, "n_restored": result.n_tokens, "n_read": result.n_bytes}
            value["timings"] = {"restore_ms": result.ms}
        case _:
            value["n_erased"] = result.n_tokens
    return json_response(value)


def _slot(slot: SlotStats, ready: Ready, seen: Seen | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "id": slot.id,
        "n_ctx": ready.n_ctx,
        "speculative": bool(ready.speculation),
        "is_processing": slot.is_processing,
    }
    if not slot.request:
        return value
    ours = seen if seen is not None and seen.submit.id == slot.request else None
    return value | {
        "id_task": slot.task,
        "n_prompt_tokens": slot.n_prompt_tokens,
        "n_prompt_tokens_processed": slot.n_prompt_tokens_processed,
        "n_prompt_tokens_cache": slot.n_prompt_tokens_cache,
        "params": short_settings(ours.submit, ready) if ours else {},
        "next_token": [
            {
                "has_next_token": slot.is_processing,
                "has_new_line": bool(ours and ours.has_new_line),
                "n_remain": slot.n_remain,
                "n_decoded": slot.n_decoded,
            }
        ],
    }
