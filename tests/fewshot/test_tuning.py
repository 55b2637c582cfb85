from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from supmer.cli import validate
from supmer.config import Config, FewshotConfig, RegularizerConfig
from supmer.errors import UserError
from supmer.fewshot.cells import Cell, CellRunner, PreparedTask, cap_test_rows, cell_keys, plan_cells, transfer_targets
from supmer.fewshot.data import Row, TaskRows, draw_split
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.methods import METHODS
from supmer.fewshot.run import prepare_tasks
from supmer.fewshot.starting_points import StartingPoints
from supmer.fewshot.task import Task
from supmer.fewshot.template import Template
from supmer.fewshot.tuning import Bench, CurvePoint, FewShotRows, best_point, keep_best, prompt_gradient, tune_prompt
from supmer.model.prompted import build_model
from supmer.model.regularizer import GradientRegularizer

WIDTH = 32


def changed(config: Config, **settings: object) -> Config:
    return validate({**config.model_dump(), "fewshot": {**config.fewshot.model_dump(), **settings}})


@pytest.fixture
def start() -> Tensor:
    return torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def regularizer() -> GradientRegularizer:
    settings = RegularizerConfig(init="xavier", rank=8, norm="matrix_l2")
    return GradientRegularizer(WIDTH, settings, torch.Generator().manual_seed(2)).requires_grad_(False)


@pytest.fixture
def bench(config: Config, start: Tensor, regularizer: GradientRegularizer) -> Bench:
    return Bench(config, build_model(config), start, regularizer, start + 1)


@pytest.fixture
def rows(config: Config, tokenizer: PreTrainedTokenizerBase) -> FewShotRows:
    prepared = prepare_tasks(config)["colour"]
    words = LabelWords(prepared.task.label_words, tokenizer, "colour")
    template = Template(prepared.task, prepared.task.patterns[0], words, tokenizer, config.max_input_tokens)
    encoded = template.encode(prepared.rows.train[:48])
    return FewShotRows(words, encoded[:32], encoded[32:], "accuracy", seed=0)


def test_the_gradient_is_that_of_the_mean_loss_however_the_batch_is_split(
    config: Config, bench: Bench, rows: FewShotRows, start: Tensor
) -> None:
    batch = rows.train[:7]
    plain = AutoModelForSeq2SeqLM.from_pretrained(config.backbone.name, dtype=torch.float64).eval()
    bench.model.double()
    start = start.double()
    prompt = start.clone().requires_grad_()
    losses, states = [], []
    for example in batch:
        embedded = torch.cat([prompt, plain.get_input_embeddings()(torch.from_numpy(example.input_ids).long())]).unsqueeze(0)
        labels = torch.from_numpy(example.target_ids).long().unsqueeze(0)
        output = plain(inputs_embeds=embedded, labels=labels)
        losses.append(output.loss * labels.numel())  # transformers averages over positions, section 3 sums
        states.append(output.encoder_last_hidden_state[0])
    loss = torch.stack(losses).mean()
    (expected,) = torch.autograd.grad(loss, prompt)
    one_pass = prompt_gradient(replace(bench, config=with_budget(config, 10_000)), start.requires_grad_(), batch)
    many = prompt_gradient(replace(bench, config=with_budget(config, 100)), start, batch)
    for found in (one_pass, many):
        torch.testing.assert_close(found.gradient, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.hidden, torch.cat(states).mean(dim=0).detach(), rtol=1e-5, atol=1e-5)
        assert found.loss == pytest.approx(loss.item(), rel=1e-6)


def with_budget(config: Config, tokens: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"max_tokens_per_microbatch": tokens})})


def test_tuning_lowers_the_loss(bench: Bench, rows: FewShotRows, start: Tensor) -> None:
    config = changed(bench.config, steps=60, eval_every=20, learning_rate=0.3)
    tuned = tune_prompt(replace(bench, config=config), rows, start)
    assert [point.step for point in tuned.curve] == [20, 40, 60]
    assert tuned.curve[-1].loss < 0.9 * tuned.curve[0].loss
    assert tuned.dev_score == max(point.dev_score for point in tuned.curve)


