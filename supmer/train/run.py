"""The main job as its driver sees it: prepare what is missing, start the workers, show progress, say how the run ended."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from supmer import storage
from supmer.backbone.load import check_backbone, resolve_backbone
from supmer.commands import job_command
from supmer.config import Config
from supmer.corpus.levels import store_path
from supmer.corpus.prepare import prepare
from supmer.errors import users_mistake
from supmer.placement import check_capacity, worker_and_builder_cpus, worker_resources
from supmer.runtime import connect_ray
from supmer.sole_job import sole_job
from supmer.train import checkpoint
from supmer.train.entry import work
from supmer.train.listeners import Listeners, Observer
from supmer.train.mailbox import Job, Note, open_mailbox
from supmer.train.report import write_report
from supmer.train.run_dir import RunDirectory, as_begun, claim, origin_of
from supmer.train.stop import StopSignals

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_COLLECTIONS = 0.25
SECONDS_BETWEEN_CHECKS = 10
"""Whether the run directory is still this job's: in an object store that is a request."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended; `exit_code` is 0, or 130 where Ctrl-C stopped it after saving."""

    directory: RunDirectory
    is_complete: bool
    exit_code: int


def run(config: Config, observer: Observer | None = None) -> RunResult:
    """Do the main job, or the rest of it where an earlier call was interrupted.

    Raises:
        UserError: a setting, the corpus or the backbone cannot be used, or the run's name belongs to other settings.
        ray.train.TrainingFailedError: the workers failed more often than `train.max_failures`.
    """
    check_backbone(config.backbone)  # a mistake in the name must not first show up when Ray has started
    config, directory = claim(config)
    with sole_job(directory.uri) as check_sole:
        newest = checkpoint.read_newest_manifest(directory.checkpoints)
        if newest and newest.step == config.meta.steps and storage.exists(directory.prompt):
            logger.info("run %s is already complete and re-used: %s", config.run.name, directory.uri)
            logger.info("store %s re-used", store_path(config.corpus, newest.origin.store_fingerprint))
            if not storage.exists(directory.report):  # its driver was killed in between
                write_report(directory)
            return RunResult(directory, True, 0)
        logger.info("starting or joining Ray")
        connect_ray(config.train.max_workers * worker_and_builder_cpus(config.train))
        check_capacity(config)
        resolved = resolve_backbone(as_begun(config, newest.origin if newest else None))
        store_uri = storage.absolute(prepare(resolved))
        checkpoint.forget_ray_snapshot(directory.checkpoints)
        job = Job(resolved, directory, store_uri, origin_of(config, resolved, store_uri), open_mailbox())
        with StopSignals() as signals, Listeners(config, directory, observer) as listeners:
            logger.info("starting the workers")
            is_complete = _fit(job, listeners, signals, check_sole)
        write_report(directory)
        # Under on_conflict=new the name that was free may not be the one given.
        arguments = sys.argv[1:] + ([f"run.name={config.run.name}"] if config.run.on_conflict == "new" else [])
        if observer is None and not is_complete:
            logger.info("stopped and saved; this continues: %s", job_command("metatrain", *arguments))
        elif observer is None:
            for what in ("prompt", "regularizer", "report"):
                if storage.exists(uri := getattr(directory, what)):
                    logger.info("%s: %s", what, uri)
            logger.info("next, tune it on labelled tasks: %s", job_command("prompt_tune", *arguments))
        return RunResult(directory, is_complete, 0 if is_complete else signals.exit_code)


def _build_trainer(job: Job) -> TorchTrainer:
    train = job.config.train
    # What Ray Train's controller reads from the environment only. The first is for a process that stands still as a whole,
    # and cannot say so itself.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(train.hang_seconds)
    if train.is_elastic:
        # Ray learns up to 20 s late that a machine is lost, and until then waits for workers there.
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "30"
    has_gpu = train.gpus_per_worker > 0
    filesystem, path = storage.resolve(job.directory.uri)
    return TorchTrainer(
        work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if has_gpu else "gloo",
            # The workers' own watches come first: they know where each rank is.
            timeout_s=math.ceil(train.hang_seconds) + 60,
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=train.workers,
            use_gpu=has_gpu,
            resources_per_worker=worker_resources(train),
            elastic_resize_monitor_interval_s=train.resize_seconds,
        ),
        run_config=ray.train.RunConfig(
            storage_path=path,
            storage_filesystem=filesystem,
            name="checkpoints",
            failure_config=ray.train.FailureConfig(max_failures=train.max_failures),
            callbacks=[_FailureNotes(job.mailbox)],
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )


class _FailureNotes(ray.train.UserCallback):  # type: ignore[misc]  # Ray is untyped here
    """Sends the driver why Ray Train starts workers again, or that only the user can help (a disk is full, say)."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in sorted(worker_exceptions.items()):
            mistake = users_mistake(error)
            if mistake is not None:
                self._mailbox.post.remote([mistake])
                continue
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self._mailbox.post.remote([Note(f"worker {rank} failed: {lines[-1].strip()}", is_warning=True)])


def _fit(job: Job, listeners: Listeners, signals: StopSignals, check_sole: Callable[[], None]) -> bool:
    """Let Ray Train work, and pass on what the workers send; return whether the last meta-step was reached.

    `TorchTrainer.fit` has a thread of its own, which leaves signals to the main thread. A daemon: when the driver gives up,
    it must not wait for workers that hang.
    """
    trainer = _build_trainer(job)
    outcome: list[ray.train.Result | Exception] = []

    def fit() -> None:
        try:
            outcome.append(trainer.fit())
        except Exception as error:  # raised again below, in the main thread
            outcome.append(error)

    fitting = threading.Thread(target=fit, daemon=True, name="fit")
    fitting.start()
    asked, checked_at = False, float("-inf")
    while fitting.is_alive():
        fitting.join(SECONDS_BETWEEN_COLLECTIONS)
        if time.monotonic() - checked_at >= SECONDS_BETWEEN_CHECKS:
            check_sole()
            checked_at = time.monotonic()
        listeners.receive(ray.get(job.mailbox.collect.remote()))
        if not asked and (signals.received or listeners.stop_requested()):
            logger.info("stopping after this meta-step; once more to stop at once")
            asked = ray.get(job.mailbox.request_stop.remote()) is None
    listeners.receive(ray.get(job.mailbox.collect.remote()))
    (result,) = outcome
    if isinstance(result, Exception):
        raise result
    return bool(result.return_value)
