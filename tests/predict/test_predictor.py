"""A finished cell's prompt gives the test rows the scores that the cell has, and new rows are read as in tuning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from supmer.config import Config
from supmer.errors import UserError
from supmer.fewshot.results import Results
from supmer.predict.predictor import Predictor, find_cell
from supmer.predict.rows import read_row

Rows = dict[str, list[dict[str, Any]]]


@pytest.mark.parametrize("task", ["colour", "place"])
@pytest.mark.parametrize("method", ["prompt_tuning", "supmer"])
def test_test_rows_get_the_scores_of_the_cell(tuned_run: Config, test_rows: Rows, task: str, method: str) -> None:
    cell = f"{task}.{method}.k4.pattern0.seed0"
    details = json.loads((Path(tuned_run.run_dir) / "fewshot" / cell / "details.json").read_text())
    expected = np.asarray(details["scores"])
    assert len(expected) == 200
    predictor, rows = Predictor.load(tuned_run.run_dir, cell), test_rows[task]
    scores = predictor.scores([read_row(predictor.task, row) for row in rows])
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    found = predictor.predict(rows)
    np.testing.assert_allclose(found.probabilities, softmax(expected, axis=1), atol=1e-5, rtol=0)
    words = details["record"]["label_words"]
    assert found.labels == [words[index] for index in expected.argmax(axis=1)]
    assert expected.std(axis=0).min() > 1e-3


def test_a_cells_folder_is_enough_and_a_row_alone_gets_the_same(tuned_run: Config, test_rows: Rows, tmp_path: Path) -> None:
    cell = "colour.supmer.k4.pattern0.seed0"
    shutil.copytree(Path(tuned_run.run_dir) / "fewshot" / cell, tmp_path / "copy")
    (tmp_path / "copy" / "details.json").unlink()
    rows = test_rows["colour"][:20]
    together = Predictor.load(tuned_run.run_dir, cell).predict(rows).probabilities
    alone = Predictor.load(str(tmp_path / "copy"))
    for row, expected in zip(rows, together, strict=True):
        only_fields = {"first": row["first"], "second": f" {row['second']}\n"}
        np.testing.assert_allclose(alone.predict([only_fields]).probabilities[0], expected, atol=1e-6)
    nothing = alone.predict([])
    assert nothing.labels == [] and nothing.probabilities.shape == (0, 2)


def test_without_a_name_the_cell_that_is_best_on_dev_is_taken(tuned_run: Config, tmp_path: Path) -> None:
    records = [record for record in Results(tuned_run.run_dir).records if record["task"] == "colour"]
    target = tmp_path / "run"
    shutil.copytree(tuned_run.run_dir, target)
    records[1]["dev_score"], records[2]["dev_score"] = 0.5, 0.75
    (target / "fewshot.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert Path(find_cell(str(target))).name == "colour.supmer.k4.pattern0.seed0"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "--cell must name a cell: .* has prompts of the tasks colour, place"),
        ("nothing", "--cell nothing: must be one of colour.prompt_tuning.k4.pattern0.seed0, "),
        ("colour.zero_shot.k4.pattern0.seed0", "--cell colour.zero_shot.k4.pattern0.seed0: its method leaves no prompt"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_refused(tuned_run: Config, cell: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Predictor.load(tuned_run.run_dir, cell)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"first": "a"}, "row 1: field 'second' is missing"),
        ({"first": "a", "second": None}, "row 1: field 'second' must be text, not NoneType"),
        ({"first": ["a"], "second": "b"}, "row 1: field 'first' must be text, not list"),
        ({"first": "\u2003\n", "second": "b"}, "row 1: field 'first' is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tuned_run: Config, row: dict[str, object], message: str) -> None:
    predictor = Predictor.load(tuned_run.run_dir, "colour.supmer.k4.pattern0.seed0")
    with pytest.raises(UserError, match=message):
        predictor.predict([{"first": "a", "second": "b"}, row])


def test_a_folder_without_a_prompt_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--run .*: has no fewshot.jsonl; tune a prompt first"):
        Predictor.load(str(tmp_path))
