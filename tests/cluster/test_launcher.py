"""The cluster launcher's definitions: accepted by Ray, and within our own rules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from launcher_policy import breaches
from ray.autoscaler._private.util import prepare_config, validate_config

import supmer

FOLDER = Path(__file__).resolve().parents[2] / "cluster"
NAMES = ["aws", "gcp", "azure", "onprem"]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_ray_accepts_the_definition(name: str) -> None:
    validate_config(prepare_config(load(name)))


@pytest.mark.parametrize("name", NAMES)
def test_definition_keeps_our_rules(name: str) -> None:
    assert breaches(load(name), supmer.__version__) == []


def test_every_definition_runs_the_same_image() -> None:
    assert len({load(name)["docker"]["image"] for name in NAMES}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_values_of_an_account_are_marked(name: str) -> None:
    for line in (FOLDER / f"{name}.yaml").read_text().splitlines():
        if any(mark in line for mark in ("example.com", "-0000000", "KeyName", "supmer-project-id", "IamInstanceProfile")):
            assert (
                line.lstrip().startswith(("#", "- gpu", "- cpu", "--project", "- subnetwork", "- email")) or "CHANGE" in line
            ), line


def set_in(config: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split("/")
    for key in parents:
        config = config[key]
    if value is None:
        del config[last]
    else:
        config[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("max_worker", 3),
        ("cluster_name", 7),
        ("head_node_type", "chief"),
        ("available_node_types/trainer/resources/trainer", 0.5),
        ("available_node_types/trainer/min_workers", 11),
        ("available_node_types/trainer/gpus", 4),
        ("available_node_types/data/node_config", None),
        ("docker/shm_size", "12gb"),
        ("docker/container_name", None),
        ("provider", None),
    ],
)
def test_ray_refuses_a_mistake(path: str, value: object) -> None:
    config = load("aws")
    set_in(config, path, value)
    with pytest.raises((jsonschema.ValidationError, ValueError, AssertionError, KeyError)):
        validate_config(prepare_config(config))


OPEN_SSH = {"GroupName": "supmer", "IpPermissions": [{"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}


@pytest.mark.parametrize(
    ("name", "path", "value", "expected"),
    [
        ("aws", "provider/security_group", OPEN_SSH, "opens an address to the world"),
        ("gcp", "provider/use_internal_ips", False, "public addresses"),
        ("aws", "docker/image", "registry.example.com/supmer:latest", "is not of version"),
        ("aws", "docker/run_options", ["--privileged"], "rights it does not need"),
        ("gcp", "docker/run_options", ["--cap-drop ALL"], "lacks --env RAY_AUTH_MODE=token"),
        ("onprem", "docker/run_options", ["--shm-size=18gb", "--cap-drop ALL"], "lacks --security-opt no-new-privileges"),
        ("aws", "head_start_ray_commands", ["ray start --head --dashboard-host=::"], "dashboard is not on 127.0.0.1"),
        ("onprem", "head_start_ray_commands", ["ray start --head --dashboard-host=127.0.0.1"], "head computes"),
        ("azure", "file_mounts", {}, "nodes have no token"),
        ("gcp", "head_setup_commands", ["python -m pip install boto3"], "unpinned packages"),
        ("aws", "available_node_types/head/resources/CPU", 8, "head computes"),
        ("aws", "available_node_types/head/node_config/InstanceMarketOptions", {"MarketType": "spot"}, "head is a spot"),
        ("azure", "available_node_types/data/min_workers", 1, "data: min_workers must be 0"),
        ("gcp", "available_node_types/data/node_config/scheduling", None, "data: not spot"),
        ("gcp", "available_node_types/trainer/resources/trainer", None, "trainer: lacks the resource of its role"),
        ("aws", "available_node_types/data/resources/GPU", 1, "data: GPUs belong to trainers only"),
        ("aws", "available_node_types/data/resources/object_store_memory", 10**11, "data: shared memory is smaller"),
        ("aws", "available_node_types/trainer/max_workers", 4, "max_workers is not the sum"),
        ("aws", "available_node_types/trainer/resources/GPU", 8, "limit_gpus is not 16"),
        ("aws", "available_node_types/trainer/node_config/SecurityGroupIds", None, "trainer: lacks SecurityGroupIds"),
        ("aws", "available_node_types/head/node_config/IamInstanceProfile", None, "head: lacks IamInstanceProfile"),
        ("aws", "available_node_types/head/node_config/MetadataOptions", {}, "head: instance metadata without a token"),
    ],
)
def test_our_rules_catch_a_mistake(name: str, path: str, value: object, expected: str) -> None:
    config = copy.deepcopy(load(name))
    set_in(config, path, value)
    assert any(expected in breach for breach in breaches(config, supmer.__version__))


def test_roles_of_the_workers_are_least(statements_of: Callable[[str], list[dict[str, Any]]]) -> None:
    worker, head = statements_of("aws-worker"), statements_of("aws-head")
    for statement in worker + head:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        assert all("*" not in action for action in actions), "no wildcard actions"
        assert statement["Resource"] != "*" or all(action.startswith("ec2:Describe") for action in actions)
    assert not any("ec2" in str(statement["Action"]) for statement in worker)


@pytest.fixture
def statements_of() -> Callable[[str], list[dict[str, Any]]]:
    return lambda name: yaml.safe_load((FOLDER / "iam" / f"{name}.json").read_text())["Statement"]
