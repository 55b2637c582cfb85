"""A trial's configuration, run directory and command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from supmer import storage
from supmer.config import Config
from supmer.config.tune import TuneConfig
from supmer.tune.objectives import FEWSHOT
from supmer.tune.settings import with_settings

TRIALS = "trials"


def directory_of(config: Config, trial: str) -> str:
    """Return the run directory of a trial."""
    return storage.join(config.run_dir, TRIALS, trial)


def trial_config(config: Config, trial: str, settings: Mapping[str, Any]) -> Config:
    """Return the configuration of a trial: the sweep's, its settings, and a run directory of its own.

    All checkpoints stay where rungs are scored on few-shot tasks, as training goes on meanwhile.

    Raises:
        UserError: the settings do not go together.
    """
    run = {"run.dir": storage.join(config.run_dir, TRIALS), "run.name": trial, "run.on_conflict": "refuse"}
    found = with_settings(as_single_run(config), {**run, **settings})
    return _keep_all_checkpoints(found) if FEWSHOT in config.tune.objectives else found


def best_config(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return the configuration that repeats a trial as a run beside the sweep, for `metatrain.py --config`."""
    return with_settings(as_single_run(config), {"run.name": f"{config.run.name}-best", **settings})


def command_of(config: Config, trial: str) -> str:
    """Return the command that repeats a trial as a run beside the sweep."""
    file = storage.join(directory_of(config, trial), "config.yaml")
    name = f"{config.run.name}-{trial}"
    return shlex.join(["python", "pipeline/metatrain.py", "--config", file, f"run.dir={config.run.dir}", f"run.name={name}"])


def as_single_run(config: Config) -> Config:
    """Return the configuration without its sweep.

    The number of threads is fixed, as sums depend on it: a trial among others and a run on its own then give equal numbers.
    """
    train = config.train
    threads = train.threads_per_worker or max(1, int(train.cpus_per_worker))
    fixed = train.model_copy(update={"threads_per_worker": threads})
    return config.model_copy(update={"tune": TuneConfig(), "train": fixed})


def _keep_all_checkpoints(config: Config) -> Config:
    num_checkpoints = math.ceil(config.meta.steps / config.train.checkpoint_every)
    keep = max(config.train.keep_checkpoints, num_checkpoints)
    return config.model_copy(update={"train": config.train.model_copy(update={"keep_checkpoints": keep})})
