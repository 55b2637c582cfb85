from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fewshot_material import result_of
from safetensors.numpy import load_file

from supmer.fewshot.cells import Cell
from supmer.fewshot.results import Results, read_details
from supmer.fewshot.summaries import summarize

CELL = Cell("sst-2", 0, "supmer", 1, 16, 1)


def test_a_line_has_the_contracts_keys_and_details_lie_beside_it(tmp_path: Path) -> None:
    record = Results(str(tmp_path)).add(result_of(CELL), "key")
    (line,) = (tmp_path / "fewshot.jsonl").read_text().splitlines()
    assert json.loads(line) == record
    expected = {"task": "sst-2", "method": "supmer", "seed": 1, "k": 16, "metric": "accuracy", "score": 0.5, "num_test": 2}
    assert expected.items() <= record.items()
    details = read_details(str(tmp_path), record)
    assert np.argmax(details["scores"], axis=1).tolist() == [1, 0] and details["curve"][0]["step"] == 4
    prompt = load_file(tmp_path / "fewshot" / CELL.name / "prompt.safetensors")["prompt"]
    assert prompt.shape == (3, 2)
    (transfer,) = map(json.loads, (tmp_path / "transfer.jsonl").read_text().splitlines())
    assert (transfer["source"], transfer["target"], transfer["score"]) == ("sst-2", "other", 0.4)


def test_finished_cells_are_found_again_and_changed_ones_replaced(tmp_path: Path) -> None:
    other = Cell("sst-2", 0, "supmer", 2, 16, 2)
    results = Results(str(tmp_path))
    results.add(result_of(CELL), "key")
    results.add(result_of(other), "key")
    again = Results(str(tmp_path))
    assert again.is_finished(CELL, "key") and not again.is_finished(CELL, "changed settings")
    again.add(result_of(CELL, score=0.9), "changed settings")
    assert [record["score"] for record in again.of([CELL, other])] == [0.9, 0.5]
    assert len(Results(str(tmp_path)).records) == len(Results(str(tmp_path)).transfer) == 2


def test_cells_that_differ_in_the_training_seed_lie_beside_each_other(tmp_path: Path) -> None:
    results = Results(str(tmp_path))
    other = replace(CELL, training_seed=7)
    results.add(result_of(CELL), "key")
    results.add(result_of(other, score=0.9), "key")
    assert [record["score"] for record in Results(str(tmp_path)).of([CELL, other])] == [0.5, 0.9]
    assert len(results.transfer) == 2 and CELL.name != other.name
    assert read_details(str(tmp_path), results.of([other])[0])["record"]["score"] == 0.9


def test_lines_of_one_seed_are_read_as_trained_under_the_data_seed(tmp_path: Path) -> None:
    """Earlier versions wrote no training seed: their cells are found, shown, and not computed again."""
    Results(str(tmp_path)).add(result_of(CELL), "key")
    for file in (tmp_path / "fewshot.jsonl", tmp_path / "transfer.jsonl"):
        line = json.loads(file.read_text())
        file.write_text(json.dumps({name: value for name, value in line.items() if name != "training_seed"}) + "\n")
    results = Results(str(tmp_path))
    assert results.is_finished(CELL, "key") and not results.is_finished(replace(CELL, training_seed=0), "key")
    assert read_details(str(tmp_path), results.records[0])["labels"] == [0, 0]
    assert summarize(results.records).rows == ["sst-2"]
    assert [line["training_seed"] for line in results.transfer] == [1]


def test_a_damaged_line_costs_only_its_cell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Results(str(tmp_path)).add(result_of(CELL), "key")
    with (tmp_path / "fewshot.jsonl").open("a") as file:
        file.write('{"task": "sst-2", "meth')
    with caplog.at_level(logging.WARNING):
        results = Results(str(tmp_path))
    assert "1 damaged lines are left out, the first is line 2" in caplog.text
    assert results.is_finished(CELL, "key")
    results.add(result_of(Cell("subj", 0, "supmer", 1, 16, 1)), "key")
    assert len(Results(str(tmp_path)).records) == 2


def test_tables_give_mean_sample_deviation_and_minimum() -> None:
    records = [
        {"task": "trec", "method": method, "seed": seed, "training_seed": seed, "k": 16, "pattern": 0, "score": score}
        for method, scores in (("prompt_tuning", [0.4, 0.6]), ("supmer", [0.7]))
        for seed, score in enumerate(scores)
    ]
    grid = summarize(records)
    assert grid.table().markdown().splitlines()[2] == "| trec | 50.0 ± 14.1 (40.0) | 70.0 |"
    latex = grid.table().latex(bold=grid.best())
    assert r"trec & 50.0 $\pm$ 14.1 (40.0) & \textbf{70.0} \\" in latex and r"prompt\_tuning" in latex


def test_rows_of_several_k_and_patterns_are_kept_apart() -> None:
    line = {"task": "trec", "method": "supmer", "seed": 0, "training_seed": 0, "score": 0.5}
    grid = summarize([{**line, "k": 4, "pattern": 0}, {**line, "k": 16, "pattern": 1}])
    assert grid.rows == ["trec (K=4)", "trec (K=16, pattern 1)"]
