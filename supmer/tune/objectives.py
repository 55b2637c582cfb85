"""What a sweep optimizes: names, directions, and which of them a configuration's trials report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from supmer.config import Config
from supmer.config.text import suggest
from supmer.errors import UserError

QUERY_LOSS = "validation_query_loss"
FEWSHOT = "fewshot_dev_score"

Values = dict[str, float]


def reported_names(config: Config) -> list[str]:
    """Return the names of what trials of this configuration report at each rung."""
    by_kind = [f"{QUERY_LOSS}_{kind}" for kind in config.tasks.kinds]
    return [QUERY_LOSS, *by_kind, *([FEWSHOT] if config.fewshot.tasks else [])]


def is_maximized(objective: str) -> bool:
    """Tell whether more is better; of losses less is."""
    return objective == FEWSHOT


def as_cost(objective: str, value: float) -> float:
    """Return a value of which less is better; what is not a number is worst."""
    if math.isnan(value):
        return math.inf
    return -value if is_maximized(objective) else value


def is_finite(values: Mapping[str, float], objectives: Sequence[str]) -> bool:
    return all(math.isfinite(values[name]) for name in objectives)


def check_objectives(config: Config) -> None:
    """Find objectives that no trial would report, before anything starts.

    Raises:
        UserError: an objective is unknown or not reported, or several go with a scheduler or with few checkpoints.
    """
    objectives, names = config.tune.objectives, reported_names(config)
    for name in objectives:
        if name == FEWSHOT and not config.fewshot.tasks:
            raise UserError(f"tune.objectives={name}: is reported only where fewshot.tasks names tasks, here there are none")
        if name not in names:
            raise UserError(f"tune.objectives={name}: no trial reports it; {suggest(name, names, '')}")
        if name != FEWSHOT and _varies_kinds(config):
            raise UserError(
                f"tune.objectives={name}: does not compare trials of different tasks.kinds, as it is a loss on those kinds; "
                f"search them by {FEWSHOT}"
            )
    if len(set(objectives)) < len(objectives):
        raise UserError(f"tune.objectives={objectives}: must not repeat an objective")
    if len(objectives) > 1 and config.tune.scheduler != "none":
        raise UserError(
            f"tune.scheduler={config.tune.scheduler}: must be none with several tune.objectives, as it goes by one"
        )
    if FEWSHOT in objectives and config.train.validate_every % config.train.checkpoint_every:
        raise UserError(
            f"train.checkpoint_every={config.train.checkpoint_every}: must divide train.validate_every="
            f"{config.train.validate_every} with tune.objectives={FEWSHOT}, which tunes from a rung's checkpoint"
        )


def _varies_kinds(config: Config) -> bool:
    space = config.tune.space
    return "tasks.kinds" in space or any(
        "tasks.kinds" in case for each in space.values() for case in (each.cases or {}).values()
    )
