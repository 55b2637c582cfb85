from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from supmer.backbone.load import load_tokenizer
from supmer.backbone.pieces import ordinary_tokens
from supmer.config import Config, FewshotConfig, RegularizerConfig
from supmer.config.load import validate, with_settings
from supmer.errors import UserError
from supmer.fewshot.cell_runner import CellRunner, transfer_targets
from supmer.fewshot.cells import Cell, PreparedTask, cap_test_rows, cell_keys, plan_cells
from supmer.fewshot.comparison import check_fewshot, prepare_tasks
from supmer.fewshot.comparison_files import write_files
from supmer.fewshot.data import Row, TaskRows, draw_split
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.methods import METHODS, prompt_tuning
from supmer.fewshot.results import Results
from supmer.fewshot.starting_points import StartingPoints
from supmer.fewshot.summaries import summarize
from supmer.fewshot.task import Task
from supmer.fewshot.template import Template
from supmer.fewshot.tuning import Context, CurvePoint, FewShotRows, best_point, keep_best, prompt_gradient, tune_prompt
from supmer.model.build import build_model
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
def context(config: Config, start: Tensor, regularizer: GradientRegularizer) -> Context:
    tokenizer = load_tokenizer(config.backbone)
    return Context(config, build_model(config), start, regularizer, start + 1, tokenizer=tokenizer)


def entries_of(context: Context, prompt: Tensor) -> list[int]:
    """Return the vocabulary entries whose embeddings a prompt is made of."""
    table = context.model.backbone.get_input_embeddings().weight.detach()
    return [int((table == row).all(dim=1).nonzero()[0]) for row in prompt]


def test_a_prompt_starts_from_ordinary_entries_a_text_or_the_label_words(context: Context, rows: FewShotRows) -> None:
    def entries(length: int, **settings: object) -> list[int]:
        config = with_settings(context.config, {"prompt.length": length, "tasks.max_length": 590, **settings})
        return entries_of(context, prompt_tuning.start_of(replace(context, config=config), rows))

    tokenizer = context.tokenizer
    assert tokenizer is not None
    ordinary = set(ordinary_tokens(tokenizer))
    assert ordinary == set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    drawn = entries(500)
    assert set(drawn) <= ordinary and len(set(drawn)) > len(ordinary) / 2
    first = entries(300, **{"prompt.init_entries": 40})
    assert set(first) <= {index for index in ordinary if index < 40}
    text = tokenizer("the red river", add_special_tokens=False)["input_ids"]
    assert entries(len(text) + 2, **{"fewshot.init": "text", "fewshot.init_text": "the red river"}) == [*text, *text[:2]]
    words = [token for word in rows.words.tokens for token in word]
    found = entries(len(words) + 3, **{"fewshot.init": "label_words"})
    assert found[: len(words)] == words and set(found) <= ordinary
    with pytest.raises(UserError, match=r"fewshot\.init_text=None: must be a text"):
        check_fewshot(with_settings(context.config, {"fewshot.init": "text"}))
    with pytest.raises(UserError, match=r"prompt\.init_entries=1: must leave an entry"):
        entries(3, **{"prompt.init_entries": 1})


@pytest.fixture
def rows(config: Config, tokenizer: PreTrainedTokenizerBase) -> FewShotRows:
    prepared = prepare_tasks(config)["colour"]
    words = LabelWords(prepared.task.label_words, tokenizer, "colour")
    template = Template(prepared.task, prepared.task.patterns[0], words, tokenizer, config.max_input_tokens)
    encoded = template.encode(prepared.rows.train[:48])
    return FewShotRows(words, encoded[:32], encoded[32:], ["accuracy"], seed=0)


def test_the_gradient_is_that_of_the_weighted_mean_loss_however_the_batch_is_split(
    config: Config, context: Context, rows: FewShotRows, start: Tensor
) -> None:
    batch, weights = rows.train[:7], [0.5, 2.0, 1.0, 3.0, 0.25, 1.0, 1.5]
    plain = AutoModelForSeq2SeqLM.from_pretrained(config.backbone.name, dtype=torch.float64).eval()
    context.model.double()
    start = start.double()
    prompt = start.clone().requires_grad_()
    losses, states = [], []
    for example in batch:
        embedded = torch.cat([prompt, plain.get_input_embeddings()(torch.from_numpy(example.input_ids).long())]).unsqueeze(0)
        labels = torch.from_numpy(example.target_ids).long().unsqueeze(0)
        output = plain(inputs_embeds=embedded, labels=labels)
        losses.append(output.loss * labels.numel())  # transformers averages over positions, section 3 sums
        states.append(output.encoder_last_hidden_state[0])
    loss = (torch.stack(losses) * torch.tensor(weights)).mean()
    (expected,) = torch.autograd.grad(loss, prompt)
    start = start.requires_grad_()
    one_pass = prompt_gradient(replace(context, config=with_budget(config, 10_000)), start, batch, weights)
    many = prompt_gradient(replace(context, config=with_budget(config, 100)), start, batch, weights)
    for found in (one_pass, many):
        torch.testing.assert_close(found.gradient, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.hidden, torch.cat(states).mean(dim=0).detach(), rtol=1e-5, atol=1e-5)
        assert found.loss.item() == pytest.approx(loss.item(), rel=1e-6)


