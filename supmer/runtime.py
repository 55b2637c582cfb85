"""Joining or starting the Ray cluster that a job runs on."""

from __future__ import annotations

import os

import ray


def connect_ray() -> None:
    """Join the cluster that this job was submitted to, else start one on this machine, bound to 127.0.0.1.

    A bare `ray.init()` would try to join whatever an earlier crash left in the address file; only the explicit address
    of a submission (`RAY_ADDRESS`) is trusted.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address)
    else:
        ray.init(address="local", include_dashboard=False)
