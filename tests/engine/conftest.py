from __future__ import annotations

import random
import secrets

import pytest


@pytest.fixture(autouse=True)
def seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests without a seed get others than one another, but the same in every run."""
    monkeypatch.setattr(secrets, "randbits", random.Random(0).getrandbits)
