from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from fewshot_material import result_of
from safetensors.numpy import load_file

from supmer.fewshot.cells import Cell
from supmer.fewshot.results import Results, read_details
from supmer.fewshot.tables import latex_table, markdown_table, summarize

CELL = Cell("sst-2", 0, "supmer", 1, 16)


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
    other = Cell("sst-2", 0, "supmer", 2, 16)
    results = Results(str(tmp_path))
    results.add(result_of(CELL), "key")
    results.add(result_of(other), "key")
    again = Results(str(tmp_path))
    assert again.is_finished(CELL, "key") and not again.is_finished(CELL, "changed settings")
    again.add(result_of(CELL, score=0.9), "changed settings")
    assert [record["score"] for record in again.of([CELL, other])] == [0.9, 0.5]
    assert len(Results(str(tmp_path)).records) == len(Results(str(tmp_path)).transfer) == 2


def test_a_damaged_line_costs_only_its_cell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Results(str(tmp_path)).add(result_of(CELL), "key")
    with (tmp_path / "fewshot.jsonl").open("a") as file:
        file.write('{"task": "sst-2", "meth')
    with caplog.at_level(logging.WARNING):
        results = Results(str(tmp_path))
    assert "line 2 is damaged" in caplog.text
    assert results.is_finished(CELL, "key")
    results.add(result_of(Cell("subj", 0, "supmer", 1, 16)), "key")
    assert len(Results(str(tmp_path)).records) == 2


def test_tables_give_mean_and_sample_deviation() -> None:
    records = [
        {"task": "trec", "method": method, "seed": seed, "k": 16, "pattern": 0, "score": score}
        for method, scores in (("prompt_tuning", [0.4, 0.6]), ("supmer", [0.7]))
        for seed, score in enumerate(scores)
    ]
    grid = summarize(records)
    assert markdown_table(grid).splitlines()[2] == "| trec | 50.0 ± 14.1 | 70.0 |"
    assert r"trec & 50.0 {\scriptsize $\pm$ 14.1} & \textbf{70.0} \\" in latex_table(grid)
    assert r"prompt\_tuning" in latex_table(grid)


def test_rows_of_several_k_and_patterns_are_kept_apart() -> None:
    line = {"task": "trec", "method": "supmer", "seed": 0, "score": 0.5}
    grid = summarize([{**line, "k": 4, "pattern": 0}, {**line, "k": 16, "pattern": 1}])
    assert grid.rows == ["trec (K=4)", "trec (K=16, pattern 1)"]
