"""Schedulers that stop poor trials early, and how one learns again what an interrupted sweep had seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from supmer.config import Config
from supmer.errors import UserError
from supmer.tune.objectives import as_cost
from supmer.tune.records import Rung, TrialRecord

STEP, COST = "step", "cost"
"""Names in the results that trials hand to Ray Tune: meta-steps, and the first objective turned so that less is better."""

WORST = 1e30
"""Stands for a cost that is not finite, of which Ray Tune's percentiles would not know what to make."""


@dataclass(frozen=True)
class EarlierTrial:
    """All that a scheduler asks of a trial."""

    trial_id: str


def build_scheduler(config: Config) -> TrialScheduler:
    """Return the scheduler of `tune.scheduler`."""
    return SCHEDULERS[config.tune.scheduler](config)


def check_schedule(config: Config) -> None:
    """Raise UserError if early stopping could not work as it is set."""
    tune = config.tune
    if tune.scheduler == "none":
        return
    if "meta.steps" in tune.space:
        raise UserError("tune.space.meta.steps: must not be searched with a scheduler, which compares equal shares of a run")
    if grace_steps(config) > config.meta.steps:
        raise UserError(f"tune.grace_steps={tune.grace_steps}: must be at most meta.steps={config.meta.steps}")
    if config.train.validate_every > grace_steps(config):
        raise UserError(
            f"train.validate_every={config.train.validate_every}: must be at most tune.grace_steps={tune.grace_steps}, "
            "as trials report when they validate"
        )


def grace_steps(config: Config) -> int:
    """Return the meta-steps before which no trial is stopped."""
    return config.tune.grace_steps or min(config.train.validate_every, config.meta.steps)


def replay(scheduler: TrialScheduler, config: Config, records: Iterable[TrialRecord]) -> None:
    """Tell a new scheduler what the finished trials of an interrupted sweep reported."""
    for record in records:
        trial = EarlierTrial(f"earlier {record.trial}")
        scheduler.on_trial_add(None, trial)
        results = [_result(config, rung) for rung in record.rungs]
        for result in results[:-1]:
            decision = scheduler.on_trial_result(None, trial, result)
            if decision == TrialScheduler.STOP and config.tune.scheduler == "median":
                break  # that one takes no more results of a trial it would have stopped, but for the last
        if results:
            scheduler.on_trial_complete(None, trial, results[-1])


def _result(config: Config, rung: Rung) -> dict[str, float]:
    value = rung.values.get(config.tune.objectives[0])
    return {STEP: rung.step, COST: WORST if value is None else as_cost(config.tune.objectives[0], value)}


def _asha(config: Config) -> TrialScheduler:
    return ASHAScheduler(
        time_attr=STEP,
        metric=COST,
        mode="min",
        max_t=config.meta.steps,
        grace_period=grace_steps(config),
        reduction_factor=config.tune.reduction_factor,
    )


def _median(config: Config) -> TrialScheduler:
    # A time slice without end: trials never yield to others, as pausing one would take checkpoints that Ray Tune knows.
    return MedianStoppingRule(
        time_attr=STEP,
        metric=COST,
        mode="min",
        grace_period=grace_steps(config),
        min_samples_required=3,
        min_time_slice=math.inf,
    )


SCHEDULERS: dict[str, Callable[[Config], TrialScheduler]] = {
    "none": lambda config: FIFOScheduler(),
    "asha": _asha,
    "median": _median,
}
