"""The main job as its driver sees it: prepare what is missing, start the workers, show progress, tell how it ended."""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from supmer import storage
from supmer.backbone.load import load_tokenizer
from supmer.config import Config, TrainConfig
from supmer.corpus.levels import store_path
from supmer.corpus.prepare import prepare
from supmer.placement import check_capacity, worker_and_builder_cpus, worker_resources
from supmer.pretrain import warmup
from supmer.runtime import connect_ray
from supmer.sole_job import sole_job
from supmer.train import checkpoint
from supmer.train.failure_notes import FailureNotes
from supmer.train.job import Job, Origin, work
from supmer.train.mailbox import Event, Failure, Note, Progress, open_mailbox
from supmer.train.origin import as_begun, origin_of
from supmer.train.progress import ProgressLines
from supmer.train.report import write_report
from supmer.train.run_dir import RunDirectory, claim
from supmer.train.stop import StopSignals
from supmer.train.trackers import Trackers

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


class Observer(Protocol):
    """Who follows a run besides the terminal, as a sweep does."""

    def see(self, event: Event) -> None:
        """Take what a worker has posted."""
        ...

    def stop_requested(self) -> bool:
        """Tell whether the run should save after this meta-step and end."""
        ...


def run(config: Config, observer: Observer | None = None) -> RunResult:
    """Do the main job, or the rest of it where an earlier call was interrupted.

    Raises:
        UserError: a setting, the corpus or the backbone cannot be used, or the run's name belongs to other settings.
        ray.train.TrainingFailedError: the workers failed more often than `train.max_failures`.
    """
    if config.backbone.name != warmup.NAME:
        load_tokenizer(config.backbone)  # a mistake in the name must not first show up when Ray has started
    config, directory = claim(config)
    with sole_job(directory.uri) as check_sole:
        return _run(config, directory, observer, check_sole)


def _run(config: Config, directory: RunDirectory, observer: Observer | None, check_sole: Callable[[], None]) -> RunResult:
    made_from = _complete_from(config, directory)
    if made_from is not None:
        logger.info("run %s is already complete and re-used: %s", config.run.name, directory.uri)
        logger.info("store %s re-used", store_path(config.corpus, made_from.store_fingerprint))
        if not storage.exists(directory.report):  # its driver was killed in between
            write_report(directory)
        return RunResult(directory, True, 0)
    connect_ray(config.train.max_workers * worker_and_builder_cpus(config.train))
    check_capacity(config)
    resolved = warmup.resolve_backbone(as_begun(config, directory.checkpoints))
    store_uri = storage.absolute(prepare(resolved))
    checkpoint.forget_ray_snapshot(directory.checkpoints)
    job = Job(resolved, directory, store_uri, origin_of(config, resolved, store_uri), open_mailbox())
    with StopSignals() as signals, Trackers(config, directory) as trackers:
        audience = _Audience(ProgressLines(resolved), trackers, observer)
        is_complete = _follow(_Fit(job), job, audience, signals, check_sole)
    write_report(directory)
    _tell_end(config, directory, is_complete)
    return RunResult(directory, is_complete, 0 if is_complete else signals.exit_code)


class _Fit(threading.Thread):
    """`TorchTrainer.fit` in a thread of its own, which leaves signals to the main thread.

    A daemon: when the driver gives up, it must not wait for workers that hang.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(daemon=True, name="fit")
        self._trainer = _build_trainer(job)
        self._result: ray.train.Result | None = None
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._trainer.fit()
        except Exception as error:  # handed to the main thread, which raises it
            self._error = error

    def is_complete(self) -> bool:
        """Return what the first worker returned, or raise what ended the run."""
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return bool(self._result.return_value)


def _build_trainer(job: Job) -> TorchTrainer:
    train = job.config.train
    _set_timeouts(train)
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
            callbacks=[FailureNotes(job.mailbox)],
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )


def _set_timeouts(train: TrainConfig) -> None:
    """Set what Ray Train's controller reads from the environment only."""
    # For a process that stands still as a whole, and cannot say so itself.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(train.hang_seconds)
    if train.is_elastic:
        # Ray learns up to 20 s late that a machine is lost, and until then waits for workers there.
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "30"


@dataclass(frozen=True)
class _Audience:
    """Who hears what the workers post: terminal, trackers, and whoever else follows the run."""

    lines: ProgressLines
    trackers: Trackers
    observer: Observer | None

    def hear(self, events: list[Event]) -> None:
        """Pass events on; a failure that a worker posted is raised."""
        for event in events:
            if self.observer is not None:
                self.observer.see(event)
            match event:
                case Progress(row):
                    self.lines.show(row)
                    self.trackers.log(row)
                case Note(text, is_warning):
                    logger.log(logging.WARNING if is_warning else logging.INFO, "%s", text)
                case Failure(error):
                    raise error

    def wants_end(self) -> bool:
        return self.observer is not None and self.observer.stop_requested()


def _follow(fit: _Fit, job: Job, audience: _Audience, signals: StopSignals, check_sole: Callable[[], None]) -> bool:
    """Tell what the workers post until they end; return whether the last meta-step was reached."""
    check_sole = _now_and_then(check_sole)
    asked = False
    while fit.is_alive():
        fit.join(SECONDS_BETWEEN_COLLECTIONS)
        check_sole()
        audience.hear(ray.get(job.mailbox.collect.remote()))
        if not asked and (signals.received or audience.wants_end()):
            logger.info("stopping after this meta-step; once more to stop at once")
            asked = ray.get(job.mailbox.request_stop.remote()) is None
    audience.hear(ray.get(job.mailbox.collect.remote()))
    return fit.is_complete()


def _now_and_then(check: Callable[[], None]) -> Callable[[], None]:
    due = time.monotonic()

    def check_if_due() -> None:
        nonlocal due
        if time.monotonic() >= due:
            check()
            due = time.monotonic() + SECONDS_BETWEEN_CHECKS

    return check_if_due


def _complete_from(config: Config, directory: RunDirectory) -> Origin | None:
    """Return what the run was made from if it has its last meta-step behind it, else None."""
    name = checkpoint.find_newest(directory.checkpoints)
    if name is None or not storage.exists(directory.prompt):
        return None
    manifest = checkpoint.read_manifest(storage.join(directory.checkpoints, name))
    return manifest.origin if manifest.step == config.meta.steps else None


def _tell_end(config: Config, directory: RunDirectory, is_complete: bool) -> None:
    command = shlex.join(["python", *sys.argv])
    if not is_complete:
        logger.info("stopped and saved; the same command continues: %s", command)
        return
    for what, uri in (("prompt", directory.prompt), ("regularizer", directory.regularizer), ("report", directory.report)):
        if storage.exists(uri):
            logger.info("%s: %s", what, uri)
    logger.info("next, tune it on labelled tasks: %s", command.replace("metatrain.py", "prompt_tune.py"))
