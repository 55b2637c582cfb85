"""The cluster doctor on a real cluster of three nodes, and its verdicts on what cannot be made to happen here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from supmer.config import Config
from supmer.config.load import load_config
from supmer.doctor import run
from supmer.doctor.nodes import Facts, Node, facts
from supmer.doctor.run import Check, print_table, run_checks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A head that computes nothing, a trainer node and a data node, as the definitions in `cluster/` make them."""
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, resources={"limit_cpus": 3})
        cluster.add_node(num_cpus=2, resources={"trainer": 1})
        cluster.add_node(num_cpus=1, resources={"data": 1})
        ray.init(address=cluster.address, log_to_driver=False)
        yield str(cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()


def config_for(folder: Path, *overrides: str) -> Config:
    settings = ["backbone.name=embedded", "train.workers=2", f"run.dir={folder}"]
    return load_config(None, [*settings, *overrides])


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.mark.cluster
@pytest.mark.slow
def test_a_sound_cluster_passes_everything(cluster: str, tmp_path: Path) -> None:
    checks = by_name(run_checks(config_for(tmp_path), wait_seconds=60))
    names = ["workers", "nodes", "versions", "free disk", "shared memory", "storage", "backbone", "all-reduce"]
    assert list(checks) == names
    assert all(check.passed for check in checks.values()), checks
    assert checks["nodes"].found == "3 nodes answer"
    assert "2 workers on cpu" in checks["all-reduce"].found
    assert list(tmp_path.iterdir()) == [], "leaves nothing in the shared storage"


@pytest.mark.cluster
def test_too_many_workers_are_refused_at_once(cluster: str, tmp_path: Path) -> None:
    (check,) = run_checks(config_for(tmp_path, "train.workers=3"), wait_seconds=60)
    assert not check.passed
    assert check.found.startswith("train.workers=3: needs 3.75 CPUs, and this cluster has or grows to 3;")


@pytest.mark.cluster
def test_workers_that_do_not_come_are_reported(cluster: str, tmp_path: Path) -> None:
    checks = by_name(run_checks(config_for(tmp_path, "train.cpus_per_worker=1.2"), wait_seconds=2))
    assert not checks["workers"].passed and "ray status" in checks["workers"].remedy
    assert "all-reduce" not in checks


def test_differing_versions_are_named() -> None:
    other = facts()._replace(versions=facts().versions | {"ray": "2.59.0"})
    check = run._check_versions({"10.0.0.1/aaaaa": facts(), "10.0.0.2/bbbbb": other})
    assert not check.passed
    assert check.found == f"10.0.0.2/bbbbb: ray 2.59.0, here {ray.__version__}"


def test_little_disk_and_shared_memory_are_named(tmp_path: Path) -> None:
    known = {"a": Facts(facts().versions, disk_free=3 * run.GIB, shared_memory=run.GIB)}
    assert run._check_disk(known, config_for(tmp_path)).passed
    hub = run._check_disk(known, config_for(tmp_path, "backbone.name=google/flan-t5-xl"))
    assert not hub.passed and hub.found == "a: 3.0 GiB of 20.0"
    shared = run._check_shared_memory(known, [Node("0" * 56, "a", 8 * run.GIB)])
    assert not shared.passed and "--shm-size" in shared.remedy


def test_a_relative_run_directory_on_several_machines_is_refused() -> None:
    nodes = [Node("0" * 56, "10.0.0.1/00000", 1), Node("1" * 56, "10.0.0.2/11111", 1)]
    check = run._check_storage(nodes, load_config(None, []))
    assert not check.passed and check.found == "run.dir=runs: is relative, so different on every node"


def test_table_shows_the_remedy_of_failures_only() -> None:
    console = Console(record=True, width=120)
    print_table([Check("storage", True, "fine", "mend storage"), Check("backbone", False, "gone", "mend hub")], console)
    text = console.export_text()
    assert "mend hub" in text and "mend storage" not in text


@pytest.mark.cluster
@pytest.mark.slow
def test_storage_and_backbone_out_of_reach_fail_with_a_remedy(cluster: str, tmp_path: Path) -> None:
    """From the command line: exit code 1, and what does not depend on them is checked all the same."""
    (tmp_path / "file").write_text("not a folder")
    settings = [f"backbone.name={tmp_path}/none", f"run.dir={tmp_path}/file/runs", "train.workers=2"]
    command = [sys.executable, str(ROOT / "pipeline" / "doctor.py"), *settings]
    environment = os.environ | {"RAY_ADDRESS": cluster, "COLUMNS": "400"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)
    assert done.returncode == 1, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "FAIL" in rows["storage"] and "give run.dir a bucket" in rows["storage"]  # the rest may be in further lines
    assert "FAIL" in rows["backbone"] and "UserError" in rows["backbone"]
    assert "pass" in rows["versions"] and "pass" in rows["all-reduce"]