def with_budget(config: Config, tokens: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"max_tokens_per_microbatch": tokens})})


def test_tuning_lowers_the_loss(context: Context, rows: FewShotRows, start: Tensor) -> None:
    config = changed(context.config, steps=60, eval_every=20, learning_rate=0.3)
    tuned = tune_prompt(replace(context, config=config), rows, start)
    assert [point.step for point in tuned.curve] == [20, 40, 60]
    assert tuned.curve[-1].loss < 0.9 * tuned.curve[0].loss
    assert tuned.dev_score == max(point.dev_score for point in tuned.curve)


def test_supmer_steps_along_the_bent_gradient(
    context: Context, rows: FewShotRows, start: Tensor, regularizer: GradientRegularizer
) -> None:
    context = replace(context, config=changed(context.config, steps=1, batch_size=len(rows.train)))
    tuned = METHODS["supmer"].tune(context, rows)
    raw = prompt_gradient(context, start.clone().requires_grad_(), rows.train, [1.0] * len(rows.train))
    regularized = regularizer(raw.gradient.unsqueeze(0), raw.hidden.unsqueeze(0)).gradient[0]
    expected = start - 0.1 * regularized / (regularized.abs() + 1e-8)  # the first step of Adam
    torch.testing.assert_close(tuned.prompt, expected, rtol=1e-3, atol=1e-3)
    plain = METHODS["supmer_no_regularizer"].tune(context, rows)
    assert not torch.allclose(plain.prompt, tuned.prompt, atol=1e-2)


