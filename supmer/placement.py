"""Where actors run on a cluster of several kinds of nodes, and whether a job can fit there at all.

The definitions in `cluster/` give their nodes a custom resource named after the node's role, and give the head two numbers
that no job takes: `limit_gpus` and `limit_cpus`, what the cluster can grow to. A laptop has none of them, and the
same code then asks for nothing beyond CPUs and GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import ray

from supmer.config import Config, TrainConfig
from supmer.errors import setting_error

Role = Literal["trainer", "data"]

ROLE_SHARE = 0.001
"""What an actor takes of its role's resource (each node has 1): a mark, not a limit."""


def role_resources(role: Role) -> dict[str, float]:
    """Return the custom resources that put an actor on nodes of this role; none where nodes have no roles.

    The head's limits show whether nodes have roles. A role's own resource does not: a group may still have no node.
    """
    return {role: ROLE_SHARE} if "limit_cpus" in ray.cluster_resources() else {}


def on_data_nodes(function: Callable[..., Any]) -> Any:
    """Return the function as a Ray task that runs where data is prepared."""
    return ray.remote(function).options(resources=role_resources("data"))


def worker_resources(train: TrainConfig) -> dict[str, float]:
    """Return what one worker reserves.

    An elastic run fills all the room there is with workers. Where nodes have no roles, a worker therefore reserves what its
    episode builders need too, and they reserve nothing; else none of them might find a place.
    """
    cpus = worker_and_builder_cpus(train) if _builders_are_included(train) else train.cpus_per_worker
    gpus = {"GPU": train.gpus_per_worker} if train.gpus_per_worker else {}
    return {"CPU": cpus} | gpus | role_resources("trainer")


def builder_cpus(train: TrainConfig) -> float:
    """Return the CPUs that one episode builder reserves."""
    return 0.0 if _builders_are_included(train) else train.cpus_per_builder


def worker_and_builder_cpus(train: TrainConfig) -> float:
    """Return the CPUs that a worker and its episode builders need together."""
    return train.cpus_per_worker + train.episode_builders * train.cpus_per_builder


def max_cpus() -> float:
    """Return the CPUs that the cluster has or can grow to, the head's not counted where it computes nothing."""
    return _limit("limit_cpus", "CPU")


def max_gpus() -> float:
    """Return the GPUs that the cluster has or can grow to."""
    return _limit("limit_gpus", "GPU")


def check_capacity(config: Config) -> None:
    """Raise UserError for a job that can never be scheduled, instead of waiting for ever for nodes that will not come."""
    train = config.train
    cpus, gpus = worker_and_builder_cpus(train), train.gpus_per_worker
    check_room("train.workers", train.workers, train.min_workers * cpus, train.min_workers * gpus)


def check_room(setting: str, value: object, cpus: float, gpus: float) -> None:
    """Raise UserError for a setting whose CPUs or GPUs the cluster neither has nor can grow to."""
    for what, needed, limit in (("GPUs", gpus, max_gpus()), ("CPUs", cpus, max_cpus())):
        if needed > limit:
            allowed = f"needs {needed:g} {what}, and this cluster has or grows to {limit:g}; lower it, or raise the maxima"
            raise setting_error(setting, value, f"{allowed} in the cluster's definition")


def _builders_are_included(train: TrainConfig) -> bool:
    return train.is_elastic and not role_resources("data")


def _limit(limit: str, resource: str) -> float:
    """Return what the head announces, or, where it announces nothing, what there is."""
    total = ray.cluster_resources()
    return float(total.get(limit, 0.0 if "limit_cpus" in total else total.get(resource, 0.0)))
