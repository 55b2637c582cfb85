"""Proposals: an Optuna study that draws points, learns from trials, and is rebuilt from the ledger."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from supmer.config import Config
from supmer.tune.objectives import is_maximized
from supmer.tune.records import TrialRecord
from supmer.tune.space import Draws, draw

optuna.logging.set_verbosity(logging.WARNING)

MAX_STARTUP_TRIALS = 10
"""Random trials before TPE begins, as Optuna has it; small sweeps get by with a quarter of their trials."""


def build_study(config: Config, records: list[TrialRecord]) -> optuna.Study:
    """Return a study that knows the finished trials among `records`."""
    directions = ["maximize" if is_maximized(name) else "minimize" for name in config.tune.objectives]
    study = optuna.create_study(sampler=SAMPLERS[config.tune.searcher](config, len(records)), directions=directions)
    for record in records:
        if record.is_finished:
            study.add_trial(_known_trial(config, record))
    return study


def tell(study: optuna.Study, trial: optuna.Trial, config: Config, record: TrialRecord) -> None:
    """Report how a trial ended."""
    state = _state(config, record)
    if len(config.tune.objectives) == 1:
        for step, value in _intermediate(config, record).items():
            trial.report(value, step)
    study.tell(trial, _values(config, record) if state is TrialState.COMPLETE else None, state=state)


def _tpe(config: Config, num_known: int) -> BaseSampler:
    startup = min(MAX_STARTUP_TRIALS, max(2, (config.tune.num_trials or 1) // 4))
    return TPESampler(seed=_seed(config, num_known), n_startup_trials=startup, constant_liar=True)


def _seed(config: Config, num_known: int) -> int:
    """Return a seed that a continued sweep does not share with its first part, whose points it would draw again."""
    return int(np.random.SeedSequence([config.tune.seed, num_known]).generate_state(1)[0])


SAMPLERS: dict[str, Callable[[Config, int], BaseSampler]] = {
    "random": lambda config, num_known: RandomSampler(seed=_seed(config, num_known)),
    "grid": lambda config, num_known: RandomSampler(seed=0),  # all its points are queued, so that it draws none
    "tpe": _tpe,
}


def _state(config: Config, record: TrialRecord) -> TrialState:
    """Translate a status. To Optuna a pruned trial without reports is the worst there is, as a diverged one should be."""
    if record.status == "complete" and all(math.isfinite(value) for value in _values(config, record)):
        return TrialState.COMPLETE
    if record.status in ("stopped", "diverged") and len(config.tune.objectives) == 1:
        return TrialState.PRUNED
    return TrialState.FAIL


def _values(config: Config, record: TrialRecord) -> list[float]:
    return [record.value(name) for name in config.tune.objectives]


def _intermediate(config: Config, record: TrialRecord) -> dict[int, float]:
    if record.status == "diverged":
        return {}
    values = {rung.step: rung.values.get(config.tune.objectives[0]) for rung in record.rungs}
    return {step: value for step, value in values.items() if value is not None}


def frozen_trial(config: Config, record: TrialRecord, value: float) -> FrozenTrial:
    """Return a trial of known value, whatever its status, for Optuna to judge by."""
    return _create(config, record, TrialState.COMPLETE, [value], None)


def _known_trial(config: Config, record: TrialRecord) -> FrozenTrial:
    state = _state(config, record)
    values = _values(config, record) if state is TrialState.COMPLETE else None
    return _create(
        config, record, state, values, _intermediate(config, record) if len(config.tune.objectives) == 1 else None
    )


def _create(
    config: Config, record: TrialRecord, state: TrialState, values: list[float] | None, reports: dict[int, float] | None
) -> FrozenTrial:
    recorder = _Replay(record.draws)
    draw(config, recorder)
    return optuna.trial.create_trial(
        state=state,
        values=values,
        params=record.draws,
        distributions=recorder.distributions,
        intermediate_values=reports,
    )


class _Replay:
    """Draws again what was drawn before, and notes from which distributions."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: list[str]) -> Any:
        return self._take(name, CategoricalDistribution(choices))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> Any:
        return self._take(name, FloatDistribution(low, high, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> Any:
        return self._take(name, IntDistribution(low, high, log=log))

    def _take(self, name: str, distribution: BaseDistribution) -> Any:
        self.distributions[name] = distribution
        return self._draws[name]
