"""Significance, transfer matrices and the report's files."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import ray
from fewshot_material import result_of as made_up_result
from sklearn.metrics import accuracy_score, f1_score

import supmer.fewshot.comparison as comparison_module
import supmer.progress as progress_module
from supmer.config import Config
from supmer.config.load import with_settings
from supmer.fewshot.cell_runner import CellResult, CellRunner, TransferScore
from supmer.fewshot.cells import Cell
from supmer.fewshot.comparison import prepare_tasks, run_fewshot
from supmer.fewshot.comparison_files import write_files
from supmer.fewshot.data import Row
from supmer.fewshot.report import Predicted, confusion_table, f1_table, scores_table
from supmer.fewshot.results import Results, read_details
from supmer.fewshot.scoring import METRICS
from supmer.fewshot.significance import Predictions, bootstrap, compare_methods
from supmer.fewshot.starting_points import StartingPoints
from supmer.fewshot.summaries import outcome, summarize, transfer_grids
from supmer.fewshot.tuning import CurvePoint

NUM_ROWS = 60

PLAIN: dict[str, Callable[..., float]] = {
    "accuracy": accuracy_score,
    "macro_f1": partial(f1_score, average="macro", zero_division=0),
    "f1": partial(f1_score, labels=[1], average="macro", zero_division=0),
}


def result_of(
    task: str,
    method: str,
    seed: int,
    error_rate: float,
    k: int = 16,
    training: int | None = None,
    metrics: tuple[str, ...] = ("accuracy",),
) -> CellResult:
    training_seed = seed if training is None else training
    generator = np.random.default_rng([seed, training_seed, int(100 * error_rate)])
    labels = np.arange(NUM_ROWS) % 2
    predictions = np.where(generator.random(NUM_ROWS) < error_rate, 1 - labels, labels)
    return replace(
        made_up_result(Cell(task, 0, method, seed, k, training_seed)),
        metrics={metric: float(PLAIN[metric](labels, predictions)) for metric in metrics},
        scores=np.eye(2, dtype=np.float32)[predictions],
        labels=labels.tolist(),
        curve=[CurvePoint(2, 1.0, 0.5), CurvePoint(4, 0.5, 0.6)],
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


@pytest.mark.parametrize("metric", METRICS)
def test_weighted_metrics_are_the_metrics_of_repeated_rows(metric: str) -> None:
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 3, 40), generator.integers(0, 4, (2, 40))
    weights = generator.multinomial(40, np.full(40, 1 / 40), 5).astype(float)
    found = METRICS[metric](predictions, labels, weights)
    for draw, weight in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(40), weight.astype(int))
        expected = [PLAIN[metric](labels[rows], prediction[rows]) for prediction in predictions]
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
        Predictions((generator.random((1, 1, 2000)) < rate).astype(np.int64), labels, ["accuracy"]) for rate in (0.2, 0.4)
    )
    difference, draws = bootstrap(ours, theirs, generator)
    correct = (ours.predictions == 0).astype(float) - (theirs.predictions == 0)
    assert difference == pytest.approx(correct.mean())
    assert draws.std() == pytest.approx(correct.std() / np.sqrt(2000), rel=0.1)


def test_data_and_training_seeds_are_resampled_each_for_itself() -> None:
    """Score of data seed s and training seed t: a_s + b_t, on rows that all count alike: the variances add up."""
    of_data, of_training, num_rows = np.asarray([0, 20, 40]), np.asarray([0, 10]), 1000
    correct = of_data[:, None] + of_training[None, :]
    predictions = (np.arange(num_rows) >= correct[..., None]).astype(np.int64)  # so many rows are 0, the label
    labels = np.zeros(num_rows, dtype=np.int64)
    ours = Predictions(predictions, labels, ["accuracy"])
    none = Predictions(np.ones_like(predictions), labels, ["accuracy"])
    difference, draws = bootstrap(ours, none, np.random.default_rng(0))
    assert difference == pytest.approx(correct.mean() / num_rows)
    seeds = of_data.var() / 3 + of_training.var() / 2
    rows = num_rows * difference * (1 - difference)
    assert draws.std() * num_rows == pytest.approx(np.sqrt(seeds + rows), rel=0.1)


def test_only_training_seeds_that_all_data_seeds_have_are_compared(tmp_path: Path) -> None:
    results = Results(str(tmp_path))
    for seed, training in ((0, 5), (0, 6), (1, 5)):
        for method, rate in (("poor", 0.5), ("good", 0.1)):
            results.add(result_of("a", method, seed, rate, training=training), "key")
    (found,) = compare_methods(str(tmp_path), results.records, "good", "poor")
    scores = {
        method: np.mean([r["score"] for r in results.records if r["method"] == method and r["training_seed"] == 5])
        for method in ("good", "poor")
    }
    assert found.difference == pytest.approx(scores["good"] - scores["poor"])


def test_macro_f1_leaves_out_classes_that_never_occur() -> None:
    labels, predictions = np.asarray([0, 0, 1]), np.asarray([[0, 1, 1]])
    weights = np.asarray([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    found = METRICS["macro_f1"](predictions, labels, weights)
    assert found[0, 0] == pytest.approx(f1_score([0, 0], [0, 1], average="macro", zero_division=0))
    assert found[1, 0] == 1.0


def test_each_metric_has_its_row_and_differences_are_of_their_mean(tmp_path: Path) -> None:
    results, names = Results(str(tmp_path)), ("accuracy", "f1")
    for seed in range(2):
        for method, rate in (("poor", 0.5), ("good", 0.1)):
            results.add(result_of("a", method, seed, rate, metrics=names), "key")
            results.add(result_of("b", method, seed, rate), "key")
    records = Results(str(tmp_path)).records
    assert records[0]["metric"] == "accuracy and f1"
    assert records[0]["score"] == pytest.approx(np.mean(list(records[0]["metrics"].values())))
    grid = summarize(records)
    assert grid.rows == ["a (accuracy)", "b", "a (f1)"]
    of_good = [record for record in records if (record["task"], record["method"]) == ("a", "good")]
    assert grid.cells["a (f1)", "good"].mean == pytest.approx(np.mean([record["metrics"]["f1"] for record in of_good]))
    assert {row[0] for row in scores_table(records).rows} == set(grid.rows)
    (of_a, _, _) = compare_methods(str(tmp_path), records, "good", "poor")
    scores = {
        method: np.mean([r["score"] for r in records if (r["task"], r["method"]) == ("a", method)])
        for method in ("good", "poor")
    }
    assert of_a.difference == pytest.approx(scores["good"] - scores["poor"])
    # An earlier version scored by accuracy alone: the metric that both have is compared.
    for record in records:
        if record["task"] == "a" and record["method"] == "poor":
            record |= {"metric": "accuracy", "metrics": {"accuracy": record["metrics"]["accuracy"]}}
    (earlier, _, _) = compare_methods(str(tmp_path), records, "good", "poor")
    accuracies = [[r["metrics"]["accuracy"] for r in records if (r["task"], r["method"]) == ("a", m)] for m in scores]
    assert earlier.difference == pytest.approx(np.mean(accuracies[0]) - np.mean(accuracies[1]))


def test_the_matrix_has_own_scores_on_its_diagonal(results: Results) -> None:
    records = [record for record in results.records if record["k"] == 16]
    transfer = [line for line in results.transfer if line["k"] == 16]
    grid = transfer_grids(records, transfer)["poor"]
    assert grid.rows == grid.columns == ["a", "b"]
    own = np.mean([record["score"] for record in records if record["method"] == "poor" and record["task"] == "a"])
    assert grid.cells["a", "a"].mean == pytest.approx(own)
    assert grid.cells["a", "b"].mean == 0.25


def scored(**scores: list[float]) -> list[dict[str, Any]]:
    return [
        {"task": "trec", "method": method, "seed": seed, "training_seed": seed, "k": 16, "pattern": 0, "score": score}
        for method, found in scores.items()
        for seed, score in enumerate(found)
    ]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"poor": [0.40, 0.42], "good": [0.60, 0.62]}, "good is ahead of poor by 20.0 points, more than the spread"),
        ({"poor": [0.3, 0.6], "good": [0.35, 0.65]}, "good is ahead of poor by 5.0 points, no more than the spread"),
        ({"poor": [0.4], "good": [0.6]}, "good is ahead of poor by 20.0 points; with one seed"),
        ({"poor": [0.4, 0.6], "good": [0.6, 0.4]}, "are equal to a tenth of a point."),
        ({"good": [0.6, 0.4]}, "There are no two methods"),
        # A method with another seed's good score is judged on the seeds that both have.
        ({"poor": [0.4, 0.4, 0.99], "good": [0.6, 0.6]}, "good is ahead of poor by 20.0 points, more than"),
    ],
)
def test_the_outcome_is_said_in_one_sentence(scores: dict[str, list[float]], words: str) -> None:
    assert words in outcome(scored(**scores))


def test_the_report_writes_tables_figures_and_significance(results: Results, tmp_path: Path) -> None:
    write_files(results, ["poor", "good"])
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
        "report.html",
        "wrong_rows.json",
    }
    page = ElementTree.fromstring(
        written["report.html"].replace("<!doctype html>", "").replace('<meta charset="utf-8">', "")
    )
    # Scores, differences, what they took, transfer of two methods; F1 and confusion of each task.
    assert len(page.findall(".//table")) == 5 + 2 * 3 and written["report.html"].count("<svg") == 3 + 2
    assert "| poor | mean over tasks (K=16) | +" in written["significance.md"]
    assert all(word in written["scores.svg"] for word in ("poor", "good", "a (K=4)"))
    assert "a (K=16)" in written["learning_curves.svg"] and "a (K=4)" not in written["learning_curves.svg"]
    write_files(results, ["poor", "good"])
    assert all((folder / name).read_text() == text for name, text in written.items())


def test_rows_that_most_cells_label_wrongly_come_first_and_stay_in_the_report(results: Results, tmp_path: Path) -> None:
    details = [read_details(results.run_dir, r) for r in results.records if (r["task"], r["k"]) == ("a", 16)]
    wrong = sum((np.argmax(cell["scores"], axis=1) != cell["labels"]).astype(int) for cell in details)
    rows = [Row({"text": f"row {number}"}, number % 2) for number in range(NUM_ROWS)]
    write_files(results, ["poor", "good"], {"a": rows})
    write_files(results, ["poor", "good"])
    kept = json.loads((tmp_path / "fewshot" / "wrong_rows.json").read_text())["a"]
    counts = [sum(int(cell.split("/")[0]) for cell in row[3:]) for row in kept["rows"]]
    assert counts == sorted(wrong, reverse=True)[: len(counts)]
    for text, given, taken_for, *_ in kept["rows"]:
        number = int(text.removeprefix("row "))
        assert {given, taken_for} == {"bad", "good"} and given == ["bad", "good"][number % 2]
    assert kept["rows"][0][0] in (tmp_path / "fewshot" / "report.html").read_text()


def test_tables_of_mistakes_agree_with_the_scores(results: Results) -> None:
    record = next(record for record in results.records if record["method"] == "good")
    details = read_details(results.run_dir, record)
    predictions, labels = np.argmax(details["scores"], axis=1), np.asarray(details["labels"])
    found = Predicted(predictions[None], labels, ["bad", "good"])
    counts = np.asarray([[int(cell) for cell in row[1:]] for row in confusion_table("good", found).rows])
    assert counts.trace() / counts.sum() == pytest.approx(record["score"])
    expected = [2 * counts[c, c] / (counts[c].sum() + counts[:, c].sum()) for c in range(2)]
    assert [float(cell) / 100 for cell in f1_table({"good": found}).rows[0][1:]] == pytest.approx(expected, abs=1e-3)


def test_reading_the_tasks_is_not_silent(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.1)
    slow = comparison_module.load_rows
    monkeypatch.setattr(comparison_module, "load_rows", lambda *arguments: (time.sleep(0.5), slow(*arguments))[1])
    caplog.set_level(logging.INFO, "supmer")
    prepare_tasks(config)
    assert any("0 of 1 tasks" in message for message in caplog.messages)


def test_cells_computed_in_this_process_need_no_ray_and_are_those_of_any_runner(config: Config) -> None:
    here = with_settings(config, {"fewshot.concurrency": 0, "fewshot.methods": ["zero_shot", "prompt_tuning"]})
    records = run_fewshot(here)
    assert not ray.is_initialized()
    runner = CellRunner(config, prepare_tasks(config), StartingPoints())
    alone = [runner.run(Cell("colour", 0, method, 0, 4, 0)) for method in ("zero_shot", "prompt_tuning")]
    assert [(record["score"], record["dev_score"]) for record in records] == [(cell.score, cell.dev_score) for cell in alone]
    assert run_fewshot(here) == records  # seconds included: not computed again
