"""The files of deploy/, as far as they can be checked without an engine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from corral import __version__

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "monitoring/grafana/dashboards/corral.json"
SUFFIXES = "_(?:total|bucket|sum|count)$"


def test_yaml_is_yaml() -> None:
    files = [ROOT / "compose.yaml", *DEPLOY.rglob("*.yml"), *DEPLOY.rglob("*.yaml")]
    assert len(files) >= 4
    assert all(list(yaml.safe_load_all(file.read_text(encoding="utf-8"))) for file in files)


def test_the_dashboard_shows_metrics_that_exist() -> None:
    source = ROOT / "corral/server/metrics.py"
    if not source.exists():
        pytest.skip("there is no /metrics yet")
    written = source.read_text(encoding="utf-8")
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:llamacpp:|corral_)(\w+)", target["expr"])
    }
    assert len(shown) > 10
    assert {name for name in shown if _plain(name) not in written} == set()


def _plain(name: str) -> str:
    """As the program calls it: exposition adds the suffixes."""
    return re.sub("_seconds$", "", re.sub(SUFFIXES, "", name))


@pytest.mark.parametrize("name", ["Dockerfile", "custom/Dockerfile"])
def test_what_an_image_takes_from_the_checkout_is_let_through(name: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    text = (DEPLOY / "docker" / name).read_text(encoding="utf-8")
    sources = [
        source.rstrip("/")
        for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert "!" + source.partition("/")[0] in ignored, source


def test_the_image_has_the_version_of_the_program() -> None:
    text = (DEPLOY / "docker/Dockerfile").read_text(encoding="utf-8")
    assert f"ARG VERSION={__version__}\n" in text


def test_the_images_log_to_where_the_docs_say() -> None:
    for name in ("Dockerfile", "custom/Dockerfile"):
        assert "CORRAL_LOG_STREAM=stdout" in (DEPLOY / "docker" / name).read_text(encoding="utf-8")


def test_a_checkout_builds_as_the_guide_says() -> None:
    """`docker build .` takes the Dockerfile at the root."""
    assert (ROOT / "Dockerfile").resolve() == DEPLOY / "docker/custom/Dockerfile"
    assert "!deploy/docker/custom/Dockerfile" in (ROOT / ".dockerignore").read_text(encoding="utf-8")
