"""What a conversation becomes before it is generated from: its text, or how many tokens it has."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp

from corral.server import generate
from corral.server.chat_turn import chat_prompt, prompt_text
from corral.server.errors import json_response
from corral.server.schema import CHAT
from corral.server.state import ServerState

ANY_LENGTH = 1 << 30
"""Tokens are counted whether or not they fit."""


async def apply_template(state: ServerState, http: Request) -> ASGIApp:
    """POST /apply-template: the text of the prompt."""
    request = await generate.read(state, http, CHAT)
    model, _ = state.loaded()
    text = await asyncio.to_thread(prompt_text, model, request, state.config)
    return json_response({"prompt": text})


async def input_tokens(state: ServerState, http: Request) -> ASGIApp:
    """POST /v1/chat/completions/input_tokens."""
    request = await generate.read(state, http, CHAT)
    model, _ = state.loaded()
    ids = await asyncio.to_thread(chat_prompt, model, request, state.config, ANY_LENGTH)
    return json_response({"object": "response.input_tokens", "input_tokens": len(ids)})
