"""Schedulers that stop poor trials early, and how one learns again what an interrupted sweep had seen.

Ray Tune saves the searcher of an experiment, but not the scheduler, which would begin anew in a continued sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from supmer.config import Config
from supmer.tune.objectives import cost_of
from supmer.tune.result import TrialRecord

STEP = "training_iteration"
"""Name of the meta-steps in the results that trials report to Ray Tune, which counts reports itself where none is given."""


class EarlierTrial(NamedTuple):
    """What a scheduler asks of a trial, by which it also files results."""

    trial_id: str


def build_scheduler(config: Config) -> TrialScheduler:
    """Return the scheduler of `tune.scheduler`."""
    common: dict[str, Any] = {
        "time_attr": STEP,
        "metric": config.tune.objectives[0],
        "mode": "min",
        "grace_period": grace_steps(config),
    }
    match config.tune.scheduler:
        case "none":
            return FIFOScheduler()
        case "asha":
            return ASHAScheduler(max_t=config.meta.steps, reduction_factor=config.tune.reduction_factor, **common)
        case "median":
            # A time slice without end: trials never yield to others, because a pause needs checkpoints that Ray Tune knows.
            return MedianStoppingRule(min_samples_required=3, min_time_slice=math.inf, **common)


def grace_steps(config: Config) -> int:
    """Return the meta-steps before which no trial is stopped."""
    return config.tune.grace_steps or min(config.train.validate_every, config.meta.steps)


def replay(scheduler: TrialScheduler, config: Config, records: Iterable[TrialRecord]) -> None:
    """Report to a new scheduler what the finished trials of an interrupted sweep reported."""
    objective = config.tune.objectives[0]
    for record in records:
        trial = EarlierTrial(f"earlier {record.trial}")
        scheduler.on_trial_add(None, trial)
        results = [{STEP: rung.step, objective: cost_of(objective, rung.values.get(objective))} for rung in record.rungs]
        for result in results[:-1]:
            decision = scheduler.on_trial_result(None, trial, result)
            if decision == TrialScheduler.STOP and config.tune.scheduler == "median":
                break  # the rule takes no more results of a trial it would have stopped, except the last
        if results:
            scheduler.on_trial_complete(None, trial, results[-1])
