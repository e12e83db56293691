"""GET /slots: what runs in each of the places for a sequence."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from corral.engine.messages import Ready, SlotStats
from corral.errors import NotSupported, Unavailable
from corral.server.errors import json_response
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


def _slot(slot: SlotStats, ready: Ready, seen: Seen | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "id": slot.id,
        "n_ctx": ready.n_ctx,
        "speculative": False,
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
        "params": short_settings(ours.submit) if ours else {},
        "next_token": [
            {
                "has_next_token": slot.is_processing,
                "has_new_line": bool(ours and ours.has_new_line),
                "n_remain": slot.n_remain,
                "n_decoded": slot.n_decoded,
            }
        ],
    }
