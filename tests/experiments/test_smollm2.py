"""Cells of the experiment on SmolLM2 that are scored twice on their way, on a tiny backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewshot_material import make_task
from tiny_run import tiny_overrides, write_tiny_files

from experiments.smollm2.stages import early_run, table
from supmer.config import Config
from supmer.config.load import load_config, with_settings

VARYING = {"seconds", "processor_seconds", "peak_bytes", "record"}
"""What two computations of a cell need not have in common."""


def config_of(folder: Path, run_dir: str) -> Config:
    overrides = tiny_overrides(
        folder,
        f"run.dir={folder / run_dir}",
        f"fewshot.tasks=[{make_task(folder)}]",
        *("fewshot.k=4", "fewshot.steps=4", "fewshot.eval_every=2", "fewshot.methods=[prompt_tuning]", "fewshot.seeds=[0]"),
        "fewshot.schedule=constant",
    )
    return load_config(None, overrides)


def cell_of(config: Config) -> dict[str, Any]:
    (line,) = (Path(config.run_dir) / "fewshot.jsonl").read_text().splitlines()
    (details,) = Path(config.run_dir).glob("fewshot/*/details.json")
    found = json.loads(line) | json.loads(details.read_text())
    return {name: value for name, value in found.items() if name not in VARYING}


def test_a_cell_scored_on_its_way_is_the_cell_that_stops_there(tmp_path: Path) -> None:
    write_tiny_files(tmp_path)
    long, apart = config_of(tmp_path, "long"), early_run(config_of(tmp_path, "apart"))
    lines = [*table(long, early_run(long)), *table(apart)]
    assert cell_of(early_run(long)) == cell_of(apart)
    assert cell_of(long)["curve"][0] == cell_of(apart)["curve"][0]
    assert len(cell_of(long)["curve"]) == 2
    assert len(lines) == 5
    assert list(table(with_settings(long, {"run.name": long.run.name}), early_run(long))) == []
