"""What a trial needs of the cluster, and how many of them fit."""

from __future__ import annotations

import math
from collections.abc import Mapping

from supmer.config import Config
from supmer.placement import worker_and_builder_cpus
from supmer.tune.objectives import FEWSHOT

MARGIN = 1e-9


def driver_needs(config: Config) -> dict[str, float]:
    """Return what the process of a trial itself reserves: something where it tunes and scores, nothing where it waits."""
    if FEWSHOT not in config.tune.objectives:
        return {}
    fewshot = config.fewshot
    return {"CPU": fewshot.cpus_per_cell} | ({"GPU": fewshot.gpus_per_cell} if fewshot.gpus_per_cell else {})


def trial_needs(config: Config) -> dict[str, float]:
    """Return the CPUs and GPUs that a trial reserves: its own process, its workers and their episode builders."""
    train, driver = config.train, driver_needs(config)
    cpus = train.max_workers * worker_and_builder_cpus(train)
    gpus = train.max_workers * train.gpus_per_worker
    return {"CPU": cpus + driver.get("CPU", 0.0), "GPU": gpus + driver.get("GPU", 0.0)}


def num_concurrent(config: Config, total: Mapping[str, float]) -> int:
    """Return how many trials run at once: what fits into the cluster, capped by `tune.max_concurrent`.

    Args:
        config: the sweep's configuration.
        total: resources of the cluster; one that grows tells its limits, see `supmer.placement`.
    """
    limits = {name: total.get(f"limit_{name.lower()}s", total.get(name, 0.0)) for name in ("CPU", "GPU")}
    fitting = [math.floor(limits[name] / need + MARGIN) for name, need in trial_needs(config).items() if need]
    return max(1, min([*fitting, config.tune.max_concurrent or len(fitting) * 10_000]))
