"""The few-shot score of a trial: the dev scores that the few-shot job gives from the same prompt, whatever the test rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fewshot_material import WIDTH, job_settings, make_backbone, make_run, make_task
from safetensors.torch import load_file

from supmer.config.load import validate, with_settings
from supmer.fewshot.cell_runner import CellRunner
from supmer.fewshot.cells import plan_cells
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.starting_points import read_starting_points
from supmer.tune.fewshot_score import dev_score


def test_the_score_is_the_mean_dev_score_of_the_few_shot_job(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "t5")
    (tmp_path / "task").mkdir()
    task, run = make_task(tmp_path / "task"), make_run(tmp_path / "run")
    prompt = load_file(run / "prompt.safetensors")
    regularizer = {f"regularizer.{name}": value for name, value in load_file(run / "regularizer.safetensors").items()}
    for method, state in (("supmer", prompt | regularizer), ("supmer_no_regularizer", prompt)):
        settings = {"fewshot.methods": [method], "fewshot.seeds": [0, 1], "fewshot.from_run": str(run)}
        config = with_settings(validate(job_settings(backbone, task, tmp_path)), settings)
        tasks = prepare_tasks(config)
        points = read_starting_points(config, frozenset({"prompt", "regularizer"}), WIDTH)
        runner = CellRunner(config, tasks, points)
        expected = np.mean([runner.run(cell).dev_score for cell in plan_cells(config, tasks)])

        test_rows = tmp_path / "task" / "test.jsonl"
        rows = [json.loads(line) for line in test_rows.read_text().splitlines()]
        test_rows.write_text("".join(json.dumps(row | {"label": 1 - row["label"]}) + "\n" for row in rows))
        assert dev_score(with_settings(config, {"fewshot.methods": ["prompt_tuning"]}), state) == pytest.approx(expected)
