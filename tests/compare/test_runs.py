"""Runs beside each other, through the command line, and the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from fewshot_material import result_of
from scripts import call

from supmer.compare.runs import differences_table, read_runs, render, settings_table, validation_table
from supmer.errors import UserError
from supmer.fewshot.cell_runner import CellResult
from supmer.fewshot.cells import Cell
from supmer.fewshot.results import Results

LABELS = np.arange(200) % 2


def scored(seed: int, num_wrong: int, num_test: int = 200) -> CellResult:
    labels = LABELS[:num_test]
    predictions = np.where(np.arange(num_test) < num_wrong, 1 - labels, labels)
    made = result_of(Cell("sst-2", 0, "supmer", seed, 16, seed), float((predictions == labels).mean()))
    return replace(made, labels=labels.tolist(), scores=np.eye(2, dtype=np.float32)[predictions])


def make_run(folder: Path, rate: float, steps: list[int], num_wrong: int, num_test: int = 200) -> str:
    folder.mkdir()
    settings = {"run": {"name": folder.name, "dir": "runs"}, "meta": {"inner_lr": rate, "steps": 20}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    rows = [{"step": step, "split": "validation", "kind": "nsp", "query_loss": rate + step / 10} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed in range(2):
        Results(str(folder)).add(scored(seed, num_wrong, num_test), "key")
    return str(folder)


def test_two_runs_on_the_command_line_and_as_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make_run(tmp_path / "one", 0.5, [0, 10], 100), make_run(tmp_path / "two", 0.25, [0, 10, 20], 40)
    Path(one, "report.html").write_text("")
    monkeypatch.setenv("COLUMNS", "160")
    done = call("compare.py", one, two, "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())
    assert "meta.inner_lr 0.5 0.25" in printed and "meta.steps" not in printed and "run.name" not in printed
    assert "nsp 10 1.5000 1.2500 nsp last 1.5000 2.2500" in printed
    assert "sst-2 supmer 50.0 ± 0.0 (50.0) 80.0 ± 0.0 (80.0)" in printed
    assert "two supmer sst-2 (K=16) +30.0" in printed
    shown = (tmp_path / "page.html").read_text()
    assert '<a href="one/report.html">one</a>' in shown and "two/report.html" not in shown
    assert all(text in shown for text in ("meta.inner_lr", "+30.0", "Meta-validation", "query loss", "nsp"))


def test_intervals_are_paired(tmp_path: Path) -> None:
    """Rows that both runs label wrongly count for neither: 30 of 200 rows differ, whatever the others are."""
    runs = read_runs([make_run(tmp_path / "one", 0.5, [0], 100), make_run(tmp_path / "two", 0.5, [0], 70)])
    assert settings_table(runs).rows == []
    (row,) = differences_table(runs).rows
    low, high = (float(end) for end in row[4].split(" to "))
    standard_error = 100 * np.std(np.arange(200) < 30) / np.sqrt(200)
    assert row[3] == "+15.0" and (high - low) / 2 == pytest.approx(1.96 * standard_error, rel=0.15)


def test_other_test_rows_are_not_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = make_run(tmp_path / "one", 0.5, [0], 10), make_run(tmp_path / "two", 0.5, [20], 10, num_test=100)
    runs = read_runs([one, two])
    assert differences_table(runs).rows == [] and "sst-2 (K=16)" in caplog.text
    assert validation_table(runs).rows == [["nsp", "0", "0.5000", "-"], ["nsp", "last", "0.5000", "2.5000"]][1:]


def test_one_run_is_compared_with_the_defaults_and_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "one", 0.123, [], 0)])
    assert ["meta.inner_lr", "0.123"] in [row[:2] for row in settings_table([run]).rows]
    assert "Comparison of runs" in render([run], str(tmp_path))
    with pytest.raises(UserError, match=r"RUN=.*: is no run directory"):
        read_runs([str(tmp_path)])
