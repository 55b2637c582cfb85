"""What a sweep optimizes: names, directions, and which of them a configuration's trials report."""

from __future__ import annotations

import math

from supmer.config import Config
from supmer.config.text import suggest
from supmer.errors import setting_error
from supmer.tune.space import is_searched

QUERY_LOSS = "validation_query_loss"
FEWSHOT = "fewshot_dev_score"

WORST = 1e30
"""The cost of what is not finite: Ray Tune's percentiles and Optuna need numbers."""


def cost_of(objective: str, value: float | None) -> float:
    """Return an objective's value as a finite number of which less is better; Ray Tune and Optuna get these.

    >>> cost_of(QUERY_LOSS, 2.5), cost_of(FEWSHOT, 0.8), cost_of(FEWSHOT, None)
    (2.5, -0.8, 1e+30)
    """
    if value is None or not math.isfinite(value):
        return WORST
    return -value if objective == FEWSHOT else value


def check_objectives(config: Config) -> None:
    """Find objectives that no trial would report, before anything starts.

    Raises:
        UserError: an objective is unknown or not reported, or several go with a scheduler or with few checkpoints.
    """
    objectives, train = config.tune.objectives, config.train
    reported = [QUERY_LOSS, *(f"{QUERY_LOSS}_{kind}" for kind in config.tasks.kinds), FEWSHOT]
    for name in objectives:
        if name == FEWSHOT and not config.fewshot.tasks:
            raise setting_error("tune.objectives", name, "needs fewshot.tasks, which names no task here")
        if name not in reported:
            raise setting_error("tune.objectives", name, f"no trial reports it; {suggest(name, reported, '')}")
        if name != FEWSHOT and is_searched(config.tune.space, "tasks.kinds"):
            wrong = "does not compare trials of different tasks.kinds, because it is a loss on those kinds"
            raise setting_error("tune.objectives", name, f"{wrong}; use {FEWSHOT}")
    if len(set(objectives)) < len(objectives):
        raise setting_error("tune.objectives", objectives, "must not repeat an objective")
    if len(objectives) > 1 and config.tune.scheduler != "none":
        allowed = "must be none with several tune.objectives, because a scheduler compares one"
        raise setting_error("tune.scheduler", config.tune.scheduler, allowed)
    if FEWSHOT in objectives and train.validate_every % train.checkpoint_every:
        allowed = f"must divide train.validate_every={train.validate_every}: {FEWSHOT} is tuned from a rung's checkpoint"
        raise setting_error("train.checkpoint_every", train.checkpoint_every, allowed)
