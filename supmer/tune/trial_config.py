"""The trials of a sweep: their configurations, run directories and commands, task stores, and what they reserve."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from supmer import storage
from supmer.commands import job_command
from supmer.config import Config
from supmer.config.effects import STORE_EFFECTS, digest, names_that_affect
from supmer.config.load import with_settings
from supmer.errors import UserError
from supmer.placement import worker_and_builder_cpus
from supmer.tune.objectives import FEWSHOT
from supmer.tune.space import grid_points, settings_of, settings_searched

logger = logging.getLogger(__name__)

TRIALS = "trials"
MAX_STORES = 50


def directory_of(config: Config, trial: str) -> str:
    return storage.join(config.run_dir, TRIALS, trial)


def trial_config(config: Config, trial: str, settings: Mapping[str, Any]) -> Config:
    """Return the configuration of a trial: the sweep's, its settings, and a run directory of its own.

    Where trials are scored on few-shot tasks, they keep all checkpoints: training goes on while a rung is scored.

    Raises:
        UserError: the settings do not go together.
    """
    run = {"run.dir": storage.join(config.run_dir, TRIALS), "run.name": trial, "run.on_conflict": "refuse"}
    found = with_settings(as_single_run(config), {**run, **settings})
    if FEWSHOT not in config.tune.objectives:
        return found
    num_checkpoints = math.ceil(found.meta.steps / found.train.checkpoint_every)
    return with_settings(found, {"train.keep_checkpoints": max(found.train.keep_checkpoints, num_checkpoints)})


def command_of(config: Config, trial: str) -> str:
    """Return the command that repeats a trial as a run beside the sweep."""
    file = storage.join(directory_of(config, trial), "config.yaml")
    name = f"{config.run.name}-{trial}"
    return job_command("metatrain", "--config", file, f"run.dir={storage.absolute(config.run.dir)}", f"run.name={name}")


def as_single_run(config: Config) -> Config:
    """Return the configuration without its sweep.

    Sums depend on the number of threads, so that number is fixed: a trial among others and a run on its own then give equal
    numbers.
    """
    train = config.train
    threads = train.threads_per_worker or max(1, int(train.cpus_per_worker))
    return with_settings(config, {"tune": {}, "train.threads_per_worker": threads})


def driver_needs(config: Config) -> dict[str, float]:
    """Return what a trial's own process reserves: something where that process scores few-shot tasks, else nothing."""
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
    """Return how many trials run at once: what fits into the cluster, at most `tune.max_concurrent`.

    Args:
        config: the sweep's configuration.
        total: resources of the cluster; a growing cluster announces its limits, see `supmer.placement`.
    """
    limits = {name: total.get(f"limit_{name.lower()}s", total.get(name, 0.0)) for name in ("CPU", "GPU")}
    fitting = [math.floor(limits[name] / need + 1e-9) for name, need in trial_needs(config).items() if need]
    return max(1, min([*fitting, config.tune.max_concurrent or len(fitting) * 10_000]))


def store_configs(config: Config) -> list[Config]:
    """Return a configuration for each store that the searched settings can lead to.

    Raises:
        UserError: such a setting is continuous, or there are too many combinations.
    """
    decisive = set(names_that_affect(Config, *STORE_EFFECTS))
    space = {name: found for name, found in config.tune.space.items() if decisive & settings_searched(name, found)}
    for name, dimension in space.items():
        if dimension.kind in ("uniform", "loguniform"):
            raise UserError(f"tune.space.{name}: must be choice, integer or cases, as each value needs its own task store")
    whatever_holds = {name: {**dimension.model_dump(), "when": {}} for name, dimension in space.items()}
    points = grid_points(with_settings(config, {"tune.space": whatever_holds}))
    if points is None or len(points) > MAX_STORES:
        raise UserError(f"tune.space: {', '.join(space)} would need more than {MAX_STORES} task stores; name fewer values")
    stores: dict[str, Config] = {}
    for point in points:
        settings = settings_of(space, point)
        try:
            trial = with_settings(as_single_run(config), settings)
        except UserError as error:  # such a trial fails before it starts
            logger.debug("no store for %s: %s", settings, error)
        else:
            stores.setdefault(digest(trial, *STORE_EFFECTS), trial)
    return list(stores.values())
