"""The cluster launcher's definitions: accepted by Ray, and within our own rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
