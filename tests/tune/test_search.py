"""Proposals and early stopping on made-up learning curves: Ray Tune's and Optuna's own code, no trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher

from supmer.config import Config
from supmer.config.load import validate
from supmer.tune.objectives import WORST
from supmer.tune.result import Ledger, TrialRecord, best_of, pareto_front, ranked
from supmer.tune.schedule import STEP, EarlierTrial, build_scheduler, replay
from supmer.tune.search import SweepSearch, num_left

LOSS = "validation_query_loss"


def sweep(folder: Any = "runs", **tune: Any) -> Config:
    space = {"meta.inner_lr": {"loguniform": [0.001, 10]}, "regularizer.hidden_layers": {"choice": [0, 1, 2]}}
    values = {
        "run": {"dir": str(folder), "name": "sweep"},
        "meta": {"steps": 270},
        "train": {"validate_every": 30},
        "tune": {"space": space, "grace_steps": 30, **tune},
    }
    return validate(values)


def record(number: int, losses: list[float], status: str = "complete", **draws: Any) -> TrialRecord:
    found = TrialRecord(trial=f"t{number:03d}", settings={}, draws=draws, directory="", command="", status=status)
    for rung, loss in enumerate(losses, start=1):
        found.add_rung(30 * rung, {LOSS: loss})
    return found


def curve(quality: float) -> list[float]:
    """Return nine rungs of a loss that falls towards `quality`."""
    return [quality + np.exp(-rung / 3) for rung in range(1, 10)]


def run_trials(config: Config, qualities: list[float], known: list[TrialRecord]) -> list[TrialRecord]:
    """Let a scheduler judge trials of known curves, two at a time, as a sweep would."""
    scheduler = build_scheduler(config)
    replay(scheduler, config, known)
    waiting = [(EarlierTrial(str(number)), record(number, []), quality) for number, quality in enumerate(qualities)]
    running, done = [], []
    while waiting or running:
        while waiting and len(running) < 2:
            running.append(waiting.pop(0))
            scheduler.on_trial_add(None, running[-1][0])
        for entry in list(running):
            trial, found, quality = entry
            loss = curve(quality)[len(found.rungs)]
            found.add_rung(found.step + 30, {LOSS: loss})
            result = {STEP: found.step, LOSS: loss}
            stops = scheduler.on_trial_result(None, trial, result) == "STOP"
            if stops or found.step == config.meta.steps:
                scheduler.on_trial_complete(None, trial, result)
                found.status = "complete" if found.step == config.meta.steps else "stopped"
                running.remove(entry)
                done.append(found)
    return done


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_early_stopping_saves_steps_and_keeps_the_best(scheduler: str) -> None:
    config = sweep(scheduler=scheduler)
    spent, found = [], []
    for seed in range(20):
        qualities = np.random.default_rng(seed).permutation(np.linspace(0, 1, 16)).tolist()
        done = run_trials(config, qualities, [])
        spent.append(sum(trial.step for trial in done) / (16 * 270))
        best = best_of(config, done)
        assert best is not None
        found.append(qualities[int(best.trial[1:])])
    assert np.mean(spent) < (0.5 if scheduler == "asha" else 0.8)
    assert np.mean(found) < 0.05  # these curves never cross: the best should nearly always survive


def test_without_a_scheduler_all_run_to_their_end() -> None:
    assert {found.step for found in run_trials(sweep(scheduler="none"), [0.3, 0.1, 0.2], [])} == {270}


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_continued_sweep_knows_what_finished_trials_reported(scheduler: str) -> None:
    config = sweep(scheduler=scheduler)
    known = [record(number, curve(0.1 * number)) for number in range(4)]
    assert run_trials(config, [0.9], [])[0].status == "complete"
    assert run_trials(config, [0.9], known)[0].status == "stopped"
    assert run_trials(config, [-0.5], known)[0].status == "complete"


def test_values_that_are_not_finite_do_not_upset_the_scheduler() -> None:
    known = [record(0, [float("nan")] * 3, "diverged"), record(1, curve(0.5)), record(2, curve(0.6)), record(3, curve(0.6))]
    for scheduler in ("asha", "median"):
        assert run_trials(sweep(scheduler=scheduler), [0.1], known)[0].status == "complete"


def finish(config: Config, searcher: SweepSearch, ledger: Ledger, name: str) -> TrialRecord | None:
    """Take a proposal and end it with a loss that is least at an inner rate of 0.1."""
    proposed = searcher.suggest(name)
    if proposed == Searcher.FINISHED:
        return None
    assert isinstance(proposed, dict)
    found = ledger.find(proposed["trial"])
    for step in range(30, 271, 30):
        found.add_rung(step, {LOSS: abs(np.log10(found.settings.get("meta.inner_lr", 1)) + 1)})
    searcher.on_trial_complete(name, {"status": "complete"})
    ledger.save()
    return found


def test_tpe_closes_in_on_the_optimum(tmp_path: Any) -> None:
    losses = {}
    for searcher in ("random", "tpe"):
        config = sweep(tmp_path / searcher, searcher=searcher, num_trials=40)
        ledger = Ledger(str(tmp_path / searcher))
        proposer = SweepSearch(config, ledger)
        while finish(config, proposer, ledger, str(len(ledger))):
            pass
        assert len(ledger) == 40
        losses[searcher] = np.mean([found.value(LOSS) for found in ledger.records[20:]])
    assert losses["tpe"] < 0.75 * losses["random"]


def test_a_continued_sweep_finishes_what_was_begun_and_repeats_nothing(tmp_path: Any) -> None:
    config = sweep(tmp_path, searcher="random", num_trials=6)
    uri = str(tmp_path)
    ledger = Ledger(uri)
    searcher = SweepSearch(config, ledger)
    for number in range(3):
        finish(config, searcher, ledger, str(number))
    left = [searcher.suggest("x"), searcher.suggest("y")]
    before = [found.draws for found in ledger]

    continued = Ledger(uri)
    assert continued.records == ledger.records
    again = SweepSearch(config, continued)
    assert [again.suggest(name) for name in "ab"] == left
    again.on_trial_complete("a", {"status": "complete"})
    assert finish(config, again, continued, "c") is not None
    assert finish(config, again, continued, "d") is None
    assert [found.draws for found in continued][:5] == before
    assert len({str(found.draws) for found in continued}) == 6
    assert not num_left(config, continued)


def test_a_finite_space_is_exhausted_whatever_the_searcher(tmp_path: Any) -> None:
    for searcher in ("grid", "random", "tpe"):
        space = {"regularizer.hidden_layers": {"choice": [0, 1, 2]}, "run.seed": {"integer": [0, 1]}}
        config = sweep(tmp_path / searcher, searcher=searcher, num_trials=50, space=space)
        ledger = Ledger(str(tmp_path / searcher))
        proposer = SweepSearch(config, ledger)
        while finish(config, proposer, ledger, str(len(ledger))):
            pass
        assert len(ledger) == len({str(found.settings) for found in ledger}) == 6


def test_settings_that_do_not_go_together_fail_at_once_and_are_recorded(tmp_path: Any) -> None:
    space = {"meta.order": {"choice": ["first", "second"]}, "prompt.length": {"choice": [2, 100_000]}}
    config = sweep(tmp_path, searcher="grid", num_trials=None, space=space)
    ledger = Ledger(str(tmp_path))
    proposer = SweepSearch(config, ledger)
    while finish(config, proposer, ledger, str(len(ledger))):
        pass
    assert sorted(found.status for found in ledger) == ["complete", "complete", "failed", "failed"]
    assert all("prompt.length=100000: must be at most" in str(found.error) for found in ledger if found.status == "failed")


def propose(searcher: SweepSearch, ledger: Ledger, trial_id: str) -> TrialRecord:
    proposed = searcher.suggest(trial_id)
    assert isinstance(proposed, dict)
    return ledger.find(proposed["trial"])


def test_optuna_learns_how_trials_ended_and_knows_it_in_a_continued_sweep(tmp_path: Path) -> None:
    config = sweep(tmp_path, scheduler="asha")
    ledger = Ledger(str(tmp_path))
    searcher = SweepSearch(config, ledger)
    for status in ("complete", "running", "diverged", "failed"):  # the scheduler stopped the second
        record = propose(searcher, ledger, status)
        for loss in (1.0, 0.5):
            record.add_rung(record.step + 30, {LOSS: loss})
        searcher.on_trial_complete(status, {"status": status})
    ledger.save()
    assert [record.status for record in ledger] == ["complete", "stopped", "diverged", "failed"]
    for study in (searcher.study, SweepSearch(config, Ledger(str(tmp_path))).study):
        assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE", "FAIL"]
        assert [trial.value for trial in study.trials] == [0.5, 0.5, WORST, None]
        assert study.trials[1].intermediate_values == {30: 1.0, 60: 0.5}
        assert [trial.params for trial in study.trials] == [record.draws for record in ledger]


def test_several_objectives_make_a_front(tmp_path: Path) -> None:
    nsp = f"{LOSS}_nsp"
    config = sweep(tmp_path, scheduler="none", objectives=[LOSS, nsp])
    ledger = Ledger(str(tmp_path))
    searcher = SweepSearch(config, ledger)
    for number, (loss, other) in enumerate([(1, 3), (2, 2), (3, 1), (3, 3)]):
        record = propose(searcher, ledger, str(number))
        record.add_rung(record.step + 30, {LOSS: loss, nsp: other})
        searcher.on_trial_complete(str(number), {"status": "complete"})
    assert [found.trial for found in pareto_front(config, ledger.records)] == ["t000", "t001", "t002"]
    assert {tuple(trial.values) for trial in searcher.study.best_trials} == {(1, 3), (2, 2), (3, 1)}


def test_ranking_puts_complete_trials_first() -> None:
    config = sweep()
    records = [record(0, [0.1], "stopped"), record(1, [0.9] * 9), record(2, [0.5] * 9), record(3, [], "failed")]
    assert [found.trial for found in ranked(config, records)] == ["t002", "t001", "t000", "t003"]
    best = best_of(config, records)
    assert best is not None and best.trial == "t002"
    assert best_of(config, records[:1]) is None
