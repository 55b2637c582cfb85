"""Significance, transfer matrices and the report's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from supmer.fewshot.cells import Cell, CellResult, TransferScore
from supmer.fewshot.report import write_report
from supmer.fewshot.results import Results
from supmer.fewshot.scoring import METRICS
from supmer.fewshot.significance import WEIGHTED_METRICS, Predictions, bootstrap, compare_methods
from supmer.fewshot.transfer import markdown_matrix, transfer_matrices
from supmer.fewshot.tuning import CurvePoint

NUM_ROWS = 60


def result_of(task: str, method: str, seed: int, error_rate: float, k: int = 16) -> CellResult:
    generator = np.random.default_rng([seed, int(100 * error_rate)])
    labels = np.arange(NUM_ROWS) % 2
    predictions = np.where(generator.random(NUM_ROWS) < error_rate, 1 - labels, labels)
    return CellResult(
        cell=Cell(task, 0, method, seed, k),
        pattern_text="{text} <X>",
        label_words=["bad", "good"],
        metric="accuracy",
        score=float((predictions == labels).mean()),
        dev_score=0.5,
        best_step=2,
        num_train=8,
        num_dev=8,
        seconds=1.0,
        scores=np.eye(2, dtype=np.float32)[predictions],
        labels=labels.tolist(),
        curve=[CurvePoint(2, 1.0, 0.5), CurvePoint(4, 0.5, 0.6)],
        prompt=np.ones((2, 3), dtype=np.float32),
        transfer=[TransferScore("b" if task == "a" else "a", "accuracy", 0.25, 10)],
    )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Two tasks, three seeds, a poor and a good method, two K."""
    results = Results(str(tmp_path))
    for task in ("a", "b"):
        for seed in range(3):
            results.add(result_of(task, "poor", seed, 0.5), "key")
            results.add(result_of(task, "good", seed, 0.1), "key")
            results.add(result_of(task, "good", seed, 0.3, k=4), "key")
    return results


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_weighted_metrics_are_the_metrics_of_repeated_rows(metric: str) -> None:
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 3, 40), generator.integers(0, 4, (2, 40))
    weights = generator.multinomial(40, np.full(40, 1 / 40), 5).astype(float)
    found = WEIGHTED_METRICS[metric](predictions, labels, weights)
    for draw, weight in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(40), weight.astype(int))
        expected = [METRICS[metric](labels[rows], prediction[rows]) for prediction in predictions]
        np.testing.assert_allclose(draw, expected, atol=1e-12)


def test_a_plain_difference_is_found_and_a_method_does_not_differ_from_itself(results: Results) -> None:
    by_task = {
        comparison.task: comparison for comparison in compare_methods(results.run_dir, results.records, "good", "poor")
    }
    assert set(by_task) == {"a (K=16)", "b (K=16)", None}
    for comparison in by_task.values():
        assert 0 < comparison.low < comparison.difference < comparison.high and comparison.p_value < 0.01
    assert by_task[None].high - by_task[None].low < by_task["a (K=16)"].high - by_task["a (K=16)"].low
    scores = {
        method: [r["score"] for r in results.records if r["method"] == method and r["k"] == 16]
        for method in ("good", "poor")
    }
    assert by_task[None].difference == pytest.approx(np.mean(scores["good"]) - np.mean(scores["poor"]))
    (same, *_) = compare_methods(results.run_dir, results.records, "good", "good")
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_the_interval_has_the_width_that_theory_gives() -> None:
    """One seed, independent rows: the standard error of a difference of two shares."""
    generator = np.random.default_rng(1)
    labels = np.zeros(2000, dtype=np.int64)
    ours, theirs = (
        Predictions((generator.random((1, 2000)) < rate).astype(np.int64), labels, "accuracy") for rate in (0.2, 0.4)
    )
    difference, draws = bootstrap(ours, theirs, generator)
    correct = (ours.predictions == 0).astype(float) - (theirs.predictions == 0)
    assert difference == pytest.approx(correct.mean())
    assert draws.std() == pytest.approx(correct.std() / np.sqrt(2000), rel=0.1)


def test_macro_f1_leaves_out_classes_that_never_occur() -> None:
    labels, predictions = np.asarray([0, 0, 1]), np.asarray([[0, 1, 1]])
    weights = np.asarray([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    found = WEIGHTED_METRICS["macro_f1"](predictions, labels, weights)
    assert found[0, 0] == pytest.approx(f1_score([0, 0], [0, 1], average="macro", zero_division=0))
    assert found[1, 0] == 1.0


def test_the_matrix_has_own_scores_on_its_diagonal(results: Results) -> None:
    records = [record for record in results.records if record["k"] == 16]
    transfer = [line for line in results.transfer if line["k"] == 16]
    matrix = transfer_matrices(records, transfer)["poor"]
    assert matrix.sources == matrix.targets == ["a", "b"]
    own = np.mean([record["score"] for record in records if record["method"] == "poor" and record["task"] == "a"])
    assert matrix.cells[0][0] is not None and matrix.cells[0][0].mean == pytest.approx(own)
    assert matrix.cells[0][1] is not None and matrix.cells[0][1].mean == 0.25
    assert markdown_matrix("poor", matrix).splitlines()[2].startswith("| a | ")


def test_the_report_writes_tables_figures_and_significance(results: Results, tmp_path: Path) -> None:
    write_report(results, ["poor", "good"])
    folder = tmp_path / "fewshot"
    written: dict[str, Any] = {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}
    assert set(written) == {
        "table.md",
        "table.tex",
        "scores.svg",
        "learning_curves.svg",
        "scores_by_k.svg",
        "significance.md",
        "transfer.md",
        "transfer.svg",
    }
    assert "| poor | mean over tasks (K=16) | +" in written["significance.md"]
    assert all(word in written["scores.svg"] for word in ("poor", "good", "a (K=4)"))
    assert "a (K=16)" in written["learning_curves.svg"] and "a (K=4)" not in written["learning_curves.svg"]
    write_report(results, ["poor", "good"])
    assert all((folder / name).read_text() == text for name, text in written.items())
