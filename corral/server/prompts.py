"""The forms of a `prompt` that is not a chat: texts, token ids, mixtures, and arrays of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from corral.errors import ContextSizeError, NotSupported, RequestError
from corral.server.decode import shown
from corral.server.state import LoadedModel

MAX_PROMPTS = 1024
LONG = 4000
"""Characters; a longer text is encoded in a thread."""


async def read_prompts(model: LoadedModel, value: Any, n_ctx: int, field: str = "prompt") -> list[list[int]]:
    """Token ids of each prompt. Raises RequestError.

    A prompt is a text, an array of ids and texts, or an object with `prompt_string`; an array of such is
    several prompts.
    """
    if isinstance(value, list) and value and _is_several(value):
        if len(value) > MAX_PROMPTS:
            raise RequestError(f"Field '{field}': expected at most {MAX_PROMPTS} prompts, got {len(value)}")
        return [await _sequence(model, v, f"{field}[{i}]", n_ctx) for i, v in enumerate(value)]
    return [await _sequence(model, value, field, n_ctx)]


def _is_several(value: list[Any]) -> bool:
    """An array with a bare id in it is one prompt."""
    return all(isinstance(v, (str, list, dict)) for v in value)


async def _sequence(model: LoadedModel, value: Any, where: str, n_ctx: int) -> list[int]:
    if isinstance(value, dict):
        if value.get("multimodal_data"):
            raise NotSupported(f"Field '{where}.multimodal_data': this model takes no images and no audio")
        where, value = f"{where}.prompt_string", value.get("prompt_string")
    if isinstance(value, str):
        return await encode_text(model, value, n_ctx)
    if not isinstance(value, list):
        raise RequestError(f"Field '{where}': expected a string or an array of token ids, got {shown(value)}")
    return mixed_ids(model, value, where, n_ctx) or empty_prompt(model)


def mixed_ids(
    model: LoadedModel, value: Sequence[Any], where: str, n_ctx: int, *, add_special: bool = True,
    parse_special: bool = True,
) -> list[int]:  # fmt: skip
    """Token ids of an array of ids and texts. Only a text at its start gets a token that begins a text."""
    ids: list[int] = []
    for i, v in enumerate(value):
        if isinstance(v, str):
            check_length(model, v, n_ctx)
            special = add_special and i == 0
            ids += model.tokenizer.encode(v, add_special=special, parse_special=parse_special)
        elif isinstance(v, int) and not isinstance(v, bool) and 0 <= v < model.info.n_vocab:
            ids.append(v)
        else:
            raise RequestError(
                f"Field '{where}[{i}]': expected a token id from 0 to {model.info.n_vocab - 1}, "
                f"got {shown(v)}"
            )
        if len(ids) > 2 * n_ctx:
            raise ContextSizeError(len(ids), n_ctx, at_least=True)
    return ids


def check_length(model: LoadedModel, text: str, n_ctx: int) -> None:
    """Refuses a text that can't fit, before the time and memory that its tokens take. Raises RequestError."""
    least = len(text) // model.tokenizer.longest
    if least >= n_ctx:
        raise ContextSizeError(least, n_ctx, at_least=True)


async def encode_text(model: LoadedModel, text: str, n_ctx: int) -> list[int]:
    """Token ids of a prompt; the event loop goes on meanwhile when the text is long. Raises RequestError."""
    check_length(model, text, n_ctx)
    return await encode(model, text, add_special=True, parse_special=True) or empty_prompt(model)


async def encode(model: LoadedModel, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
    """Token ids of a text; the event loop goes on meanwhile when the text is long."""
    if len(text) > LONG:
        return await asyncio.to_thread(
            model.tokenizer.encode, text, add_special=add_special, parse_special=parse_special
        )
    return model.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)


def empty_prompt(model: LoadedModel) -> list[int]:
    """What stands for no text at all: the token that begins every text."""
    if model.tokenizer.bos_id is None:
        raise RequestError("The prompt is empty, and this model has no token to begin a text with")
    return [model.tokenizer.bos_id]
