"""Requests made up from /openapi.json: no bug of ours shows, and the answers are as it says."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from fake_engine import fake_state
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from corral.server.app import ROUTES, build_app

pytestmark = pytest.mark.slow

APP = build_app(fake_state(metrics=True, props=True))
FIRST = {handler: path.replace(":path", "") for _, path, handler in reversed(ROUTES)}
"""One path of each handler: what goes by several names is tried once."""
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP).include(path=sorted(set(FIRST.values())))
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]


@SCHEMA.parametrize()
@settings(
    max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_no_request_is_a_bug(case: Any) -> None:
    response = case.call()
    # 501 says that this server, or a model without embeddings, can't do it
    assert response.status_code < 500 or response.status_code == 501, response.text
    case.validate_response(response, checks=CHECKS)
