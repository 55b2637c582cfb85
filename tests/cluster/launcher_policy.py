"""What every launcher definition in `cluster/` must keep to, beyond Ray's schema: returned as a list of breaches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

SIZES = {"gb": 10**9, "g": 10**9, "mb": 10**6}


def breaches(config: dict[str, Any], version: str) -> list[str]:
    """List what is wrong with a definition; `version` is the package's, which the image's tag must equal."""
    found = [*_network(config), *_container(config, version), *_commands(config)]
    if "available_node_types" in config:
        found += [*_head(config), *_groups(config), *_limits(config)]
    if config["provider"]["type"] == "aws":
        found += _aws(config)
    return found


def _network(config: dict[str, Any]) -> Iterator[str]:
    if "0.0.0.0" in yaml.safe_dump(config):
        yield "opens an address to the world"
    if config["provider"]["type"] != "local" and config["provider"].get("use_internal_ips") is not True:
        yield "nodes have public addresses"


def _container(config: dict[str, Any], version: str) -> Iterator[str]:
    docker = config["docker"]
    if not docker["image"].endswith(f":{version}"):
        yield f"image {docker['image']} is not of version {version}"
    every_option = " ".join(docker["run_options"] + docker.get("head_run_options", []))
    if re.search(r"--privileged|--user|--cap-add|docker\.sock", every_option):
        yield "container has rights it does not need"
    for needed in ("--security-opt no-new-privileges", "--cap-drop ALL", "--shm-size", "--env RAY_AUTH_MODE=token"):
        if needed not in every_option:
            yield f"container lacks {needed}"
    if "~/.ray/auth_token" not in config["file_mounts"]:
        yield "nodes have no token"


def _commands(config: dict[str, Any]) -> Iterator[str]:
    start = " ".join(config["head_start_ray_commands"])
    if "--dashboard-host=127.0.0.1" not in start:
        yield "dashboard is not on 127.0.0.1"
    if config["provider"]["type"] == "local" and "--num-cpus=0" not in start:
        yield "head computes"
    for command in config["setup_commands"] + config["head_setup_commands"] + config["worker_setup_commands"]:
        packages = [word for word in command.split("install", 1)[-1].split() if not word.startswith("-")]
        if "pip install" in command and not all("==" in package for package in packages):
            yield f"unpinned packages: {command}"


def _head(config: dict[str, Any]) -> Iterator[str]:
    head = config["available_node_types"][config["head_node_type"]]
    if head["resources"].get("CPU") != 0 or head["resources"].get("GPU", 0) != 0:
        yield "head computes"
    if _is_spot(head["node_config"]):
        yield "head is a spot machine"
    if _shm_bytes(config["docker"].get("head_run_options", [])) < head["resources"]["object_store_memory"]:
        yield "head: shared memory is smaller than the object store"


def _groups(config: dict[str, Any]) -> Iterator[str]:
    for name, group in _workers(config).items():
        if group.get("min_workers") != 0:
            yield f"{name}: min_workers must be 0"
        if not _is_spot(group["node_config"]):
            yield f"{name}: not spot"
        if group["resources"].get(name) != 1:
            yield f"{name}: lacks the resource of its role"
        if (group["resources"].get("GPU", 0) > 0) != (name == "trainer"):
            yield f"{name}: GPUs belong to trainers only"
        if _shm_bytes(group["docker"]["worker_run_options"]) < group["resources"]["object_store_memory"]:
            yield f"{name}: shared memory is smaller than the object store"


def _limits(config: dict[str, Any]) -> Iterator[str]:
    groups = _workers(config).values()
    if config["max_workers"] != sum(group["max_workers"] for group in groups):
        yield "max_workers is not the sum of the groups'"
    limits = config["available_node_types"][config["head_node_type"]]["resources"]
    for resource in ("CPU", "GPU"):
        total = sum(group["max_workers"] * group["resources"].get(resource, 0) for group in groups)
        if limits.get(f"limit_{resource.lower()}s") != total:
            yield f"limit_{resource.lower()}s is not {total}"


def _aws(config: dict[str, Any]) -> Iterator[str]:
    for name, node_type in config["available_node_types"].items():
        node = node_type["node_config"]
        # Without these Ray makes a group that admits SSH from anywhere, and a role with all of EC2 and S3.
        for key in ("SecurityGroupIds", "SubnetIds", "IamInstanceProfile"):
            if key not in node:
                yield f"{name}: lacks {key}"
        if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{name}: instance metadata without a token"


def _workers(config: dict[str, Any]) -> dict[str, Any]:
    return {name: group for name, group in config["available_node_types"].items() if name != config["head_node_type"]}


def _is_spot(node: dict[str, Any]) -> bool:
    return (
        node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        or node.get("scheduling", {}).get("provisioningModel") == "SPOT"
        or node.get("azure_arm_parameters", {}).get("priority") == "Spot"
    )


def _shm_bytes(options: list[str]) -> int:
    match = re.search(r"--shm-size=(\d+)(gb|g|mb)", " ".join(options))
    return int(match[1]) * SIZES[match[2]] if match else 0
