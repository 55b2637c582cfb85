"""A run with a cell of each task and method, for the tests of what tuned prompts are used for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewshot_material import job_settings, make_backbone, make_run, sentences

from supmer.config import Config
from supmer.config.load import validate
from supmer.fewshot.cell_runner import CellRunner
from supmer.fewshot.cells import Cell
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.results import Results
from supmer.fewshot.starting_points import read_starting_points

NUM_TEST = 200
TASKS = {
    # One whose words begin with different tokens, and one whose words share them: their scores are made differently.
    "colour": ("'{first} and {second} It was <X> .'", "[bad, good]", "truncate: [second]"),
    "place": ("'{second} so {first} <X>'", "[red river, red stone, red tower]", "folder: {label: kind, classes: [a, b, c]}"),
}


def make_tasks(folder: Path) -> list[Path]:
    """Write the tasks with rows that are often too long for the model."""
    texts = sentences(1600, seed=1)
    files = []
    for name, (pattern, words, more) in TASKS.items():
        (folder / name).mkdir()
        for split, part in (("train", texts[:400]), ("test", texts[400 : 400 + 4 * NUM_TEST])):
            rows = (
                {"first": a, "second": f"{b}  {c} {d}", "label": i % 2, "kind": "abc"[i % 3]}
                for i, (a, b, c, d) in enumerate(zip(*[iter(part)] * 4, strict=True))
            )
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        file = folder / f"{name}.yaml"
        file.write_text(f"name: {name}\nformat: pair\npatterns: [{pattern}]\nlabel_words: {words}\n{more}\n")
        files.append(file)
    return files


def make_cells(folder: Path) -> Config:
    """Compute the cells and return the run's configuration."""
    settings = job_settings(make_backbone(folder / "t5"), Path(), folder / "runs")
    settings["tasks"]["max_length"] = 68
    settings["fewshot"] |= {
        "tasks": [str(file) for file in make_tasks(folder)],
        "data_dir": str(folder),
        "methods": ["zero_shot", "prompt_tuning", "supmer"],
    }
    make_run(folder / "runs" / "test")
    config = validate(settings)
    tasks = prepare_tasks(config)
    runner = CellRunner(config, tasks, read_starting_points(config, ["prompt", "regularizer"], 32))
    results = Results(config.run_dir)
    for task in TASKS:
        for method in config.fewshot.methods:
            results.add(runner.run(Cell(task, 0, method, 0, 4, training_seed=0)), "key")
    return config


def rows_of(run: Config) -> dict[str, list[dict[str, Any]]]:
    """Return the test rows of each task."""
    files = {task: Path(run.run_dir).parents[1] / task / "test.jsonl" for task in TASKS}
    return {task: [json.loads(line) for line in file.read_text().splitlines()] for task, file in files.items()}
