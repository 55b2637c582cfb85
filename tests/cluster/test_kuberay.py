"""The Kubernetes manifests: of the right shape, read as intended by Ray's autoscaler, and within our own rules."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from kuberay_schema import pod_templates, validate
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.kuberay.utils import parse_quantity
from ray.serve.schema import ServeDeploySchema

import supmer
from supmer.config.load import load_config

FOLDER = Path(__file__).resolve().parents[2] / "cluster" / "kuberay"
JOBS = ["metatrain", "prepare", "tune", "prompt-tune"]


def manifests(*kinds: str) -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for number, manifest in enumerate(yaml.safe_load_all(path.read_text())):
            if manifest["kind"] != "Kustomization" and (not kinds or manifest["kind"] in kinds):
                found.append(pytest.param(manifest, id=f"{path.stem}-{number}"))
    return found


def cluster() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "raycluster.yaml").read_text())


def job(name: str = "metatrain") -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"rayjob-{name}.yaml").read_text())


@pytest.mark.parametrize("manifest", manifests())
def test_manifest_has_the_right_shape(manifest: dict[str, Any]) -> None:
    validate(manifest)
    assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "supmer"


def test_autoscaler_reads_the_groups_as_meant() -> None:
    config = _derive_autoscaling_config_from_ray_cr(cluster())
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert "GPU" not in types["headgroup"]["resources"]
    assert {name: types[name]["resources"][name] for name in ("trainer", "data")} == {"trainer": 1, "data": 1}
    assert types["trainer"]["resources"]["GPU"] == 4 and "GPU" not in types["data"]["resources"]
    assert all(types[name]["min_workers"] == 0 for name in ("trainer", "data"))
    assert types["trainer"]["labels"] == {"role": "trainer"}
    limits = types["headgroup"]["resources"]
    for resource in ("CPU", "GPU"):
        total = sum(types[name]["max_workers"] * types[name]["resources"].get(resource, 0) for name in ("trainer", "data"))
        assert limits[f"limit_{resource.lower()}s"] == total
    assert config["idle_timeout_minutes"] == 10


def test_versions_are_those_of_the_package() -> None:
    spec = cluster()["spec"]
    assert spec["rayVersion"] == ray.__version__
    assert spec["autoscalerOptions"]["version"] == "v2"
    images = {c["image"] for m in (cluster(), *map(job, JOBS)) for _, t in pod_templates(m) for c in t["spec"]["containers"]}
    assert images == {f"registry.example.com/supmer:{supmer.__version__}"}
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert kustomization["images"][0]["newTag"] == supmer.__version__
    assert all((FOLDER / name).is_file() for name in kustomization["resources"])


@pytest.mark.parametrize("name", JOBS)
def test_job_runs_a_script_of_the_image_on_the_cluster(name: str) -> None:
    spec = job(name)["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": cluster()["metadata"]["name"]}
    _, script, option, config, *_ = spec["entrypoint"].split()
    assert (script, option) == (f"/app/pipeline/{name.replace('-', '_')}.py", "--config")
    assert (FOLDER.parents[1] / Path(config).relative_to("/app")).is_file()


def test_service_builds_the_endpoint_from_settings_that_hold() -> None:
    service, policy = yaml.safe_load_all((FOLDER / "rayservice.yaml").read_text())
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    [application] = config.applications
    module, _, function = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert application.args.keys() == {"runs", "settings"}
    settings = load_config(None, application.args["settings"]).serve
    assert config.http_options.port == settings.port == policy["spec"]["ingress"][1]["ports"][1]["port"]
    assert config.http_options.request_timeout_s > settings.timeout_seconds
    cluster_spec = service["spec"]["rayClusterConfig"]
    assert cluster_spec["rayVersion"] == ray.__version__
    [group] = cluster_spec["workerGroupSpecs"]
    assert settings.max_replicas == group["maxReplicas"]
    assert settings.cpus_per_replica <= int(group["resources"]["CPU"])
    images = {c["image"] for _, t in pod_templates(service) for c in t["spec"]["containers"]}
    assert images == {f"registry.example.com/supmer:{supmer.__version__}"}
    for _, template in pod_templates(service):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize("manifest", manifests("RayCluster", "RayJob", "RayService"))
def test_pods_keep_to_the_restricted_standard(manifest: dict[str, Any]) -> None:
    for _, template in pod_templates(manifest):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] == 1000
        assert not any(key in spec for key in ("hostNetwork", "hostPID", "hostIPC"))
        assert all(set(volume) <= {"name", "emptyDir"} for volume in spec.get("volumes", []))
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"} and "privileged" not in context
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_memory_holds_object_store_and_shared_memory() -> None:
    spec = cluster()["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        shared = next(v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == "shared-memory")
        store = int(group["rayStartParams"]["object-store-memory"])
        assert store < parse_quantity(shared) < parse_quantity(pod["containers"][0]["resources"]["limits"]["memory"]) / 2
        assert all(parse_quantity(v["emptyDir"]["sizeLimit"]) > 0 for v in pod["volumes"])


def test_no_way_in_from_the_world() -> None:
    text = "\n".join(path.read_text() for path in FOLDER.glob("*.yaml"))
    assert not re.search(r"LoadBalancer|NodePort|kind: Ingress|0\.0\.0\.0/0|privileged: true|secretKeyRef", text)
    head = cluster()["spec"]["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP" and head["enableIngress"] is False
    ingress, egress = yaml.safe_load_all((FOLDER / "network-policy.yaml").read_text())
    assert all(rule["from"] for rule in ingress["spec"]["ingress"]) and ingress["spec"]["podSelector"] == {}
    assert egress["spec"]["policyTypes"] == ["Egress"]
