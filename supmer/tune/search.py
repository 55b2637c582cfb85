"""Proposals of trials: Optuna draws them, Ray Tune asks for them.

Ray Tune's `OptunaSearch` is not used. With a define-by-run space, which conditional settings need, it takes no evaluated
points, so that a sweep could not be continued from `trials.jsonl`; it may try a point twice, and a finite space never ends.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from supmer.config import Config
from supmer.config.load import to_yaml
from supmer.errors import UserError
from supmer.tune.objectives import WORST, cost_of
from supmer.tune.result import Ledger, TrialRecord
from supmer.tune.space import Draws, draw, grid_points, settings_of
from supmer.tune.trial_config import command_of, directory_of, driver_needs, trial_config

logger = logging.getLogger(__name__)
optuna.logging.set_verbosity(logging.WARNING)

MAX_STARTUP_TRIALS = 10
"""Random trials before TPE begins, as Optuna has it; small sweeps begin after a quarter of their trials."""

MAX_REPEATS = 20
"""Proposals in a row that were tried already, after which an untried point of a finite space is taken instead."""


class SweepSearch(Searcher):  # type: ignore[misc]
    """Proposes trials to Ray Tune: first those that an interrupted sweep left unfinished, then new ones.

    Ray Tune's own ids of trials change when a sweep is continued; the names in `trials.jsonl` do not.
    """

    def __init__(self, config: Config, ledger: Ledger) -> None:
        objectives, settings = config.tune.objectives, config.tune
        super().__init__(metric=objectives[0], mode="min")
        self._config, self._ledger = config, ledger
        # A continued sweep does not share the seed of its first part, whose points it would draw again.
        seed = int(np.random.SeedSequence([settings.seed, len(ledger)]).generate_state(1)[0])
        sampler: BaseSampler = RandomSampler(seed=seed)  # for a grid all points are queued, so that none is drawn
        if settings.searcher == "tpe":
            startup = min(MAX_STARTUP_TRIALS, max(2, (settings.num_trials or 1) // 4))
            sampler = TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
        self.study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(objectives))
        unfinished = [record for record in ledger if not record.is_finished]
        self.study.add_trials([known_trial(config, record) for record in ledger if record.is_finished])
        queued = (untried(config, ledger) or []) if settings.searcher == "grid" else []
        for point in [record.draws for record in unfinished] + queued:
            self.study.enqueue_trial(point)
        self._unfinished = {record.trial for record in unfinished}
        self._running: dict[str, tuple[optuna.Trial, TrialRecord]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray Tune keeps a copy, which is never read here."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the parameters of the next trial."""
        num_repeats = 0
        while self._unfinished or num_left(self._config, self._ledger):
            if num_repeats == MAX_REPEATS:
                for point in untried(self._config, self._ledger) or []:
                    self.study.enqueue_trial(point)
            asked = self.study.ask()
            draws = draw(self._config, asked)
            known = next((record for record in self._ledger if record.draws == draws), None)
            record = known or self._begin(draws)
            if record.trial in self._unfinished or (known is None and not record.is_finished):
                self._unfinished.discard(record.trial)
                self._running[trial_id] = asked, record
                return {
                    "trial": record.trial,
                    "config": to_yaml(trial_config(self._config, record.trial, record.settings)),
                    "rungs": [rung.model_dump() for rung in record.rungs],
                    "objectives": list(self._config.tune.objectives),
                    "stall_seconds": self._config.tune.stall_seconds,
                    "resources": driver_needs(self._config),
                }
            num_repeats += known is not None
            self.study.tell(asked, state=TrialState.FAIL)
        return str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report to Optuna how a trial ended; `SweepProgress` has recorded its last rung before, and saves the status."""
        asked, record = self._running.pop(trial_id)
        record.status = "failed" if result is None or error else result["status"]
        if record.status == "running":  # it ended without a word of its own: the scheduler stopped it
            record.status = "stopped"
        ended = known_trial(self._config, record)
        for step, cost in ended.intermediate_values.items():
            asked.report(cost, step)
        self.study.tell(asked, None if ended.state is TrialState.PRUNED else ended.values, ended.state)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: `trials.jsonl` is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, see `save`."""

    def _begin(self, draws: Draws) -> TrialRecord:
        """Add a trial to the ledger; a trial whose settings do not go together fails at once."""
        name = f"t{len(self._ledger):03d}"
        record = TrialRecord(
            trial=name,
            settings=settings_of(self._config.tune.space, draws),
            draws=draws,
            directory=directory_of(self._config, name),
            command=command_of(self._config, name),
        )
        try:
            trial_config(self._config, name, record.settings)
        except UserError as error:
            record.status, record.error = "failed", str(error)
            logger.warning("%s: not run: %s", name, error)
        self._ledger.add(record)
        return record


def num_left(config: Config, ledger: Ledger) -> int:
    """Return how many trials are still to begin: up to `tune.num_trials`, at points that were not tried."""
    points, num_trials = untried(config, ledger), config.tune.num_trials
    left = [len(points)] if points is not None else []
    return max(0, min([*left, num_trials - len(ledger)] if num_trials is not None else left))


def untried(config: Config, ledger: Ledger) -> list[Draws] | None:
    """Return the points of a finite space that have no trial yet, None for a space that is not finite."""
    points = grid_points(config)
    tried = [record.draws for record in ledger]
    return None if points is None else [point for point in points if point not in tried]


def known_trial(config: Config, record: TrialRecord) -> FrozenTrial:
    """Return a finished trial as Optuna keeps it: a diverged trial is the worst there is, a failed one says nothing."""
    objectives, costs = config.tune.objectives, [cost_of(name, record.value(name)) for name in config.tune.objectives]
    is_single = len(objectives) == 1  # Optuna keeps rungs of one objective only
    reports = {rung.step: cost_of(objectives[0], rung.values.get(objectives[0])) for rung in record.rungs}
    if record.status == "complete":
        return frozen_trial(config, record, TrialState.COMPLETE, costs, reports if is_single else None)
    if record.status == "diverged" and is_single:
        return frozen_trial(config, record, TrialState.COMPLETE, [WORST], reports)
    if record.status == "stopped" and is_single and record.rungs:
        return frozen_trial(config, record, TrialState.PRUNED, costs, reports)
    return frozen_trial(config, record, TrialState.FAIL, None)


def frozen_trial(
    config: Config,
    record: TrialRecord,
    state: TrialState,
    values: list[float] | None,
    reports: dict[int, float] | None = None,
) -> FrozenTrial:
    """Return a trial of known values; `reports` are the values at meta-steps."""
    drawer = FixedTrial(record.draws)
    draw(config, drawer)
    return create_trial(
        state=state, values=values, params=record.draws, distributions=drawer.distributions, intermediate_values=reports
    )
