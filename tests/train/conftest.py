"""One Ray cluster for all tests of this folder: to start one and to end it takes as long as many a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from s3_server import S3Server, serving

from supmer.runtime import connect_ray


@pytest.fixture(scope="package")
def server() -> Iterator[S3Server]:
    """Object storage, whose address and credentials are in the environment."""
    with serving() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="package")
def cluster(server: S3Server) -> Iterator[None]:
    """A Ray cluster on this machine; its processes know the environment of `server`."""
    connect_ray(min_cpus=4)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def no_cluster_is_left() -> None:
    """Leave the cluster of one module to the next."""
