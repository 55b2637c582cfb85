"""The lines on the terminal."""

from __future__ import annotations

import logging

import pytest

from supmer.cli import load_config
from supmer.config import TaskKind
from supmer.train.metrics import MetricsRow
from supmer.train.progress import ProgressLines


def train_row(step: int) -> MetricsRow:
    return MetricsRow(step, "train", 1.5, 2.5, 0.25, 0.75, 0.1, "nsp", 300, 0.5, 0.1)


def validation_row(step: int, kind: TaskKind, loss: float) -> MetricsRow:
    return MetricsRow(step, "validation", loss, 2.0, 0.5, 0.5, 0.1, kind, 100, 0.5, 0.0)


def shown(rows: list[MetricsRow], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level(logging.INFO, "supmer")
    lines = ProgressLines(load_config(None, ["meta.steps=25", "log.every=10", "tasks.kinds=[nsp,scc]"]))
    for row in rows:
        lines.show(row)
    return [record.getMessage() for record in caplog.records]


def test_a_line_each_few_steps_and_at_the_last(caplog: pytest.LogCaptureFixture) -> None:
    lines = shown([train_row(step) for step in range(1, 26)], caplog)
    assert [line.split()[1] for line in lines] == ["10/25", "20/25", "25/25"]
    assert lines[0] == (
        "step 10/25  nsp   query 1.5000  support 2.5000  gate 0.250  similarity 0.750  600 tokens/s  0:00:08 left"
    )


def test_a_validation_is_one_line_as_soon_as_it_is_whole(caplog: pytest.LogCaptureFixture) -> None:
    lines = shown([validation_row(20, "nsp", 1.25), validation_row(20, "scc", 2.5)], caplog)
    assert lines == ["step 20/25  validation query loss  nsp 1.2500  scc 2.5000"]
