"""GET and POST /props, and the endpoints about things that are switched off or not there."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fake_engine import fake_state

from corral.sampling.params import SamplingParams


async def test_props(connected: Any) -> None:
    state = fake_state(sampling=SamplingParams(temperature=0.3), n_predict=7, metrics=True)
    async with connected(state) as client:
        props = (await client.get("/props")).json()
    assert set(props) == {
        "default_generation_settings", "total_slots", "model_alias", "model_ftype", "model_path",
        "modalities", "media_marker", "endpoint_slots", "endpoint_props", "endpoint_metrics", "ui",
        "ui_settings", "chat_template", "chat_template_caps", "bos_token", "eos_token", "build_info",
        "is_sleeping", "cors_proxy_enabled",
    }  # fmt: skip
    params = props["default_generation_settings"].pop("params")
    assert props["default_generation_settings"] == {"n_ctx": 256}
    assert (params["temperature"], params["n_predict"], params["seed"]) == (0.3, 7, 0xFFFFFFFF)
    assert "stop" not in params
    assert "logit_bias" not in params
    assert (props["total_slots"], props["model_alias"], props["model_path"]) == (4, "tiny", "/m/tiny.gguf")
    assert (props["endpoint_metrics"], props["endpoint_props"], props["endpoint_slots"]) == (
        True,
        False,
        True,
    )
    assert (props["bos_token"], props["eos_token"]) == ("<s>", "</s>")
    assert "<|im_start|>" in props["chat_template"]
    assert props["chat_template_caps"]["supports_system_role"] is True
    assert props["build_info"].startswith("b")


async def test_properties_are_set_only_when_allowed(connected: Any, client: httpx.AsyncClient) -> None:
    refused = await client.post("/props", json={})
    assert (refused.status_code, refused.json()["error"]["type"]) == (501, "not_supported_error")
    assert "--props" in refused.json()["error"]["message"]
    async with connected(fake_state(props=True)) as allowed:
        assert (await allowed.post("/props", json={})).json() == {"success": True}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/audio/transcriptions"),
        ("POST", "/audio/transcriptions"),
        ("POST", "/lora-adapters"),
        ("POST", "/v1/chat/completions/control"),
        ("POST", "/models"),
        ("DELETE", "/models"),
        ("POST", "/models/load"),
        ("POST", "/models/unload"),
        ("GET", "/models/sse"),
        ("GET", "/v1/stream"),
        ("DELETE", "/v1/stream"),
        ("POST", "/v1/streams/lookup"),
        ("GET", "/cors-proxy"),
        ("GET", "/tools"),
        ("POST", "/tools"),
    ],
)
async def test_what_is_not_there_says_so(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path, content=b"\x00not json")
    assert response.status_code == 501
    assert response.json()["error"]["type"] == "not_supported_error"
    assert "support" in response.json()["error"]["message"]


async def test_no_adapters_are_an_empty_list(client: httpx.AsyncClient) -> None:
    assert (await client.get("/lora-adapters")).json() == []
