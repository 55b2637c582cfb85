"""Between Ray Tune and the ledger: which trial comes next, and what became of each."""

from __future__ import annotations

import json
import logging
import re
import time
from collections import deque
from pathlib import Path
from typing import Any

import optuna
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from supmer.cli import to_yaml
from supmer.config import Config
from supmer.errors import UserError
from supmer.tune.records import Ledger, TrialRecord
from supmer.tune.resources import driver_needs
from supmer.tune.space import Draws, draw, grid_points, settings_of
from supmer.tune.study import build_study, tell
from supmer.tune.trials import command_of, directory_of, trial_config

logger = logging.getLogger(__name__)

MAX_REPEATS = 20
"""Proposals in a row that were tried already, after which an untried point of a finite space is taken instead."""

MAX_ERROR_LENGTH = 300
ERROR_CLASS = re.compile(r"^[A-Za-z_.]+(Error|Exception): ")


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Proposes trials to Ray Tune: first those that an interrupted sweep left unfinished, then new ones.

    Ray Tune's own ids of trials change when a sweep is continued; the ledger's do not.
    """

    def __init__(self, config: Config, ledger: Ledger) -> None:
        super().__init__(metric="cost", mode="min")
        self._config = config
        self._ledger = ledger
        self._study = build_study(config, ledger.records)
        self._unfinished = deque(record for record in ledger if not record.is_finished)
        self._queued = deque((_untried(config, ledger) or []) if config.tune.searcher == "grid" else [])
        self._running: dict[str, tuple[TrialRecord, optuna.Trial]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the parameters of the next trial."""
        found = self._next()
        if found is None:
            return str(Searcher.FINISHED)
        self._running[trial_id] = found
        record = found[0]
        return {
            "trial": record.trial,
            "config": to_yaml(trial_config(self._config, record.trial, record.settings)),
            "objectives": list(self._config.tune.objectives),
            "stall_seconds": self._config.tune.stall_seconds,
            "resources": driver_needs(self._config),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended; Ray Tune calls this before the callbacks below."""
        record, trial = self._running.pop(trial_id)
        record.status = "failed" if result is None or error else _status(result)
        tell(self._study, trial, self._config, record)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, see `save`."""

    def _next(self) -> tuple[TrialRecord, optuna.Trial] | None:
        if self._unfinished:
            record = self._unfinished.popleft()
            return record, self._ask(record.draws)[0]
        num_repeats = 0
        while points_left(self._config, self._ledger):
            if num_repeats == MAX_REPEATS:
                self._queued.extend(_untried(self._config, self._ledger) or [])
            trial, draws = self._ask(self._queued.popleft() if self._queued else None)
            repeated = next((record for record in self._ledger if record.draws == draws), None)
            record = repeated or self._begin(draws)
            if not record.is_finished and repeated is None:
                return record, trial
            tell(self._study, trial, self._config, record)
            num_repeats += repeated is not None
        return None

    def _ask(self, draws: Draws | None) -> tuple[optuna.Trial, Draws]:
        if draws is not None:
            self._study.enqueue_trial(draws)
        trial = self._study.ask()
        return trial, draw(self._config, trial)

    def _begin(self, draws: Draws) -> TrialRecord:
        """Add a trial to the ledger; one whose settings do not go together fails at once."""
        name = f"t{len(self._ledger):03d}"
        settings = settings_of(self._config.tune.space, draws)
        record = TrialRecord(
            trial=name,
            settings=settings,
            draws=draws,
            directory=directory_of(self._config, name),
            command=command_of(self._config, name),
        )
        try:
            trial_config(self._config, name, settings)
        except UserError as error:
            record.status, record.error = "failed", str(error)
            logger.warning("%s: not run: %s", name, error)
        self._ledger.add(record)
        return record


class LedgerCallback(Callback):  # type: ignore[misc]
    """Writes what happens to trials into the ledger, and tells the user."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._started: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record = self._record(trial)
        record.attempts += 1
        self._started[record.trial] = time.monotonic() - record.seconds
        self._ledger.save()
        settings = ", ".join(f"{name}={_short(value)}" for name, value in record.settings.items())
        logger.info("%s: starts: %s", record.trial, settings)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Any, **info: Any) -> None:
        record = self._record(trial)
        values = json.loads(result["values"])
        self._count_seconds(record)
        record.error = result["error"]
        if values:
            record.add_rung(result["step"], values)
            shown = ", ".join(f"{name} {record.value(name):.4f}" for name in self._config.tune.objectives)
            logger.info("%s: step %d/%d: %s", record.trial, record.step, self._config.meta.steps, shown)
        self._ledger.save()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._close(self._record(trial))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record = self._record(trial)
        self._count_seconds(record)
        record.error = _error_of(trial)
        logger.warning("%s: tried again: %s", record.trial, record.error)
        self._ledger.save()

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record = self._record(trial)
        self._count_seconds(record)
        record.error = _error_of(trial)
        self._close(record)

    def _count_seconds(self, record: TrialRecord) -> None:
        if record.trial in self._started:  # else it failed before it started
            record.seconds = time.monotonic() - self._started[record.trial]

    def _close(self, record: TrialRecord) -> None:
        self._ledger.save()
        reason = f": {record.error}" if record.error else ""
        log = logger.info if record.status in ("complete", "stopped") else logger.warning
        log("%s: %s after %d meta-steps, %.0f s%s", record.trial, record.status, record.step, record.seconds, reason)

    def _record(self, trial: Trial) -> TrialRecord:
        return self._ledger.find(trial.config["trial"])


def points_left(config: Config, ledger: Ledger) -> bool:
    """Tell whether there are trials to begin: fewer than `tune.num_trials` so far, and points that were not tried."""
    if config.tune.num_trials is not None and len(ledger) >= config.tune.num_trials:
        return False
    return _untried(config, ledger) != []


def _untried(config: Config, ledger: Ledger) -> list[Draws] | None:
    """Return the points of a finite space that have no trial yet, None for a space that is not finite."""
    points = grid_points(config)
    tried = [record.draws for record in ledger]
    return None if points is None else [point for point in points if point not in tried]


def _status(result: dict[str, Any]) -> Any:
    """Return a trial's status; one that ended without saying so was stopped by the scheduler."""
    return "stopped" if result["status"] == "running" else result["status"]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _error_of(trial: Trial) -> str:
    """Return the line of a trial's traceback that says what went wrong."""
    path = trial.error_file
    text = Path(path).read_text() if path and Path(path).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ERROR_CLASS.sub("", lines[-1])[:MAX_ERROR_LENGTH] if lines else "unknown error"
