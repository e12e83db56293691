"""GET and POST /props: what is served, and how a request is answered that asks for nothing."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from corral.chat.capabilities import Capabilities
from corral.chat.prompt import ChatPrompter
from corral.errors import NotSupported
from corral.server.errors import json_response
from corral.server.generation_settings import default_settings
from corral.server.state import BUILD, ServerState

MEDIA_MARKER = "<__media__>"


async def get_props(state: ServerState, _request: Request) -> Response:
    model, ready = state.loaded()
    config, template = state.config, model.prompter.template
    return json_response(
        {
            "default_generation_settings": {
                "params": default_settings(config.sampling, config.n_predict, ready),
                "n_ctx": ready.n_ctx,
            },
            "total_slots": ready.parallel,
            "model_alias": model.info.id,
            "model_ftype": model.info.meta.get("ftype", "unknown"),
            "model_path": model.info.path,
            "modalities": {"vision": False, "video": False, "audio": False},
            "media_marker": MEDIA_MARKER,
            "endpoint_slots": config.slots,
            "endpoint_props": config.props,
            "endpoint_metrics": config.metrics,
            "ui": state.config.ui,
            "ui_settings": {},
            "chat_template": template.source.text,
            **_tool_template(model.prompter.with_tools),
            "chat_template_caps": _caps(model.prompter.capabilities),
            "bos_token": template.bos_token,
            "eos_token": template.eos_token,
            "build_info": BUILD,
            "is_sleeping": False,
            "cors_proxy_enabled": False,
        }
    )


def _tool_template(prompter: ChatPrompter | None) -> dict[str, str]:
    return {"chat_template_tool_use": prompter.template.source.text} if prompter else {}


async def set_props(state: ServerState, _request: Request) -> Response:
    """There is no property to be set in llama-server either."""
    if not state.config.props:
        raise NotSupported("This server does not support changing global properties. Start it with `--props`")
    return json_response({"success": True})


NAMES = {"system": "supports_system_role", "typed_content": "supports_typed_content"}
"""llama-server's names of capabilities."""


def _caps(capabilities: Capabilities) -> dict[str, Any]:
    return {
        NAMES.get(f.name, f"supports_{f.name}"): bool(getattr(capabilities, f.name))
        for f in fields(capabilities)
    }