def test_supmer_steps_along_the_bent_gradient(
    bench: Bench, rows: FewShotRows, start: Tensor, regularizer: GradientRegularizer
) -> None:
    bench = replace(bench, config=changed(bench.config, steps=1, batch_size=len(rows.train)))
    tuned = METHODS["supmer"].tune(bench, rows)
    raw = prompt_gradient(bench, start.clone().requires_grad_(), rows.train)
    bent = regularizer(raw.gradient.unsqueeze(0), raw.hidden.unsqueeze(0)).gradient[0]
    expected = start - 0.1 * bent / (bent.abs() + 1e-8)  # the first step of Adam
    torch.testing.assert_close(tuned.prompt, expected, rtol=1e-3, atol=1e-3)
    plain = METHODS["supmer_no_regularizer"].tune(bench, rows)
    assert not torch.allclose(plain.prompt, tuned.prompt, atol=1e-2)


def test_methods_start_where_they_should(bench: Bench, rows: FewShotRows, start: Tensor) -> None:
    bench = replace(bench, config=changed(bench.config, steps=1, learning_rate=1e-9))
    torch.testing.assert_close(METHODS["supmer"].tune(bench, rows).prompt, start)
    torch.testing.assert_close(METHODS["ppt"].tune(bench, rows).prompt, start + 1)
    table = bench.model.backbone.get_input_embeddings().weight
    vanilla = METHODS["prompt_tuning"].tune(bench, rows).prompt
    assert torch.cdist(vanilla, table).min(dim=1).values.max() < 1e-5
    assert METHODS["zero_shot"].tune(bench, rows).prompt.shape == (0, WIDTH)


def test_fine_tuning_changes_a_copy_only(bench: Bench, rows: FewShotRows) -> None:
    before = {name: tensor.clone() for name, tensor in bench.model.state_dict().items()}
    bench = replace(bench, config=changed(bench.config, steps=40, eval_every=10, fine_tuning_rate=3e-3))
    tuned = METHODS["fine_tuning"].tune(bench, rows)
    assert tuned.curve[-1].loss < tuned.curve[0].loss
    assert all(torch.equal(tensor, before[name]) for name, tensor in bench.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in bench.model.parameters())
    changed_head = tuned.model.backbone.get_output_embeddings().weight
    assert not torch.equal(changed_head, bench.model.backbone.get_output_embeddings().weight)


def test_the_best_prompt_is_kept_not_the_last(rows: FewShotRows) -> None:
    scores = iter([0.5, 0.8, 0.8, 0.7])
    kept: list[int] = []
    seen: list[int] = []

    def step(batch: list[object]) -> float:
        seen.append(len(batch))
        return 1.0

    settings = FewshotConfig(steps=7, eval_every=2, batch_size=5)
    curve = keep_best(settings, rows, step, lambda: next(scores), lambda: kept.append(len(seen)))  # type: ignore[arg-type]
    assert kept == [2, 4]
    assert seen == [5] * 7
    assert best_point(curve) == CurvePoint(4, 1.0, 0.8)


