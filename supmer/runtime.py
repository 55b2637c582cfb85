"""Joining or starting the Ray cluster that a job runs on."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from supmer.errors import UserError

DRIVER_ENVIRONMENT = {
    # Workers stay in the job's folder, so that relative names of models mean the same there as here.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A cluster may have to launch machines first.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    # Ray Train takes one report per poll: at its 2 seconds, the last few checkpoints of a short run delay its end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Opt in to what Ray announces as its future default, instead of a warning at each start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

API_SERVER = "RAY_API_SERVER_ADDRESS"
"""Where Ray Train's watchers ask the dashboard whether a run still has a driver, and its reservations an owner.

Without this variable they would search for a dashboard: that delays the end of a short run by 12 seconds, or finds the one
of another cluster on this machine, which does not know the run, and so ends it. The user's own value is where jobs are
submitted to, another cluster too.
"""

LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
"""Ray's core tells the user of each pool of actors that Ray Data makes, as an error, how Ray Data makes it."""


def connect_ray(min_cpus: float = 1, *, hosts_trials: bool = False) -> None:
    """Join the cluster that this job was submitted to, else start one on this machine, bound to 127.0.0.1.

    A bare `ray.init()` would try to join whatever an earlier crash left in the address file; only the explicit address
    of a submission (`RAY_ADDRESS`) is trusted. What workers print goes to Ray's log files only, unless the log level is
    debug.

    Args:
        min_cpus: CPUs that the job reserves in all. Where this machine has fewer, they are shared: reservations only
            count, and a job that reserves more than there is would wait for ever.
        hosts_trials: runs on a cluster of our own may end before it does, and leave workers and reservations behind. Ray
            Train frees those by way of the dashboard, which other jobs do without: it costs 2 seconds of CPU and 1 GB.
    """
    for name, value in DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        return
    # Its one warning says that the cluster is guarded by a token, which is as it should be.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    verbose = logging.getLogger().isEnabledFor(logging.DEBUG)
    options = {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.WARNING}
    address = os.environ.get("RAY_ADDRESS")
    with _environment({} if verbose else {LOG_LEVEL: os.environ.get(LOG_LEVEL, "fatal")}):
        if address:
            _join(address, **options)
            return
        num_cpus = max(os.cpu_count() or 1, math.ceil(min_cpus))
        port = _free_port() if hosts_trials else None
        with _environment({API_SERVER: f"http://127.0.0.1:{port}" if hosts_trials else "none"}):
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=hosts_trials, dashboard_port=port, **options)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for what is started in the block to inherit."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
        os.environ.update(before)


def _join(address: str, **options: Any) -> None:
    """Join a running cluster.

    Raises:
        UserError: nothing answers there, or it runs another Ray or Python.
    """
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"RAY_ADDRESS={address}: cannot join this cluster ({' '.join(str(error).split())[:300]})") from error
