"""Roles, limits and versions of a cluster: one that has roles, other than (in `tests/train`) a laptop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import ray

from supmer.config.load import load_config
from supmer.errors import UserError
from supmer.placement import ROLE_SHARE, check_capacity, max_cpus, max_gpus, role_resources

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def head_alone() -> Iterator[None]:
    ray.init(address="local", num_cpus=0, resources={"limit_cpus": 10, "limit_gpus": 2}, include_dashboard=False)
    yield
    ray.shutdown()


def test_a_head_alone_already_tells_what_may_come(head_alone: None) -> None:
    assert (max_cpus(), max_gpus()) == (10, 2)
    assert role_resources("trainer") == {"trainer": ROLE_SHARE}
    assert role_resources("data") == {"data": ROLE_SHARE}


def test_a_job_within_the_limits_is_let_through(head_alone: None) -> None:
    check_capacity(load_config(None, ["train.workers=2", "train.gpus_per_worker=1", "train.cpus_per_worker=4"]))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["train.workers=3", "train.gpus_per_worker=1"],
            "train.workers=3: needs 3 GPUs, and this cluster has or grows to 2;",
        ),
        (
            ["train.workers=9"],
            "train.workers=9: needs 11.25 CPUs, and this cluster has or grows to 10;",
        ),
    ],
)
def test_a_job_beyond_the_limits_is_one_clear_line(head_alone: None, overrides: list[str], expected: str) -> None:
    with pytest.raises(UserError) as error:
        check_capacity(load_config(None, overrides))
    assert str(error.value).startswith(expected) and "\n" not in str(error.value)


def test_another_ray_than_the_clusters_is_one_clear_line(head_alone: None) -> None:
    code = (
        "import ray\n"
        "from supmer.cli import job_parser, run_job\n"
        "from supmer.runtime import connect_ray\n"
        "ray.__version__ = '2.40.0'\n"
        "run_job(lambda config, arguments: connect_ray(), job_parser(''))\n"
    )
    address = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "RAY_ADDRESS": address}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    expected = (
        f"error: RAY_ADDRESS={address}: cannot join this cluster (Version mismatch: The cluster was started with: Ray: "
    )
    assert run.stderr.splitlines()[-1].startswith(expected + ray.__version__)
    assert "Ray: 2.40.0" in run.stderr and "Traceback" not in run.stderr