def test_methods_start_where_they_should(context: Context, rows: FewShotRows, start: Tensor) -> None:
    context = replace(context, config=changed(context.config, steps=1, learning_rate=1e-9))
    torch.testing.assert_close(METHODS["supmer"].tune(context, rows).prompt, start)
    torch.testing.assert_close(METHODS["ppt"].tune(context, rows).prompt, start + 1)
    table = context.model.backbone.get_input_embeddings().weight
    vanilla = METHODS["prompt_tuning"].tune(context, rows).prompt
    assert torch.cdist(vanilla, table, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values.max() < 1e-5
    assert METHODS["zero_shot"].tune(context, rows).prompt.shape == (0, WIDTH)


def test_fine_tuning_changes_a_copy_only(context: Context, rows: FewShotRows) -> None:
    before = {name: tensor.clone() for name, tensor in context.model.state_dict().items()}
    context = replace(context, config=changed(context.config, steps=40, eval_every=10, fine_tuning_rate=3e-3))
    tuned = METHODS["fine_tuning"].tune(context, rows)
    assert tuned.curve[-1].loss < tuned.curve[0].loss
    assert all(torch.equal(tensor, before[name]) for name, tensor in context.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in context.model.parameters())
    changed_head = tuned.model.backbone.get_output_embeddings().weight
    assert not torch.equal(changed_head, context.model.backbone.get_output_embeddings().weight)


def test_the_best_prompt_is_kept_not_the_last(rows: FewShotRows) -> None:
    scores = iter([0.5, 0.8, 0.8, 0.7])
    kept: list[int] = []
    seen: list[int] = []

    def trained() -> dict[str, Tensor]:
        kept.append(len(seen))
        return {"steps": torch.tensor(len(seen))}

    def step(batch: list[object]) -> Tensor:
        seen.append(len(batch))
        return torch.ones(())

    settings = FewshotConfig(steps=7, eval_every=2, batch_size=5)
    curve, best = keep_best(settings, rows, step, lambda: next(scores), trained)  # type: ignore[arg-type]
    assert kept == [2, 4]
    assert seen == [5] * 7
    assert (best_point(curve), best["steps"]) == (CurvePoint(4, 1.0, 0.8), 4)


def test_the_cap_keeps_all_classes_of_a_sorted_file() -> None:
    rows = TaskRows([], [Row({"a": str(i)}, i // 50) for i in range(100)])
    capped = cap_test_rows(rows, 30)
    assert len(capped.test) == 30 and capped == cap_test_rows(rows, 30)
    assert 5 < sum(row.label for row in capped.test) < 25
    assert cap_test_rows(rows, None) is rows and cap_test_rows(rows, 100) is rows


def test_a_cell_repeats_exactly_and_its_score_is_that_of_its_predictions(config: Config) -> None:
    tasks = prepare_tasks(config)
    cell = Cell("colour", 0, "prompt_tuning", 0, 4, 0)
    runner = CellRunner(config, tasks, StartingPoints())
    first, second = runner.run(cell), runner.run(cell)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.prompt, second.prompt)
    assert first.score == np.mean(first.scores.argmax(axis=1) == np.asarray(first.labels))
    assert (first.num_train, first.num_dev, len(first.labels)) == (8, 8, len(tasks["colour"].rows.test))


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


def test_all_rows_are_tuned_on_but_for_a_part_that_is_dev(config: Config) -> None:
    config = changed(config, k=["all", 4], methods=["zero_shot", "perfect"], perfect={"steps": 2, "eval_every": 2})
    tasks = prepare_tasks(config)
    rows = tasks["colour"].rows.train
    split = draw_split(tasks["colour"].task, rows, "all", 0)
    assert sorted(split.train + split.dev) == list(range(len(rows)))
    counts = [[rows[index].label for index in part].count(0) for part in (split.dev, split.train)]
    assert counts[0] == max(1, sum(counts) // 10)
    cells = plan_cells(config, tasks)
    runner, results = CellRunner(config, tasks, StartingPoints()), Results(config.run_dir)
    for cell in cells:
        results.add(runner.run(cell), "key")
    records = Results(config.run_dir).of(cells)
    assert [record["k"] for record in records] == ["all", "all", 4, 4]
    assert [record["num_train"] + record["num_dev"] for record in records[:2]] == [len(rows)] * 2
    assert "colour (K=all)" in summarize(records).rows
    write_files(Results(config.run_dir), ["zero_shot", "perfect"])
    for broken in ("some", [0], ["all", -1]):
        with pytest.raises(UserError, match=r"fewshot\.k"):
            changed(config, k=broken)


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
    cell = Cell("colour", 0, "prompt_tuning", 0, 4, 0)

    def tuned(**settings: object) -> np.ndarray:
        other = changed(config, **settings)
        return CellRunner(other, prepare_tasks(other), StartingPoints()).run(cell).prompt

    np.testing.assert_array_equal(tuned(learning_rates={"prompt_tuning": 0.5}), tuned(learning_rate=0.5))
    np.testing.assert_array_equal(tuned(learning_rates={"supmer": 0.5}), tuned())
    assert not np.array_equal(tuned(learning_rate=0.5), tuned())


def test_training_seeds_change_all_but_the_rows(config: Config) -> None:
    config = changed(config, seeds=[3, 4], training_seeds=[3, 9], methods=["prompt_tuning"])
    tasks = prepare_tasks(config)
    cells = plan_cells(config, tasks)
    assert [(cell.seed, cell.training_seed) for cell in cells] == [(3, 3), (3, 9), (4, 3), (4, 9)]
    assert len({cell.name for cell in cells}) == len(set(cell_keys(config, tasks, StartingPoints(), cells).values())) == 4
    runner = CellRunner(config, tasks, StartingPoints())
    both, other_training, other_data = (runner.run(cell) for cell in cells[:3])
    assert not np.array_equal(both.prompt, other_training.prompt) and not np.array_equal(both.prompt, other_data.prompt)
    # One seed for both is what it was before there were two.
    alone = changed(config, training_seeds=None)
    (first, _) = plan_cells(alone, tasks)
    assert first == cells[0] and first.name == "colour.prompt_tuning.k4.pattern0.seed3"
    keys = (cell_keys(each, tasks, StartingPoints(), [first])[first] for each in (config, alone))
    assert len(set(keys)) == 1


def test_further_words_change_scores_and_keys_and_are_kept_with_the_prompt(config: Config, task_file: Path) -> None:
    more = task_file.with_name("more.yaml")
    more.write_text(task_file.read_text() + "further_words: [[], [okay]]\n")
    found = []
    for file in (task_file, more):
        own = changed(config, tasks=[str(file)], methods=["zero_shot"])
        tasks = prepare_tasks(own)
        (cell,) = plan_cells(own, tasks)
        found.append(
            (cell_keys(own, tasks, StartingPoints(), [cell])[cell], CellRunner(own, tasks, StartingPoints()).run(cell))
        )
    (key, plain), (other_key, summed) = found
    assert key != other_key and (summed.scores[:, 1] > plain.scores[:, 1]).all()
    np.testing.assert_allclose(summed.scores[:, 0], plain.scores[:, 0], rtol=1e-5)
    assert summed.definition.task.further_words == [[], ["okay"]] and plain.definition.task.further_words is None


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
    there = runner.run(Cell("colour", 0, "zero_shot", 0, 4, 0))
    own = runner.run(Cell("other", 0, "zero_shot", 0, 4, 0))
    (transfer,) = there.transfer
    assert (transfer.target, transfer.score, transfer.num_test) == ("other", own.score, 100)
    assert there.score != own.score
