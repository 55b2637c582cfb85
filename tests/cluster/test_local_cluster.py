"""The autoscaling cluster of `make cluster-local`: a submitted job makes it grow, and its end leaves nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster" / "local" / "local_cluster.py"
RAY = Path(sys.executable).with_name("ray")

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

JOB = """
import os
import ray

ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
print("cpus at the start:", int(ray.cluster_resources().get("CPU", 0)))


@ray.remote(num_cpus=1, max_retries=5)
def place(flag):
    context = ray.get_runtime_context()
    if flag and not os.path.exists(flag):
        open(flag, "w").close()
        os.kill(os.getppid(), 9)  # the raylet: the whole node is gone
    return context.get_node_id()


@ray.remote(num_cpus=2, resources={"data": 1})
class Occupied:
    def node(self):
        return ray.get_runtime_context().get_node_id()


flag = os.environ.get("FLAG")
if flag:  # the lost node was the last one that the group may have: only in its place can another start
    occupied = Occupied.remote()
    ray.get(occupied.node.remote())
trainers = [place.options(resources={"trainer": 0.001}).remote(None) for _ in range(2)]
data = place.options(num_cpus=2, resources={"data": 0.001}).remote(flag)
roles = {node["NodeID"]: node["Labels"].get("role") for node in ray.nodes()}
print("trainers ran on:", {roles.get(node, "new") for node in ray.get(trainers)})
print("data ran after all:", bool(ray.get(data)))
print("roles:", sorted({node["Labels"].get("role", "head") for node in ray.nodes() if node["Alive"]}))
raise SystemExit(int(os.environ.get("EXIT_CODE", "0")))
"""


@dataclass
class LocalCluster:
    folder: Path

    def command(self, name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), name, "--dir", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def submit(self, job: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(RAY), "job", "submit", "--address", "http://127.0.0.1:8265", "--working-dir", str(job)]
        names = [f"{name}={value}" for name, value in environment.items()]
        command += ["--", "env", *names, sys.executable, "job.py"]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    folder = Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))  # short: Ray's sockets lie in it
    cluster, started_at = LocalCluster(folder), time.time()
    try:
        started = cluster.command("up")
        assert started.returncode == 0, started.stderr + (folder / "head.log").read_text()[-2000:]
        yield cluster
        second = cluster.command("up")
        assert second.returncode == 2 and "is running" in second.stderr
    finally:
        ended = cluster.command("down")
        shutil.rmtree(folder, ignore_errors=True)
    assert "none left" in ended.stdout, ended.stdout + ended.stderr
    assert not [process for process in psutil.process_iter(["cmdline"]) if str(folder) in str(process.info["cmdline"])]
    later = [process for process in psutil.process_iter(["name", "create_time"]) if process.info["create_time"] > started_at]
    assert not [process for process in later if process.info["name"].startswith("ray::")]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "job.py").write_text(JOB)
    return folder


def test_nodes_are_added_for_a_job_and_a_lost_one_is_replaced(cluster: LocalCluster, job: Path, tmp_path: Path) -> None:
    """The job kills one of the nodes it was given, and ends with an exit code of its own."""
    run = cluster.submit(job, FLAG=str(tmp_path / "killed"), EXIT_CODE="3")
    assert "cpus at the start: 0" in run.stdout, run.stdout + run.stderr
    assert (tmp_path / "killed").exists(), run.stdout + run.stderr
    assert "roles: ['data', 'head', 'trainer']" in run.stdout
    assert "data ran after all: True" in run.stdout
    assert run.returncode != 0 and "exit code 3" in run.stdout + run.stderr


def test_everything_listens_on_this_machine_only(cluster: LocalCluster) -> None:
    mark = cluster.folder.name
    ours = [p.info for p in psutil.process_iter(["cmdline", "net_connections"]) if mark in str(p.info["cmdline"])]
    connections = [connection for process in ours for connection in process["net_connections"] or []]
    listening = {ip_address(c.laddr.ip) for c in connections if c.status == psutil.CONN_LISTEN}
    assert listening
    assert all((getattr(address, "ipv4_mapped", None) or address).is_loopback for address in listening)
