"""Weights of classes in the loss: the oracle is the same tuning on rows that are repeated as often as they weigh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fewshot_material import PROMPT_LENGTH, WIDTH
from transformers import PreTrainedTokenizerBase

from supmer.config import Config, RegularizerConfig
from supmer.config.load import with_settings
from supmer.fewshot.cell_runner import CellRunner, build_template
from supmer.fewshot.cells import Cell, PreparedTask, cell_keys
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.data import class_weights
from supmer.fewshot.methods import METHODS
from supmer.fewshot.starting_points import StartingPoints
from supmer.fewshot.task import Task
from supmer.fewshot.tuning import Context, FewShotRows
from supmer.model.build import build_model
from supmer.model.regularizer import GradientRegularizer

STEPS = 3


@pytest.mark.parametrize(
    ("weights", "labels", "expected"),
    [
        (None, [0, 0, 1], None),
        ("balanced", [0, 1, 0, 0, 0, 2, 2, 1], [8 / 12, 8 / 6, 8 / 6]),  # N / (C n_c)
        ({"b": 3.0}, [0, 1, 2, 2], [2 / 3, 2.0, 2 / 3]),
        ({"a": 6.0, "b": 18.0, "c": 6.0}, [0, 1, 2, 2], [2 / 3, 2.0, 2 / 3]),  # only ratios matter
    ],
)
def test_weights_of_classes(weights: object, labels: list[int], expected: list[float] | None) -> None:
    task = Task.model_validate(
        {"name": "t", "patterns": ["{x} <X>"], "label_words": ["a", "b", "c"], "label_weights": weights}
    )
    assert class_weights(task, labels) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "zero_shot"])
def test_a_weight_is_as_good_as_repeated_rows(config: Config, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    task, rows = (prepared := prepare_tasks(config)["colour"]).task, prepared.rows.train
    template = build_template(config, task, 0, tokenizer, METHODS[name].form)
    encoded = [template.encode([row for row in rows if row.label == label]) for label in (0, 1)]
    bad, good = encoded[0][:4], encoded[1][:2]
    weights = class_weights(task.model_copy(update={"label_weights": "balanced"}), [0, 0, 0, 0, 1, 1])
    start = torch.randn(PROMPT_LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))
    regularizer = GradientRegularizer(WIDTH, RegularizerConfig(init="xavier", rank=8), torch.Generator().manual_seed(2))

    def losses(train: list, weights: list[float] | None) -> list[float]:
        steps = {"steps": STEPS, "eval_every": 1, "batch_size": len(train)}
        perfect = {f"fewshot.perfect.{setting}": value for setting, value in steps.items()}
        settings = with_settings(config, {f"fewshot.{setting}": value for setting, value in steps.items()} | perfect)
        model = build_model(settings)
        context = Context(settings, model, start, regularizer.requires_grad_(False), start, start, tokenizer)
        curve = METHODS[name].tune(context, FewShotRows(template.words, train, bad, ["accuracy"], 0, weights)).curve
        return [point.loss for point in curve]

    weighted, repeated = losses([*bad, *good], weights), losses([*bad, *good, *good], None)
    # What psi does to the gradient also depends on the mean state of the rows, and rows count there once.
    num_equal = 1 if name == "supmer" else STEPS
    assert weighted[:num_equal] == pytest.approx(repeated[:num_equal], rel=1e-4)
    assert losses([*bad, *good], None) != pytest.approx(weighted, rel=1e-3)


@pytest.mark.parametrize("weights", ["balanced", {"good": 5.0}])
def test_a_task_says_so_and_other_cells_stay_finished(config: Config, weights: object) -> None:
    cell = Cell("colour", 0, "prompt_tuning", 0, 6, 0)
    tasks = prepare_tasks(config)
    own = tasks["colour"]
    # Nine rows of one class: K = 6 takes five of them, and six of the other class.
    nine = [row for row in own.rows.train if row.label == 1][:9]
    rows = own.rows._replace(train=[*(row for row in own.rows.train if row.label == 0), *nine])
    found = {}
    for name, value in (("none", None), ("equal", {"bad": 2.0, "good": 2.0}), ("weights", weights)):
        task = Task.model_validate(own.task.model_dump() | {"label_weights": value})
        prepared = {"colour": PreparedTask(task, rows)}
        key = cell_keys(config, prepared, StartingPoints(), [cell])[cell]
        found[name] = key, CellRunner(config, prepared, StartingPoints()).run(cell)
    assert len({key for key, _ in found.values()}) == 3
    prompts = {name: result.prompt for name, (_, result) in found.items()}
    np.testing.assert_allclose(prompts["equal"], prompts["none"])
    assert not np.allclose(prompts["weights"], prompts["none"], atol=1e-3)
    before = Task.model_validate(own.task.model_dump(exclude={"label_weights"}))
    assert PreparedTask(before, rows).digest == PreparedTask(own.task, rows).digest


def test_weights_of_a_task_file(config: Config, task_file: Path) -> None:
    file = task_file.with_name("weighted.yaml")
    file.write_text(task_file.read_text() + "label_weights: {good: 2}\n")
    tasks = prepare_tasks(with_settings(config, {"fewshot.tasks": [str(file)]}))
    assert tasks["colour"].task.label_weights == {"good": 2.0}
