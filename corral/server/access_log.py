"""A line of the log for each request: what was asked, what became of it, and where the time went."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from starlette.types import Scope

from corral.engine.messages import Timings

log = logging.getLogger("corral.http")


def log_request(
    scope: Scope, *, level: int, status: int, milliseconds: float, request_id: str, reason: str
) -> None:
    """`scope["timings"]` are those of the generations, if there were any.

    The numbers are in the record's `fields` too, which `--log-jsonl` prints.
    """
    if not log.isEnabledFor(level):
        return
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    timings: Sequence[Timings] = scope.get("timings", ())
    text = f"{scope['method']} {path} {status}, {milliseconds:.0f} ms{_work(timings)} [{request_id}]"
    text += reason and f": {reason}"
    fields: dict[str, Any] = {
        "request_id": request_id,
        "method": scope["method"],
        "path": path,
        "status": status,
        "ms": round(milliseconds, 1),
        **_fields(timings),
        **({"reason": reason} if reason else {}),
    }
    # a client's words must not begin a line of their own, or colour the terminal
    log.log(level, "%s", "".join(c if c.isprintable() else " " for c in text), extra={"fields": fields})


def _fields(timings: Sequence[Timings]) -> dict[str, Any]:
    """Tokens of all generations together; the times are those of the slowest."""
    if not timings:
        return {}
    return {
        "prompt_tokens": sum(t.prompt_n + t.cache_n for t in timings),
        "cached_tokens": sum(t.cache_n for t in timings),
        "predicted_tokens": sum(t.predicted_n for t in timings),
        "queue_ms": round(max(t.queue_ms for t in timings), 1),
        "prompt_ms": round(max(t.prompt_ms for t in timings), 1),
        "predicted_ms": round(max(t.predicted_ms for t in timings), 1),
    }


def _work(timings: Sequence[Timings]) -> str:
    """`, queued 5 ms, prompt of 20 (4 cached) 120 ms, 10 tokens 300 ms`; nothing that is 0."""
    f = _fields(timings)
    if not f:
        return ""
    queued = f", queued {f['queue_ms']:.0f} ms" if f["queue_ms"] >= 1 else ""
    cached = f" ({f['cached_tokens']} cached)" if f["cached_tokens"] else ""
    prompt = f", prompt of {f['prompt_tokens']}{cached} {f['prompt_ms']:.0f} ms"
    return f"{queued}{prompt}, {f['predicted_tokens']} tokens {f['predicted_ms']:.0f} ms"
