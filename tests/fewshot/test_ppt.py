"""PPT with a prompt for each format of tasks, and Unified PPT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fewshot_material import PROMPT_LENGTH, make_run
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from supmer.config import Config
from supmer.config.load import validate
from supmer.errors import UserError
from supmer.fewshot.cell_runner import CellRunner, build_template
from supmer.fewshot.cells import Cell, cell_keys
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.forms import asked
from supmer.fewshot.starting_points import StartingPoints, read_starting_points
from supmer.fewshot.task import load_task

WIDTH = 32


def changed(config: Config, **settings: object) -> Config:
    return validate({**config.model_dump(), "fewshot": {**config.fewshot.model_dump(), **settings}})


def prompt(seed: int) -> torch.Tensor:
    return torch.randn(PROMPT_LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))


def run_of(folder: Path, seed: int) -> str:
    make_run(folder)
    save_file({"prompt": prompt(seed)}, folder / "prompt.safetensors")
    return str(folder)


def test_each_task_takes_the_prompt_of_its_format(config: Config, tmp_path: Path) -> None:
    runs = {name: run_of(tmp_path / name, seed) for seed, name in enumerate(("single", "pair"))}
    config = changed(config, methods=["ppt"], ppt_run=runs, steps=1, learning_rate=1e-30)
    points = read_starting_points(config, ["ppt_prompt"], WIDTH, ["single"])
    tasks = prepare_tasks(config)
    result = CellRunner(config, tasks, points).run(Cell("colour", 0, "ppt", 0, 4, 0))
    torch.testing.assert_close(torch.from_numpy(result.prompt), prompt(0))
    one = read_starting_points(changed(config, ppt_run=runs["single"]), ["ppt_prompt"], WIDTH, ["single"])
    cells = [Cell("colour", 0, "ppt", 0, 4, 0)]
    assert cell_keys(config, tasks, points, cells) == cell_keys(config, tasks, one, cells)
    with pytest.raises(UserError, match=r"fewshot\.ppt_run=.*: must name a run for the tasks of format multi_choice"):
        read_starting_points(config, ["ppt_prompt"], WIDTH, ["single", "multi_choice"])
    with pytest.raises(UserError, match=r"fewshot\.ppt_run"):
        changed(config, ppt_run={"pairs": "runs/x"})


CHOICES = {
    "sst-5": "{text} ? A. terrible . B. bad . C. okay . D. good . E. great . ? The correct one is <X>",
    "rte": "{hypothesis} {premise} ? A. yes . B. no . ? The correct one is <X>",
    "wic": "{sentence1} {sentence2} {word} ? A. No . B. Yes . ? The correct one is <X>",
}


@pytest.mark.parametrize("name", CHOICES)
def test_tasks_as_multiple_choice(name: str) -> None:
    task = asked(load_task(name), "choices")
    assert task.patterns == [CHOICES[name]]
    assert task.answers == list("ABCDE"[: len(task.label_words)]) and task.label_words == load_task(name).label_words


def test_unified_ppt_says_letters_and_names_label_words(
    config: Config, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    config = changed(config, methods=["unified_ppt"], unified_ppt_run=run_of(tmp_path / "nss", 5), steps=1)
    tasks = prepare_tasks(config)
    points = read_starting_points(config, ["unified_ppt_prompt"], WIDTH, ["single"])
    template = build_template(config, tasks["colour"].task, 0, tokenizer, "choices")
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "AB"]
    assert [list(ids) for ids in template.words.tokens] == letters
    result = CellRunner(config, tasks, points).run(Cell("colour", 0, "unified_ppt", 0, 4, 0))
    assert result.label_words == ["bad", "good"] and result.definition.task.answers == ["A", "B"]
    assert result.pattern_text == "{text} ? A. bad . B. good . ? The correct one is <X>"
    assert np.isfinite(result.scores).all()
    cell = [Cell("colour", 0, "unified_ppt", 0, 4, 0)]
    other = StartingPoints(unified_ppt_prompt=prompt(6))
    assert cell_keys(config, tasks, points, cell) != cell_keys(config, tasks, other, cell)
    with pytest.raises(UserError, match=r"fewshot\.unified_ppt_run=None"):
        read_starting_points(changed(config, unified_ppt_run=None), ["unified_ppt_prompt"], WIDTH)
