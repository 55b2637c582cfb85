"""Joining or starting the Ray cluster that a job runs on."""

from __future__ import annotations

import logging
import math
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

from supmer.errors import UserError, setting_error

logger = logging.getLogger(__name__)

DRIVER_ENVIRONMENT = {
    # Workers stay in the job's folder, so that relative names of models mean the same there as here.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A cluster may have to launch machines first.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    # Ray Train takes one report per poll: at its 2 seconds, the last few checkpoints of a short run delay its end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # A proxy that imports on busy cores longer than Ray's 5 seconds would be killed, and the endpoint with it.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
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
"""Ray's core logs an error for each pool of actors that Ray Data makes; nothing is wrong with them.

The price is one line on stderr as Ray starts, "Set ray log level from environment variable": Ray's core logs it before
it obeys the variable. Without the variable each pool of a driver logs a long line that is marked as an error.
"""


SHORT_FOLDER = "/tmp"
LONGEST_SOCKET_PATH = 107
"""Bytes that Linux takes for the path of a socket."""

LONGEST_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest that Ray adds to the folder of temporary files."""


def connect_ray(min_cpus: float = 1, *, hosts_trials: bool = False) -> None:
    """Join the cluster that this job was submitted to, else start one on this machine, bound to 127.0.0.1.

    A bare `ray.init()` would try to join whatever an earlier crash left in the address file; only the explicit address
    of a submission (`RAY_ADDRESS`) is trusted. What workers print goes to Ray's log files only, unless the log level is
    debug.

    Args:
        min_cpus: CPUs that the job reserves in all. Where this machine has fewer, they are shared: reservations only
            count, and a job that reserves more than there is would wait for ever.
        hosts_trials: runs on a cluster of our own may end before it does, and leave workers and reservations behind. Ray
            Train asks the dashboard which to free. Other jobs need no dashboard: it costs 2 seconds of CPU and 1 GB.

    Raises:
        UserError: the cluster of RAY_ADDRESS cannot be joined.
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
            try:
                ray.init(address=address, **options)
            except (ConnectionError, RuntimeError) as error:  # nothing answers there, or another Ray or Python
                why = " ".join(str(error).split())[:300]
                raise UserError(f"RAY_ADDRESS={address}: cannot join this cluster ({why})") from error
            return
        num_cpus = max(os.cpu_count() or 1, math.ceil(min_cpus))
        port = _free_port() if hosts_trials else None
        with _environment({API_SERVER: f"http://127.0.0.1:{port}" if hosts_trials else "none", **session_folder()}):
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=hosts_trials, dashboard_port=port, **options)


def session_folder() -> dict[str, str]:
    """Return the variable that makes Ray keep its sockets in a short folder, where the user's own is too long.

    Raises:
        UserError: there is no other folder, or the user has named the long one for Ray itself.
    """
    room = LONGEST_SOCKET_PATH - len(LONGEST_SOCKET)
    given = os.environ.get("RAY_TMPDIR")
    folder = given or tempfile.gettempdir()
    if len(os.fsencode(folder)) <= room:
        return {}
    allowed = f"must have at most {room} bytes, as Ray keeps sockets below it; set RAY_TMPDIR to a shorter folder"
    if given or not os.access(SHORT_FOLDER, os.W_OK | os.X_OK):
        raise setting_error("RAY_TMPDIR" if given else "TMPDIR", folder, allowed)
    logger.info("TMPDIR=%s is too long for Ray's sockets: they are kept in %s", folder, SHORT_FOLDER)
    return {"RAY_TMPDIR": SHORT_FOLDER}


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
