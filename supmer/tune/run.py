"""The sweep as its driver sees it: check, prepare once, let Ray Tune run the trials, report how the sweep ended.

A continued sweep is a new experiment of Ray Tune that begins with what `trials.jsonl` holds. `Tuner.restore` is not used: it
unpickles files of the run directory, keeps the first call's number of trials, concurrency and retries, does not restore the
scheduler, has lost what came after its last snapshot, and where the snapshot was cut off it begins the sweep anew.
"""

from __future__ import annotations

import logging
import os
import time

import ray
from ray import tune
from ray.tune.stopper import Stopper

from supmer import storage
from supmer.backbone.load import resolve_backbone
from supmer.commands import job_command, this_command
from supmer.config import Config
from supmer.corpus.prepare import prepare
from supmer.errors import UserError
from supmer.fewshot.comparison import check_fewshot
from supmer.placement import check_capacity
from supmer.runtime import connect_ray
from supmer.sole_job import sole_job
from supmer.train.run_dir import claim
from supmer.train.stop import StopSignals
from supmer.tune.checks import check_sweep
from supmer.tune.objectives import FEWSHOT
from supmer.tune.page import write_page
from supmer.tune.progress import SweepProgress
from supmer.tune.result import Ledger, TrialRecord, best_of, write_best
from supmer.tune.schedule import build_scheduler, replay
from supmer.tune.search import SweepSearch, num_left
from supmer.tune.trial import SupmerTrial
from supmer.tune.trial_config import as_single_run, num_concurrent, store_configs, trial_needs

logger = logging.getLogger(__name__)

TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each run writes its own metrics
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # StopSignals has both signals
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # trials.jsonl and the log have them, a line each
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # a sweep reads no snapshot
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables; ours are in result.py
}

SECONDS_FOR_EARLIER_PROCESSES = 120

RAY_TUNE_FOLDER = "ray_tune"
"""What Ray Tune writes about an experiment; a sweep reads none of it and deletes it."""


def run_sweep(config: Config) -> tuple[list[TrialRecord], int]:
    """Run a sweep, or the rest of it where an earlier call was interrupted; return its trials and the exit code.

    Raises:
        UserError: a setting cannot be used, or the run's name belongs to another sweep.
    """
    check_sweep(config)
    config, directory = claim(config)
    with sole_job(directory.uri) as check_sole:
        ledger, signals = Ledger(config.run_dir, check_sole), StopSignals()
        if _has_work(config, ledger):
            os.environ.update(TUNE_ENVIRONMENT)
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it would repeat, at length, how trials ended
            logger.info("starting or joining Ray")  # before the signals are ours: Ray takes SIGTERM for itself
            connect_ray(trial_needs(config)["CPU"] * (config.tune.max_concurrent or 1), hosts_trials=True)
            check_capacity(as_single_run(config))
            stores = store_configs(config)
            for number, each in enumerate(stores, start=1):
                logger.info("task store %d of %d", number, len(stores))
                prepare(resolve_backbone(each))
            if FEWSHOT in config.tune.objectives:
                check_fewshot(config)  # a mistake there must not first show up in a trial
            _wait_for_earlier_processes(ledger)
            with signals:
                _run_trials(config, ledger, signals)
        else:
            logger.info("sweep %s is already complete: %s", config.run.name, config.run_dir)
        page, best = write_page(config, ledger.records), best_of(config, ledger.records)
        logger.info("trials: %s; page: %s", ledger.uri, page)
        if best is None:
            logger.warning("no trial has reached its last meta-step with finite objectives: there is no best one")
        else:
            command = job_command("metatrain", "--config", write_best(config, best))
            logger.info("best trial %s, trained again by: %s", best.trial, command)
        if _has_work(config, ledger):
            logger.info("stopped; the same command continues: %s", this_command())
        return ledger.records, signals.exit_code if _has_work(config, ledger) else 0


class _SignalStopper(Stopper):  # type: ignore[misc]
    """Ends the experiment when the user asks for it; its unfinished trials are continued by the next call."""

    def __init__(self, signals: StopSignals) -> None:
        self._signals = signals
        self._is_announced = False

    def __getstate__(self) -> dict[str, object]:
        """Return nothing: Ray Tune keeps a copy, which is never read here."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._signals.received and not self._is_announced:
            self._is_announced = True
            logger.info("stopping: running trials save and end, which may take half a minute")
        return self._signals.received is not None


def _has_work(config: Config, ledger: Ledger) -> bool:
    return any(not record.is_finished for record in ledger) or num_left(config, ledger) > 0


def _wait_for_earlier_processes(ledger: Ledger) -> None:
    """Wait until no process of a killed sweep holds its trials: Ray ends them up to a minute after their driver.

    Raises:
        UserError: another job is at work in a trial.
    """
    give_up, announced = time.monotonic() + SECONDS_FOR_EARLIER_PROCESSES, ""
    for record in ledger:
        while not record.is_finished:
            try:
                with sole_job(record.directory):
                    break
            except UserError:
                if time.monotonic() > give_up:
                    raise
                if record.trial != announced:
                    announced = record.trial
                    logger.info(
                        "%s: waiting up to two minutes until Ray has ended its processes of an earlier call", announced
                    )
                time.sleep(1)


def _run_trials(config: Config, ledger: Ledger, signals: StopSignals) -> None:
    concurrent = num_concurrent(config, ray.cluster_resources())
    logger.info("%d trials at once; results in %s", concurrent, config.run_dir)
    scheduler = build_scheduler(config)
    replay(scheduler, config, [record for record in ledger if record.is_finished])
    folder, progress = storage.join(config.run_dir, RAY_TUNE_FOLDER), SweepProgress(config, ledger)
    storage.delete_folder(folder)
    tuner = tune.Tuner(
        SupmerTrial,
        tune_config=tune.TuneConfig(
            search_alg=SweepSearch(config, ledger),
            scheduler=scheduler,
            num_samples=-1,  # the searcher says when there are enough
            max_concurrent_trials=concurrent,
            trial_dirname_creator=lambda trial: str(trial.config["trial"]),
        ),
        run_config=tune.RunConfig(
            storage_path=config.run_dir,
            name=RAY_TUNE_FOLDER,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # runs have their own
            failure_config=tune.FailureConfig(max_failures=config.tune.max_retries),
            callbacks=[progress],
            stop=_SignalStopper(signals),
            verbose=0,
        ),
    )
    with progress.shown:
        tuner.fit()
    storage.delete_folder(folder)
