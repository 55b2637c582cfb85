"""The experiment's two checks on a small task, in this process."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from fewshot_material import job_settings, make_backbone, make_run, make_task

from experiments.methods.perfect import check_perfect, cosines
from experiments.methods.schedules import SCHEDULES, compare_schedules
from supmer.config import Config
from supmer.config.load import validate, with_settings


@pytest.fixture
def config(tmp_path: Path) -> Config:
    settings = job_settings(make_backbone(tmp_path / "t5"), make_task(tmp_path), tmp_path / "runs")
    small = {"fewshot.concurrency": 0, "fewshot.from_run": str(make_run(tmp_path / "made")), "fewshot.steps": 2}
    perfect = {"steps": 40, "eval_every": 20, "batch_size": 8, "rate": 1e-3, "label_rate": 1e-2}
    return with_settings(validate(settings), small | {f"fewshot.perfect.{name}": value for name, value in perfect.items()})


def table(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")][2:]


def test_cosines_are_of_what_classes_do_not_have_in_common() -> None:
    prototypes = np.array([[[9.0, 1.0]], [[9.0, -1.0]]])
    assert cosines(np.array([[[0.0, 3.0]], [[0.0, -3.0]]]), prototypes) == pytest.approx((1, -1))
    assert cosines(np.array([[[3.0, 0.0]], [[-3.0, 0.0]]]), prototypes) == pytest.approx((0, 0))


def test_perfect_before_and_after(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    check_perfect(with_settings(config, {"fewshot.seeds": [0, 1]}), Namespace())
    ((task, before, after, better, same, other),) = table(capsys.readouterr().out)
    assert task == "colour" and better[1:] == " of 2"
    assert 0 <= float(before) <= 100 and 0 <= float(after) <= 100
    assert float(same) == pytest.approx(-float(other)) and float(same) > 0.2


def test_a_row_for_each_schedule_and_method(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    compare_schedules(config, Namespace())
    rows = table(capsys.readouterr().out)
    assert [row[:2] for row in rows] == [[name, method] for name in SCHEDULES for method in ("prompt_tuning", "supmer")]
    assert all(row[2] == row[3] for row in rows)  # one task: it is the mean
