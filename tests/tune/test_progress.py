"""How far a sweep is: meta-steps, trials, and a time that is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supmer.config.load import validate
from supmer.tune.progress import SweepProgress
from supmer.tune.result import Ledger, TrialRecord

LOSS = "validation_query_loss"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("supmer.tune.progress", "supmer.progress"):
        monkeypatch.setattr(f"{module}.time", clock)
    return clock


def record(folder: Path, number: int, status: str = "running") -> TrialRecord:
    directory = folder / f"t{number:03d}"
    directory.mkdir()
    return TrialRecord(
        trial=directory.name, status=status, settings={}, draws={"n": number}, directory=str(directory), command=""
    )


def test_a_line_says_how_far_the_sweep_is(tmp_path: Path, clock: Clock) -> None:
    space = {"meta.inner_lr": {"uniform": [0.1, 1]}}
    tune = {"space": space, "num_trials": 5, "scheduler": "none"}
    config = validate({"run": {"dir": str(tmp_path), "name": "sweep"}, "meta": {"steps": 200}, "tune": tune})
    ledger = Ledger(str(tmp_path))
    earlier, ended, running = record(tmp_path, 0, "complete"), record(tmp_path, 1), record(tmp_path, 2)
    earlier.add_rung(200, {LOSS: 3.0})
    ledger.add(earlier)
    progress = SweepProgress(config, ledger)

    ledger.add(ended)
    ledger.add(running)
    ended.status = "complete"
    ended.add_rung(200, {LOSS: 2.5})
    rows = [json.dumps({"step": step}) for step in range(1, 101)]
    Path(running.directory, "metrics.jsonl").write_text("\n".join(rows) + '\n{"step": 10')  # a line is being written
    clock.now += 100
    progress.on_step_end(0, [])
    # 300 meta-steps took 100 seconds; 100 of the third trial and 200 of each of two more are left.
    counted = "sweep: 500 of 1,000 meta-steps (50%), 3/s, 0:02:47 left"
    assert progress.shown.line() == f"{counted}; 2 of 5 trials ended; t002 at 100/200; best so far t001, {LOSS} 2.5000"
