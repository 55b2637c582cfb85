"""The lines on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import get_args

import pytest

from supmer.config import TaskKind
from supmer.config.load import load_config
from supmer.meta.record import StepRecord
from supmer.train.listeners import Terminal, tracked_values


def train_record(step: int, kind: TaskKind = "nsp", loss: float = 1.5) -> StepRecord:
    return StepRecord(step, "train", loss, 2.5, 0.25, 0.75, 0.1, kind, 300, 0.5, 0.1)


def validation_record(step: int, kind: TaskKind, loss: float) -> StepRecord:
    return StepRecord(step, "validation", loss, 2.0, 0.5, 0.5, 0.1, kind, 100, 0.5, 0.0)


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("supmer.progress.time", clock)
    return clock


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(load_config(None, ["meta.steps=25", "tasks.kinds=[nsp,scc]"]))
    yield terminal
    terminal.close()


def test_speed_and_smoothed_losses_by_kind(terminal: Terminal, clock: Clock) -> None:
    terminal.show(train_record(1))
    for step, kind, loss in ((2, "scc", 4.0), (3, "nsp", 0.5)):
        clock.now += 0.5
        terminal.show(train_record(step, kind, loss))
    counted = "meta-training: 3 of 25 steps (12%), 2/s, 0:00:11 left"
    assert terminal.progress.line() == f"{counted}; loss  nsp 1.400  scc 4.000  gate 0.250  600 tokens/s"


def test_a_continued_run_has_the_speed_of_its_own_steps(terminal: Terminal, clock: Clock) -> None:
    terminal.show(train_record(21))
    clock.now += 5
    terminal.show(train_record(22))
    assert "22 of 25 steps (88%), 5 s each, 0:00:15 left" in terminal.progress.line()


def test_a_validation_is_one_line_as_soon_as_it_is_whole(terminal: Terminal, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "supmer")
    for kind, loss in (("nsp", 1.25), ("scc", 2.5)):
        terminal.show(validation_record(20, kind, loss))
    assert caplog.messages == ["step 20/25  validation loss  nsp 1.2500  scc 2.5000"]


def test_a_validation_that_is_begun_again_has_each_kind_once(terminal: Terminal, caplog: pytest.LogCaptureFixture) -> None:
    """As after the loss of a worker between the kinds."""
    caplog.set_level(logging.INFO, "supmer")
    for kind, loss in (("nsp", 9.0), ("nsp", 1.25), ("scc", 2.5)):
        terminal.show(validation_record(20, kind, loss))
    assert caplog.messages == ["step 20/25  validation loss  nsp 1.2500  scc 2.5000"]


def test_kinds_validated_at_one_step_share_no_name_in_trackers() -> None:
    names = [tracked_values(validation_record(20, kind, 1.0)).keys() for kind in get_args(TaskKind)]
    assert sum(map(len, names)) == len(set().union(*names)) > 0
