"""The endpoint as a Ray Serve application, and the job that runs it until it is stopped."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from supmer import storage
from supmer.config import Config
from supmer.config.load import load_config
from supmer.errors import setting_error
from supmer.placement import check_room
from supmer.progress import Progress
from supmer.runtime import connect_ray
from supmer.serve.front import Front
from supmer.serve.replica import Replica
from supmer.serve.tasks import ServedTask, TaskFolder, put_runs

logger = logging.getLogger(__name__)

NAME = "supmer"
SPARE_SECONDS = 10
"""Beyond `serve.timeout_seconds`, after which the front has answered 503, the proxy gives up too."""

STAY_UP = {"health_check_period_s": 1, "graceful_shutdown_wait_loop_s": 0.2, "graceful_shutdown_timeout_s": 30}
"""A dead replica is noticed within a second, a stopped one finishes its work."""

QUIET = {"log_level": "WARNING", "enable_access_log": False}


def serve_until_stopped(config: Config, runs: Sequence[str]) -> None:
    """Serve the prompts of runs, and those added earlier, until SIGTERM or Ctrl-C; then let requests under way finish.

    Raises:
        UserError: a run cannot be used, there is no task at all, or the port is taken.
    """
    tasks = put_runs(TaskFolder(_folder(config)), runs)
    _check_port(config)
    settings, num_backbones = config.serve, len({task.backbone for task in tasks})
    connect_ray(settings.max_replicas * settings.cpus_per_replica * num_backbones)
    fewest = settings.min_replicas * num_backbones
    check_room("serve.min_replicas", settings.min_replicas, fewest * settings.cpus_per_replica, fewest * _gpus(config))
    _log_as_the_job()
    with Progress("starting Ray Serve"):
        serve.start(proxy_location="EveryNode", http_options=_http(config), logging_config=QUIET)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with Progress("loading the models"):
            serve.run(build(config, tasks), name=NAME, route_prefix="/")
        for task in tasks:
            logger.info(
                "task %s: %s of %s", task.name, ", ".join(task.definition.task.fields), task.definition.backbone.name
            )
        logger.info("%d tasks at http://%s:%d", len(tasks), config.serve.host, config.serve.port)
        stopped.wait()
        logger.info("stopping when the requests under way are answered")
    finally:
        serve.delete(NAME)
        serve.shutdown()


def _log_as_the_job() -> None:
    """Take from Ray Serve, in this process, the handler of its own: its warnings come as all other lines do."""
    of_serve = logging.getLogger("ray.serve")
    of_serve.handlers.clear()
    of_serve.setLevel(logging.WARNING)
    of_serve.propagate = True


def application(arguments: dict[str, Any]) -> Application:
    """Build the application from a Serve configuration, as `serve deploy` and KubeRay's RayService read it.

    Args:
        arguments: `config` (a file or the name of a shipped one), `settings` (a list of `section.key=value`) and `runs`.
    """
    config = load_config(arguments.get("config"), arguments.get("settings", []))
    return build(config, put_runs(TaskFolder(_folder(config)), arguments.get("runs", [])))


def build(config: Config, tasks: Sequence[ServedTask]) -> Application:
    """Return the front and the replicas of each backbone."""
    settings = config.serve
    replicas = {}
    for key, task in {task.backbone: task for task in tasks}.items():
        backbone = task.definition.backbone
        deployment = serve.deployment(
            Replica,
            name=f"backbone-{key}",
            ray_actor_options={"num_cpus": settings.cpus_per_replica, "num_gpus": _gpus(config)},
            autoscaling_config={
                "min_replicas": settings.min_replicas,
                "max_replicas": settings.max_replicas,
                "target_ongoing_requests": settings.target_requests,
            },
            max_ongoing_requests=2 * settings.max_batch,  # one batch is computed, the next one gathers
            logging_config=QUIET,
            **STAY_UP,
        )
        replicas[key] = deployment.bind(settings, backbone, _folder(config))
    # The front's own limit answers 503 with a reason.
    front = serve.deployment(
        Front,
        name="front",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=2 * settings.max_waiting + 100,
        logging_config=QUIET,
        **STAY_UP,
    )
    return front.bind(settings, _folder(config), replicas)


def _folder(config: Config) -> str:
    return storage.join(config.run_dir, "serve")


def _gpus(config: Config) -> float:
    """Return the GPUs of each replica."""
    if config.serve.gpus_per_replica is not None:
        return config.serve.gpus_per_replica
    return 1.0 if ray.is_initialized() and ray.cluster_resources().get("GPU") else 0.0


def _http(config: Config) -> dict[str, Any]:
    return {
        "host": config.serve.host,
        "port": config.serve.port,
        "request_timeout_s": config.serve.timeout_seconds + SPARE_SECONDS,
    }


def _check_port(config: Config) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((config.serve.host, config.serve.port))
        except OSError as error:
            place = f"cannot be listened at on {config.serve.host} ({error.strerror or error})"
            raise setting_error("serve.port", config.serve.port, place) from error
