"""The files of deploy/kubernetes: against the API's schemas, against each other, and against this program."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from corral.engine.messages import Stats
from corral.options import FLAGS, OTHER_VARIABLES
from corral.server import app
from corral.server.metrics import _llama_server
from corral.tools import pull

ROOT = Path(__file__).resolve().parent.parent / "deploy/kubernetes"
FOLDERS = ("base", "autoscaling", "monitoring")
FILES = sorted(ROOT.rglob("*.yaml"))
PAGE = (ROOT.parent.parent / "docs/deploy.md").read_text(encoding="utf-8")
VARIABLES = {name for flag in FLAGS for name in flag.env} | OTHER_VARIABLES.keys()


def load(name: str) -> dict[str, Any]:
    result: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return result


def resources(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in load(f"{folder}/kustomization.yaml")["resources"]]


RESOURCES = [name for folder in FOLDERS for name in resources(folder)]
CORE = [name for name in RESOURCES if load(name)["apiVersion"] != "monitoring.coreos.com/v1"]
DEPLOYMENT = load("base/deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
SERVER = POD["containers"][0]
INIT = POD["initContainers"][0]
CONFIG = load("base/kustomization.yaml")
SETTINGS = dict(line.split("=", 1) for line in CONFIG["configMapGenerator"][0]["literals"])


@pytest.mark.parametrize("version", ["1.27", "1.34", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", CORE)
def test_the_api_would_take_it(name: str, version: str) -> None:
    kubernetes_validate.validate(load(name), version, strict=True)


def test_a_mistake_would_be_seen() -> None:
    broken = load("base/service.yaml")
    broken["spec"]["port"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.34", strict=True)


def test_every_file_is_used() -> None:
    used = {ROOT / name for name in RESOURCES} | {ROOT / folder / "kustomization.yaml" for folder in FOLDERS}
    assert set(FILES) - used == {ROOT / "autoscaling/adapter-values.yaml"}
    assert used <= set(FILES)


def test_all_select_the_pods() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert load("base/service.yaml")["spec"]["selector"] == labels
    assert load("base/disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
    monitor = load("monitoring/servicemonitor.yaml")["spec"]
    assert (
        monitor["selector"]["matchLabels"].items() <= load("base/service.yaml")["metadata"]["labels"].items()
    )


def test_names_that_are_referred_to_exist() -> None:
    claim = load("base/volume.yaml")["metadata"]["name"]
    assert [v["persistentVolumeClaim"]["claimName"] for v in POD["volumes"] if "emptyDir" not in v] == [claim]
    volumes = {volume["name"] for volume in POD["volumes"]}
    names = CONFIG["configMapGenerator"][0]["name"], CONFIG["images"][0]["name"]
    for container in (SERVER, INIT):
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert (container["envFrom"][0]["configMapRef"]["name"], container["image"]) == names
    target = load("autoscaling/autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", DEPLOYMENT["metadata"]["name"])


@pytest.mark.parametrize("patch", load("autoscaling/kustomization.yaml")["patches"])
def test_a_patch_meets_what_it_changes(patch: dict[str, Any]) -> None:
    kind = patch["target"]["kind"]
    (resource,) = [r for r in map(load, CORE) if r["kind"] == kind]
    assert resource["metadata"]["name"] == patch["target"]["name"]
    for change in yaml.safe_load(patch["patch"]):
        *folders, last = change["path"].strip("/").split("/")
        place = resource
        for folder in folders:
            place = place[folder]
        assert last in place
        place[last] = change["value"]
    kubernetes_validate.validate(resource, "1.34", strict=True)


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_asks_what_is_served(probe: str) -> None:
    request = SERVER[probe]["httpGet"]
    assert request["port"] in {port["name"] for port in SERVER["ports"]}
    assert ("GET", request["path"]) in {(method, path) for method, path, _ in app.ROUTES}


def test_ports_agree() -> None:
    (port,) = SERVER["ports"]
    (service,) = load("base/service.yaml")["spec"]["ports"]
    (endpoint,) = load("monitoring/servicemonitor.yaml")["spec"]["endpoints"]
    dockerfile = (ROOT.parent / "docker/Dockerfile").read_text(encoding="utf-8")
    assert f"EXPOSE {port['containerPort']}\n" in dockerfile
    assert (service["targetPort"], endpoint["port"]) == (port["name"], service["name"])


def test_every_variable_is_known() -> None:
    names = [item["name"] for container in (SERVER, INIT) for item in container["env"]]
    assert len(names) == 6
    assert {*names, *SETTINGS} <= VARIABLES


def test_the_init_container_pulls_what_the_server_serves() -> None:
    program, tool, *words = INIT["command"]
    assert (program, tool) == ("corral", "pull")
    parser = argparse.ArgumentParser()
    pull.add_arguments(parser)
    assert parser.parse_args(words).model == "$(LLAMA_ARG_HF_REPO)"
    assert "LLAMA_ARG_HF_REPO" in SETTINGS
    places = [
        {item["name"]: item.get("value") for item in container["env"]}["LLAMA_CACHE"]
        for container in (SERVER, INIT)
    ]
    assert places == ["/models", "/models"]


def test_there_is_time_to_drain() -> None:
    sleep = int(SERVER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] >= sleep + int(SETTINGS["CORRAL_DRAIN_TIMEOUT"]) + 5


@pytest.mark.parametrize("container", [SERVER, INIT], ids=["server", "init"])
def test_no_rights_that_are_not_needed(container: dict[str, Any]) -> None:
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"]
    assert not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert POD["securityContext"]["runAsNonRoot"]


def test_the_autoscaler_counts_what_there_is() -> None:
    (rule,) = load("autoscaling/adapter-values.yaml")["rules"]["custom"]
    (metric,) = load("autoscaling/autoscaler.yaml")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    (series,) = re.findall('__name__="([^"]+)"', rule["seriesQuery"])
    assert series in {family.name for family in _llama_server(Stats(), (0.0, 0.0))}
    assert "LLAMA_ARG_ENDPOINT_METRICS" in SETTINGS


# -- as kustomize puts them together -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kustomize() -> list[str]:
    """The command that builds a folder."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        version = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True).stdout
        if "Kustomize Version: v5" in version:
            return ["kubectl", "kustomize"]
    pytest.skip("neither kustomize nor a kubectl with version 5 of it is here")


