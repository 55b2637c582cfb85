"""Cells of methods that train other parts than a prompt, or ask for letters, label rows as they did in the few-shot test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from supmer.config import Config
from supmer.config.load import with_settings
from supmer.errors import UserError
from supmer.fewshot.cell_runner import CellRunner
from supmer.fewshot.cells import Cell
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.definition import read_definition
from supmer.fewshot.results import Results
from supmer.fewshot.starting_points import StartingPoints
from supmer.predict.batch import predict_files
from supmer.predict.predictor import FrozenBackbone, Predictor, read_tuned
from supmer.predict.rows import read_row
from supmer.serve.tasks import cells_of, read_cell

CELLS = {
    "perfect": Cell("colour", 0, "perfect", 0, 4, 0),
    **{name: Cell("colour", 0, name, 0, 4, 0) for name in ("lora", "prefix_tuning", "bitfit")},
    "unified_ppt": Cell("colour", 0, "unified_ppt", 0, 4, 0),
    "prompt_tuning": Cell("colour", 0, "prompt_tuning", 0, 4, 0),
}


@pytest.fixture(scope="module")
def methods(tuned_run: Config) -> Config:
    """A run with a cell of each method."""
    perfect = {"num_masks": 2, "steps": 4, "eval_every": 2, "rate": 1e-2}
    own = {f"fewshot.perfect.{name}": value for name, value in perfect.items()}
    config = with_settings(tuned_run, {"run.name": "methods", "fewshot.methods": list(CELLS), **own})
    start = torch.randn(config.prompt.length, 32, generator=torch.Generator().manual_seed(0))
    runner = CellRunner(config, prepare_tasks(config), StartingPoints(unified_ppt_prompt=start))
    for cell in CELLS.values():
        Results(config.run_dir).add(runner.run(cell), "key")
    return config


def folder_of(config: Config, method: str) -> Path:
    return Path(config.run_dir) / "fewshot" / CELLS[method].name


@pytest.mark.parametrize("method", [name for name in CELLS if name != "prompt_tuning"])
def test_test_rows_get_the_scores_of_the_cell(
    methods: Config, test_rows: dict[str, list[dict[str, Any]]], method: str
) -> None:
    details = json.loads((folder_of(methods, method) / "details.json").read_text())
    predictor = Predictor.load(methods.run_dir, CELLS[method].name)
    scores = predictor.scores([read_row(predictor.task, row) for row in test_rows["colour"]])
    np.testing.assert_allclose(scores, details["scores"], atol=1e-5, rtol=0)
    assert set(predictor.predict(test_rows["colour"][:40]).labels) <= {"bad", "good"}
    assert np.std(scores, axis=0).min() > 1e-4


def test_rows_of_all_methods_together(methods: Config, test_rows: dict[str, list[dict[str, Any]]]) -> None:
    backbone = FrozenBackbone(methods.backbone)
    for method in CELLS:
        definition = read_definition(str(folder_of(methods, method)))
        backbone.add(method, definition, read_tuned(str(folder_of(methods, method)), definition))
    rows = [read_row(definition.task, row) for row in test_rows["colour"][:12]]
    mixed = [(list(CELLS)[index % len(CELLS)], row) for index, row in enumerate(rows)]
    for (method, row), found in zip(mixed, backbone.scores(mixed), strict=True):
        (alone,) = backbone.scores([(method, row)])
        np.testing.assert_allclose(found, alone, atol=1e-5, rtol=0)


def test_files_are_labelled(methods: Config, test_rows: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    rows = test_rows["colour"][:30]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = with_settings(methods, {"predict.actors": 0})
    folder = str(folder_of(methods, "perfect"))
    predict_files(here, folder, None, [str(tmp_path / "rows.jsonl")], str(tmp_path / "out.jsonl"))
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in written] == Predictor.load(folder).predict(rows).labels


@pytest.mark.parametrize("method", ["perfect", "lora", "prefix_tuning", "bitfit"])
def test_parts_that_do_not_fit(methods: Config, tmp_path: Path, method: str) -> None:
    folder = tmp_path / "cell"
    shutil.copytree(folder_of(methods, method), folder)
    parts = load_file(folder / f"{method}.safetensors")
    short = {name: tensor[..., :1].contiguous() for name, tensor in parts.items()}
    for broken in (short, {"a": torch.ones(1)}):
        save_file(broken, folder / f"{method}.safetensors")
        with pytest.raises(UserError, match=f"task colour: the parts of {method} do not fit backbone"):
            Predictor.load(str(folder))
    definition = json.loads((folder / "definition.json").read_text())
    (folder / "definition.json").write_text(json.dumps({**definition, "method": "../../secret"}))
    with pytest.raises(UserError, match=r"definition\.json names a method that leaves no parts"):
        Predictor.load(str(folder))


def test_prompts_alone_are_served(methods: Config) -> None:
    with pytest.raises(UserError, match="method perfect trained no prompt"):
        read_cell("colour", str(folder_of(methods, "perfect")))
    assert Path(cells_of(methods.run_dir)["colour"]).name in {CELLS[name].name for name in ("unified_ppt", "prompt_tuning")}
