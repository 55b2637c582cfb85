"""The sweep as its driver sees it: check, prepare once, let Ray Tune run the trials, tell how it ended."""

from __future__ import annotations

import logging
import os
import shlex
import sys

import ray
from ray import tune
from ray.tune.stopper import Stopper

from supmer import storage
from supmer.config import Config
from supmer.errors import UserError
from supmer.fewshot.run import check_fewshot
from supmer.placement import check_capacity
from supmer.runtime import connect_ray
from supmer.sole_job import sole_job
from supmer.train.run_dir import RunDirectory, claim
from supmer.train.stop import StopSignals
from supmer.tune.board import Board
from supmer.tune.objectives import FEWSHOT, check_objectives
from supmer.tune.outcome import Outcome, best_of, steps_spent, write_best
from supmer.tune.page import write_page
from supmer.tune.records import Ledger
from supmer.tune.resources import num_concurrent, trial_needs
from supmer.tune.schedule import build_scheduler, check_schedule, replay
from supmer.tune.searcher import LedgerCallback, LedgerSearcher, points_left
from supmer.tune.space import check_grid, check_space
from supmer.tune.stores import prepare_stores, store_configs
from supmer.tune.trial import SupmerTrial
from supmer.tune.trials import as_single_run

logger = logging.getLogger(__name__)

TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each run writes its own metrics
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # StopSignals has both signals
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the ledger and the log have them, a line each
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables; ours are in board.py
}

RAY_TUNE_FOLDER = "ray_tune"
"""What Ray Tune writes about an experiment; a sweep reads none of it and deletes it."""


def check_sweep(config: Config) -> None:
    """Find the user's mistakes before anything starts.

    Raises:
        UserError: the space, the objectives or the early stopping cannot work, or the place of the results cannot.
    """
    storage.check_local("run.dir", config.run.dir, "a sweep")
    if config.tune.num_trials is None and config.tune.searcher != "grid":
        raise UserError(f"tune.num_trials=null: must be a number unless tune.searcher=grid, here {config.tune.searcher}")
    check_space(config)
    check_objectives(config)
    check_schedule(config)
    store_configs(config)
    if config.tune.searcher == "grid":
        check_grid(config)


def run_sweep(config: Config) -> Outcome:
    """Run a sweep, or the rest of it where an earlier call was interrupted.

    Raises:
        UserError: a setting cannot be used, or the run's name belongs to another sweep.
    """
    check_sweep(config)
    config, directory = claim(config)
    with sole_job(directory.uri) as check_sole:
        return _run(config, Ledger(config.run_dir, check_sole))


def _run(config: Config, ledger: Ledger) -> Outcome:
    signals = StopSignals()
    if _has_work(config, ledger):
        _prepare(config)  # before the signals are ours: Ray takes SIGTERM for itself when it starts
        with signals:
            _run_trials(config, ledger, signals)
    else:
        logger.info("sweep %s is already complete: %s", config.run.name, config.run_dir)
    is_complete = not _has_work(config, ledger)
    outcome = Outcome(
        directory=config.run_dir,
        records=ledger.records,
        best=best_of(config, ledger.records),
        is_complete=is_complete,
        exit_code=0 if is_complete else signals.exit_code,
    )
    _tell(config, outcome)
    return outcome


class _SignalStopper(Stopper):  # type: ignore[misc]
    """Ends the experiment when the user asks for it; its unfinished trials are continued by the next call."""

    def __init__(self, signals: StopSignals) -> None:
        self._signals = signals

    def __getstate__(self) -> dict[str, object]:
        """Return nothing: Ray Tune keeps a copy, which is never read here."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._signals.received is not None


def _has_work(config: Config, ledger: Ledger) -> bool:
    return any(not record.is_finished for record in ledger) or points_left(config, ledger)


def _prepare(config: Config) -> None:
    """Join or start Ray, and make what all trials share."""
    os.environ.update(TUNE_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it would tell again, at length, how trials ended
    connect_ray(trial_needs(config)["CPU"] * (config.tune.max_concurrent or 1), hosts_trials=True)
    check_capacity(as_single_run(config))
    prepare_stores(config)
    if FEWSHOT in config.tune.objectives:
        check_fewshot(config)  # a mistake there must not first show up in a trial


def _run_trials(config: Config, ledger: Ledger, signals: StopSignals) -> None:
    concurrent = num_concurrent(config, ray.cluster_resources())
    logger.info("%d trials at once; results in %s", concurrent, config.run_dir)
    scheduler = build_scheduler(config)
    replay(scheduler, config, [record for record in ledger if record.is_finished])
    folder = storage.join(config.run_dir, RAY_TUNE_FOLDER)
    storage.delete_folder(folder)
    with Board(config, ledger) as board:
        tuner = tune.Tuner(
            SupmerTrial,
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(config, ledger),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=concurrent,
                trial_dirname_creator=lambda trial: str(trial.config["trial"]),
            ),
            run_config=tune.RunConfig(
                storage_path=config.run_dir,
                name=RAY_TUNE_FOLDER,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # runs have their own
                failure_config=tune.FailureConfig(max_failures=config.tune.max_retries),
                callbacks=[LedgerCallback(config, ledger), board],
                stop=_SignalStopper(signals),
                verbose=0,
            ),
        )
        tuner.fit()
    storage.delete_folder(folder)


def _tell(config: Config, outcome: Outcome) -> None:
    page = write_page(config, outcome.records)
    whole = len(outcome.records) * config.meta.steps
    if whole:
        spent = steps_spent(outcome.records)
        logger.info(
            "%d trials, %d meta-steps, %.0f%% of running each to its end", len(outcome.records), spent, 100 * spent / whole
        )
    logger.info("trials: %s; page: %s", RunDirectory(outcome.directory).trials, page)
    if outcome.best is None:
        logger.warning("no trial has reached its last meta-step with finite objectives: there is no best one")
    else:
        logger.info(
            "best trial %s: python pipeline/metatrain.py --config %s", outcome.best.trial, write_best(config, outcome.best)
        )
    if not outcome.is_complete:
        logger.info("stopped; the same command continues: %s", shlex.join(["python", *sys.argv]))