COMPONENTS = ["corral/deploy/kubernetes/autoscaling", "corral/deploy/kubernetes/monitoring"]
OVERLAYS = {
    "base": {"resources": ["corral/deploy/kubernetes/base"]},
    "components": {"resources": ["corral/deploy/kubernetes/base"], "components": COMPONENTS},
    "example": yaml.safe_load(re.findall("^```yaml\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]),
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_kustomize_builds(kustomize: list[str], tmp_path: Path, overlay: str) -> None:
    """Beside a checkout, as docs/deploy.md says."""
    shutil.copytree(ROOT, tmp_path / "corral/deploy/kubernetes")
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(OVERLAYS[overlay]), encoding="utf-8")
    done = subprocess.run([*kustomize, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    built = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    for kind, document in built.items():
        if kind != "ServiceMonitor":
            kubernetes_validate.validate(document, "1.34", strict=True)
    more = {"HorizontalPodAutoscaler", "ServiceMonitor"} if overlay == "components" else set()
    assert built.keys() - more == {
        "ConfigMap", "Deployment", "PersistentVolumeClaim", "PodDisruptionBudget", "Service",
    }  # fmt: skip
    assert more <= built.keys()

    pod = built["Deployment"]["spec"]["template"]["spec"]
    example = OVERLAYS["example"]
    image = (example if overlay == "example" else CONFIG)["images"][0]
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["image"] == f"{image['newName']}:{image['newTag']}"
        # a name with a digest of the settings: other settings give new pods
        assert container["envFrom"][0]["configMapRef"]["name"] == built["ConfigMap"]["metadata"]["name"]
    assert re.fullmatch("corral-[a-z0-9]{10}", built["ConfigMap"]["metadata"]["name"])
    settings = dict(SETTINGS)
    if overlay == "example":
        settings.update(line.split("=", 1) for line in example["configMapGenerator"][0]["literals"])
        assert {document["metadata"]["namespace"] for document in built.values()} == {example["namespace"]}
        assert pod["containers"][0]["resources"]["limits"] == {"cpu": "8", "memory": "8Gi"}
    assert built["ConfigMap"]["data"] == settings
    modes = ["ReadWriteMany"] if overlay == "components" else ["ReadWriteOnce"]
    assert built["PersistentVolumeClaim"]["spec"]["accessModes"] == modes
