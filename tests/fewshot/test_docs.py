"""The task files in docs/fewshot.md, run as a new user would."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fewshot_material import sentences

from supmer.config import Config
from supmer.config.load import validate
from supmer.fewshot.cell_runner import CellRunner
from supmer.fewshot.cells import Cell
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.starting_points import StartingPoints

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fewshot.md"


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """The files a new user has: the page's YAML, and JSONL with the columns it names."""
    for text in re.findall(r"```yaml\n(# \S+\.yaml\n.*?)```", PAGE.read_text(), re.DOTALL):
        (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
        assert len(text.splitlines()) <= 15
    texts = sentences(80)
    sections, options = ["sport", "business", "science", "travel"], ["first", "second", "third"]
    rows: dict[str, list[dict[str, object]]] = {
        "topics": [{"headline": text, "section": sections[i % 4]} for i, text in enumerate(texts)],
        "claims": [{"body": f"{text} " * 20, "claim": texts[i - 1], "label": i % 2} for i, text in enumerate(texts)],
        "quiz": [
            {"question": text, **{option: f"{option} {text} " * 5 for option in options}, "answer": options[i % 3]}
            for i, text in enumerate(texts)
        ],
    }
    for name, records in rows.items():
        (tmp_path / name).mkdir()
        for split, part in (("train", records[:60]), ("test", records[60:])):
            (tmp_path / name / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in part))
    return tmp_path


def test_the_tasks_of_the_page_run(user_folder: Path, config: Config) -> None:
    files = [str(user_folder / name) for name in ("topics.yaml", "claims.yaml", "quiz.yaml")]
    config = validate({**config.model_dump(), "fewshot": {**config.fewshot.model_dump(), "tasks": files, "steps": 2}})
    tasks = prepare_tasks(config)
    runner = CellRunner(config, tasks, StartingPoints())
    for name, num_classes, num_patterns in (("topics", 4, 2), ("claims", 2, 1), ("quiz", 3, 1)):
        assert len(tasks[name].task.patterns) == num_patterns
        result = runner.run(Cell(name, num_patterns - 1, "prompt_tuning", 0, 4, 0))
        assert result.scores.shape == (20, num_classes)
        assert 0 <= result.score <= 1
