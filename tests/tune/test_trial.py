"""A trial that goes on where an earlier attempt was killed, between writing its results and reporting them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from tiny_run import tiny_config

from supmer import storage
from supmer.config import Config, TaskKind
from supmer.config.load import validate
from supmer.meta.record import StepRecord
from supmer.train import checkpoint
from supmer.train.metrics import MetricsLog
from supmer.train.run_dir import Origin, RunDirectory, claim
from supmer.tune.fewshot_score import state_at
from supmer.tune.objectives import FEWSHOT, QUERY_LOSS
from supmer.tune.result import Ledger, Rung
from supmer.tune.schedule import STEP
from supmer.tune.search import SweepSearch
from supmer.tune.trial import FollowedRun, Rungs, SupmerTrial, TrialFailedError
from supmer.tune.trial_config import trial_config

NUM_STEPS, EVERY = 9, 3
KINDS: tuple[TaskKind, ...] = ("nss", "scc")


def loss(step: int, kind: TaskKind) -> float:
    return 10 - step / 7 + KINDS.index(kind) / 3


def rung_at(step: int) -> Rung:
    first, second = (loss(step, kind) for kind in KINDS)
    names = {QUERY_LOSS: (first + second) / 2, f"{QUERY_LOSS}_nss": first, f"{QUERY_LOSS}_scc": second}
    return Rung(step=step, values=names)


def row(step: int, kind: TaskKind, query_loss: float) -> StepRecord:
    return StepRecord(step, "validation", query_loss, 0.0, 0.0, 0.0, 0.0, kind, 1, 1.0, 0.0)


def write_checkpoint(directory: RunDirectory, step: int) -> None:
    folder = storage.join(directory.checkpoints, checkpoint.new_name([], step))
    origin = Origin(config_hash="", backbone={}, store_fingerprint="")
    checkpoint.write(folder, checkpoint.serialize({"step": torch.tensor(step)}), step, origin, "0")


def write_complete_run(config: Config) -> RunDirectory:
    """Leave what a run of random numbers leaves: validations, its last checkpoint, its prompt."""
    config, directory = claim(config)
    log = MetricsLog(directory.metrics, 0)
    for step in range(0, NUM_STEPS + 1, EVERY):
        for kind in KINDS:
            log.append(row(step, kind, loss(step, kind)))
    log.close()
    write_checkpoint(directory, NUM_STEPS)
    storage.write_bytes(directory.prompt, checkpoint.serialize({}))
    return directory


@pytest.fixture
def config(tiny_files: Path, tmp_path: Path) -> Config:
    settings = (f"meta.steps={NUM_STEPS}", f"train.validate_every={EVERY}", f"tasks.kinds=[{','.join(KINDS)}]")
    return tiny_config(tiny_files, f"run.dir={tmp_path}", "run.name=t000", *settings)


@pytest.mark.parametrize("num_known", [0, 2])
def test_rungs_of_a_run_that_was_killed_before_they_were_reported_come_first(config: Config, num_known: int) -> None:
    directory = write_complete_run(config)
    known = [rung_at(step) for step in (3, 6, 9)][:num_known]
    later = FollowedRun(config, 60, known, with_fewshot=False)
    assert [later.next_rung() for _ in range(3)] == [rung_at(step) for step in (3, 6, 9)]
    later.join_until_end()
    assert Path(directory.report).exists()  # which the driver had not written either
    with pytest.raises(TrialFailedError, match="ended before"):
        later.next_rung()


def test_a_continued_trial_reports_the_rungs_it_is_given_and_those_of_its_run(config: Config) -> None:
    tune = {"space": {"meta.inner_steps": {"choice": [1]}}, "searcher": "grid", "grace_steps": EVERY}
    sweep = validate({**config.model_dump(), "run": {**config.run.model_dump(), "name": "sweep"}, "tune": tune})
    ledger = Ledger(sweep.run_dir)
    SweepSearch(sweep, ledger).suggest("first call")
    (record,) = ledger
    write_complete_run(trial_config(sweep, record.trial, record.settings))
    record.add_rung(3, {QUERY_LOSS: 99.0})  # as a score that is not computed again
    ledger.save()

    trial = SupmerTrial(SweepSearch(sweep, Ledger(sweep.run_dir)).suggest("next call"))
    results = [trial.train() for _ in range(3)]
    trial.stop()
    assert [(result[STEP], result["status"], result["done"]) for result in results] == [
        (3, "running", False),
        (6, "running", False),
        (9, "complete", True),
    ]
    assert [json.loads(result["values"])[QUERY_LOSS] for result in results] == [
        99.0,
        *(rung_at(step).values[QUERY_LOSS] for step in (6, 9)),
    ]
    assert results[0][QUERY_LOSS] == 99.0


def test_validations_later_than_the_newest_checkpoint_are_left_to_be_done_again(config: Config) -> None:
    directory = write_complete_run(config)
    assert Rungs(config).next() == rung_at(3)
    shutil.rmtree(directory.checkpoints)
    assert Rungs(config).next() is None


def test_a_validation_that_is_repeated_after_a_failure_is_no_second_rung(config: Config) -> None:
    rungs = Rungs(config)
    for step in (0, 3, 6, 3, 6, 9):
        for kind in KINDS:
            rungs.add(step, kind, loss(step, kind))
    assert [rungs.next() for _ in range(4)] == [rung_at(3), rung_at(6), rung_at(9), None]


def test_values_that_are_not_finite_are_none_however_they_come(config: Config) -> None:
    write_complete_run(config)
    log = MetricsLog(RunDirectory(config.run_dir).metrics, 0)
    for kind, value in zip(KINDS, (math.nan, 1.0), strict=True):
        log.append(row(3, kind, value))
    log.close()
    values = {QUERY_LOSS: None, f"{QUERY_LOSS}_nss": None, f"{QUERY_LOSS}_scc": 1.0}
    assert Rungs(config).next() == Rung(step=3, values=values)


def test_a_rung_is_scored_by_the_state_of_its_own_step(config: Config) -> None:
    directory = write_complete_run(config)
    for step in (3, 6):
        write_checkpoint(directory, step)
    assert [int(state_at(directory, step)["step"]) for step in (3, 6, 9)] == [3, 6, 9]


@pytest.mark.parametrize(("objective", "kept"), [(FEWSHOT, 4), (QUERY_LOSS, 2)])
def test_no_rung_loses_its_checkpoint_before_it_is_scored(config: Config, objective: str, kept: int) -> None:
    sweep = config.model_copy(update={"tune": config.tune.model_copy(update={"objectives": [objective]})})
    trial = trial_config(sweep, "t000", {"meta.steps": 10, "train.checkpoint_every": 3})
    assert trial.train.keep_checkpoints == kept