def test_the_cap_keeps_all_classes_of_a_sorted_file() -> None:
    rows = TaskRows([], [Row({"a": str(i)}, i // 50) for i in range(100)])
    capped = cap_test_rows(rows, 30)
    assert len(capped.test) == 30 and capped == cap_test_rows(rows, 30)
    assert 5 < sum(row.label for row in capped.test) < 25
    assert cap_test_rows(rows, None) is rows and cap_test_rows(rows, 100) is rows


def test_a_cell_repeats_exactly_and_its_score_is_that_of_its_predictions(config: Config) -> None:
    tasks = prepare_tasks(config)
    cell = Cell("colour", 0, "prompt_tuning", 0, 4)
    runner = CellRunner(config, tasks, StartingPoints())
    first, second = runner.run(cell), runner.run(cell)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.prompt, second.prompt)
    assert first.score == np.mean(first.scores.argmax(axis=1) == np.asarray(first.labels))
    assert (first.num_train, first.num_dev, len(first.labels)) == (8, 8, 80)


def test_one_command_plans_several_k_whose_rows_are_nested(config: Config) -> None:
    config = changed(config, k=[2, 4], methods=["zero_shot"], steps=1)
    tasks = prepare_tasks(config)
    cells = plan_cells(config, tasks)
    assert [(cell.k, cell.seed) for cell in cells] == [(2, 0), (4, 0)]
    few, more = (set(draw_split(tasks["colour"].task, tasks["colour"].rows.train, cell.k, 0).train) for cell in cells)
    assert few < more
    assert changed(config, k=4).fewshot.k == [4]
    with pytest.raises(UserError, match=r"fewshot\.k"):
        changed(config, k=[4, 0])
    with pytest.raises(UserError, match=r"fewshot\.k=100: task colour has only"):
        prepare_tasks(changed(config, k=[4, 100]))


def test_keys_change_with_what_matters_only(config: Config, start: Tensor) -> None:
    config = changed(config, methods=["prompt_tuning", "supmer_no_regularizer"])
    tasks = prepare_tasks(config)
    cells = plan_cells(config, tasks)

    def keys(other: Config = config, points: StartingPoints | None = None) -> list[str]:
        return list(cell_keys(other, tasks, points or StartingPoints(start), cells).values())

    assert keys(changed(config, concurrency=2, data_dir="elsewhere")) == keys()
    assert not set(keys(changed(config, steps=7))) & set(keys())
    other_prompt = keys(points=StartingPoints(start + 1))
    assert other_prompt[0] == keys()[0] and other_prompt[1] != keys()[1]
    assert len(set(keys())) == len(cells) == 2
    own_rate = keys(changed(config, learning_rates={"prompt_tuning": 0.01, "ppt": 0.5}))
    assert own_rate[1] == keys()[1] and own_rate[0] == keys(changed(config, learning_rate=0.01))[0] != keys()[0]


def test_a_method_is_tuned_at_its_own_rate(config: Config) -> None:
    cell = Cell("colour", 0, "prompt_tuning", 0, 4)

    def tuned(**settings: object) -> np.ndarray:
        other = changed(config, **settings)
        return CellRunner(other, prepare_tasks(other), StartingPoints()).run(cell).prompt

    np.testing.assert_array_equal(tuned(learning_rates={"prompt_tuning": 0.5}), tuned(learning_rate=0.5))
    np.testing.assert_array_equal(tuned(learning_rates={"supmer": 0.5}), tuned())
    assert not np.array_equal(tuned(learning_rate=0.5), tuned())


def test_transfer_goes_to_tasks_of_the_same_format_without_shared_text() -> None:
    def task(name: str, form: str, shares: tuple[str, ...] = ()) -> PreparedTask:
        definition = Task(
            name=name, format=form, patterns=["{a} <X>"], label_words=["bad", "good"], shares_text_with=list(shares)
        )
        return PreparedTask(definition, TaskRows([], []))

    tasks = {
        "a": task("a", "single", ("b",)),
        "b": task("b", "single"),
        "c": task("c", "single"),
        "d": task("d", "pair"),
    }
    assert transfer_targets(tasks, "a") == ["c"]
    assert transfer_targets(tasks, "b") == ["c"]
    assert transfer_targets(tasks, "c") == ["a", "b"]
    assert transfer_targets(tasks, "d") == []


def test_a_tuned_prompt_is_scored_on_the_other_task_under_its_own_pattern_and_words(config: Config, task_file: Path) -> None:
    other = task_file.with_name("other.yaml")
    other.write_text(task_file.read_text().replace("colour", "other").replace("[bad, good]", "[good, okay]"))
    config = changed(config, tasks=[str(task_file), str(other)], transfer=True)
    runner = CellRunner(config, prepare_tasks(config), StartingPoints())
    there = runner.run(Cell("colour", 0, "zero_shot", 0, 4))
    own = runner.run(Cell("other", 0, "zero_shot", 0, 4))
    (transfer,) = there.transfer
    assert (transfer.target, transfer.score, transfer.num_test) == ("other", own.score, 80)
    assert there.score != own.score
