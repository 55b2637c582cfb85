"""`metrics.jsonl` as the contract says, without a step twice after a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import pytest

from supmer.meta.record import StepRecord
from supmer.train.metrics import MetricsLog, read_rows, to_json

FIELDS = [
    "step",
    "split",
    "query_loss",
    "support_loss",
    "gate",
    "similarity",
    "mixup_b",
    "kind",
    "tokens",
    "step_seconds",
    "data_wait_seconds",
]


def row(step: int, split: Literal["train", "validation"] = "train", loss: float = 1.0) -> StepRecord:
    return StepRecord(step, split, loss, 2.0, 0.5, 0.5, 0.1, "nsp", 100, 0.5, 0.1)


def test_a_row_has_the_fields_of_the_contract() -> None:
    assert sorted(json.loads(to_json(row(1)))) == sorted(FIELDS)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_in_valid_json(loss: float) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    assert json.loads(to_json(row(1, loss=loss)), parse_constant=refuse)["query_loss"] is None


def test_resume_cuts_back_to_its_step_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(str(path), 0)
    for entry in [row(0, "validation"), *(row(step) for step in range(1, 6)), row(5, "validation")]:
        log.append(entry)
    log.close()
    again = MetricsLog(str(path), 3)
    again.append(row(4, loss=7.0))
    again.close()
    kept = [(found["step"], found["split"], found["query_loss"]) for found in read_rows(str(path))]
    assert kept == [(0, "validation", 1.0), *((step, "train", 1.0) for step in (1, 2, 3)), (4, "train", 7.0)]


def test_start_from_scratch_leaves_no_earlier_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(str(path), 0)
    log.append(row(1))
    log.close()
    MetricsLog(str(path), 0).close()
    assert read_rows(str(path)) == []


def test_rows_are_readable_while_the_log_is_open(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(str(path), 0)
    log.append(row(1))
    assert [found["step"] for found in read_rows(str(path))] == [1]
    log.close()


def test_half_a_line_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(to_json(row(1)).encode() + b"\n\xff\n[1]\n" + to_json(row(2)).encode()[:20])
    assert [found["step"] for found in read_rows(str(path))] == [1]
    assert "3 damaged lines are left out, the first is line 2" in caplog.text
