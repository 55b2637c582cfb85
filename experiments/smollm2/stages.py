"""What the experiment consists of: tables of few-shot cells, meta-trainings, and the choice of rates on dev rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import mean

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from experiments.evidence.evidence import write_evidence
from supmer import storage
from supmer.backbone.load import load_model_config, resolve_backbone
from supmer.config import Config
from supmer.config.load import to_yaml, with_settings
from supmer.corpus.store import TaskStore
from supmer.errors import setting_error
from supmer.fewshot.cell_runner import CellResult, CellRunner
from supmer.fewshot.cells import cell_keys, plan_cells
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.comparison_files import write_files
from supmer.fewshot.methods import METHODS
from supmer.fewshot.results import Results
from supmer.fewshot.scoring import evaluate, score_labels
from supmer.fewshot.starting_points import read_starting_points
from supmer.meta.group import LocalGroup
from supmer.meta.learner import Learner, build_learner
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train.checkpoint import serialize
from supmer.train.metrics import MetricsLog
from supmer.train.run_dir import RunDirectory
from supmer.train.stream import local_episodes

DEV_SEEDS = (10,)
"""Data seeds by which rates are chosen; no table uses them."""
DEV_TASKS = ("sst-2", "trec")
PROMPT_RATES, FINE_TUNING_RATES = (0.005, 0.02, 0.05), (1e-5, 5e-5)
STATE_FILE = "state.safetensors"


def table(config: Config, early: Config | None = None) -> Iterator[str]:
    """Compute the missing cells of `fewshot`, one after the other, and yield a line for each.

    Args:
        config: the run of the table.
        early: a run that differs by stopping at the first evaluation. Its cells are begun like those of `config`, so
            they are scored on the way, and no step is done twice. The rate must be constant: a schedule that falls
            over fewer steps has other rates from the first step on.
    """
    if early is not None and config.fewshot.schedule != "constant":
        raise setting_error(
            "fewshot.schedule", config.fewshot.schedule, "must be constant, as cells are scored on their way"
        )
    config = resolve_backbone(config)
    tasks = prepare_tasks(config)
    needed = frozenset().union(*(METHODS[name].needs for name in config.fewshot.methods))
    points = read_starting_points(config, needed, _width(config))
    cells = plan_cells(config, tasks)
    keys = cell_keys(config, tasks, points, cells)
    results = Results(config.run_dir)
    todo = [cell for cell in cells if not results.is_finished(cell, keys[cell])]
    if not todo:
        return
    yield f"{config.run.name}: {len(todo)} of {len(cells)} cells to compute"
    runner = CellRunner(config, tasks, points)
    prompts: list[Tensor] = []
    runner.context = replace(runner.context, at_evaluation=prompts.append)
    early = early and resolve_backbone(early)
    early_keys = {} if early is None else cell_keys(early, tasks, points, cells)
    for cell in todo:
        prompts.clear()
        result = runner.run(cell)
        if early is not None and prompts:
            found = _at_first_evaluation(runner, result, prompts[0])
            Results(early.run_dir).add(found, early_keys[cell])
            yield f"{early.run.name} {cell.name}: test {found.score:.3f}, dev {found.dev_score:.3f}"
        record = results.add(result, keys[cell])
        scores = f"test {record['score']:.3f}, dev {record['dev_score']:.3f}"
        yield f"{config.run.name} {cell.name}: {scores}, {record['seconds']} s"


def early_run(config: Config) -> Config:
    """Return the run whose cells stop at the first evaluation."""
    early = {"run.name": f"{config.run.name}-early", "fewshot.steps": config.fewshot.eval_every}
    return with_settings(config, early)


def _at_first_evaluation(runner: CellRunner, result: CellResult, prompt: Tensor) -> CellResult:
    """Return what the cell would have been, had its tuning ended at its first evaluation, where it had `prompt`."""
    cell, point = result.cell, result.curve[0]
    words, examples = runner.test_rows(cell.task, cell.pattern, "pattern")
    scores = score_labels(runner.context.model, prompt, examples, words, runner.context.max_tokens)
    return replace(
        result,
        scores=scores,
        metrics=evaluate(scores, examples, runner.tasks[cell.task].task.metrics),
        dev_score=point.dev_score,
        best_step=point.step,
        curve=result.curve[:1],
        prompt=prompt.numpy(),
        seconds=0.0,  # all are counted where the cell goes on
    )


def best_rate(config: Config, method: str) -> Iterator[str]:
    """Compute the cells that choose a method's rate, on dev rows of seeds of their own."""
    for rate in rates_of(method):
        yield from table(_rate_run(config, method, rate))


def chosen_rate(config: Config, method: str) -> float:
    """Return the rate with the highest mean dev score over `DEV_TASKS` and `DEV_SEEDS` (the smallest of equals)."""
    scores = {
        rate: mean(record["dev_score"] for record in Results(_rate_run(config, method, rate).run_dir).records)
        for rate in rates_of(method)
    }
    return max(scores, key=lambda rate: scores[rate])


def rates_of(method: str) -> Sequence[float]:
    """Return the rates that a method is tried with; none without training."""
    return {"zero_shot": (), "fine_tuning": FINE_TUNING_RATES}.get(method, PROMPT_RATES)


def with_rates(config: Config, methods: Sequence[str]) -> Config:
    """Return the settings of a table of methods, each with its chosen rate."""
    rates = {method: chosen_rate(config, method) for method in methods if rates_of(method)}
    fine_tuning = rates.pop("fine_tuning", config.fewshot.fine_tuning_rate)
    changes = {"methods": list(methods), "learning_rates": rates, "fine_tuning_rate": fine_tuning}
    return with_settings(config, {f"fewshot.{name}": value for name, value in changes.items()})


def write_results(config: Config) -> None:
    """Write `evidence.json`, tables and figures of the finished cells, at the end and after the first evaluation."""
    for run in (config, early_run(config)):
        results = Results(run.run_dir)
        write_evidence(run, [record for record in results.records if record["method"] in run.fewshot.methods], run.run_dir)
        write_files(results, run.fewshot.methods)


def meta_train(config: Config, store_uri: str) -> Iterator[str]:
    """Meta-train in this process from the last kept state, and leave `prompt.safetensors` and `regularizer.safetensors`."""
    config, directory = resolve_backbone(config), RunDirectory(config.run_dir)
    if storage.exists(directory.prompt):
        return
    torch.set_num_threads(config.train.threads_per_worker or 1)
    store = TaskStore.open(store_uri)
    learner = build_learner(config, store.centroids, torch.device("cpu"), LocalGroup())
    state = storage.join(config.run_dir, STATE_FILE)
    if storage.exists(state):
        learner.load_state_dict(load_safetensors(storage.read_bytes(state)))
    sampler = EpisodeSampler(store, TaskVocabulary.of_backbone(config.backbone), config)
    storage.write_bytes(directory.config, to_yaml(config).encode())
    metrics = MetricsLog(directory.metrics, learner.next_step)
    if learner.next_step == 0:
        yield _validate(config, learner, sampler, metrics)
    for episodes in local_episodes(sampler, config, range(learner.next_step, config.meta.steps)):
        started = time.perf_counter()
        record = learner.step(episodes)
        metrics.append(replace(record, step_seconds=time.perf_counter() - started))
        shown = f"{record.kind} query {record.query_loss:.3f}, gate {record.gate:.2f}"
        yield f"{config.run.name} step {learner.next_step}: {shown}"
        if learner.next_step % config.train.validate_every == 0:
            yield _validate(config, learner, sampler, metrics)
        if learner.next_step % config.train.checkpoint_every == 0 or learner.next_step == config.meta.steps:
            metrics.sync()
            storage.write_bytes(state, serialize(learner.state_dict()))
    if learner.regularizer is not None:
        storage.write_bytes(directory.regularizer, serialize(learner.regularizer.state_dict()))
    storage.write_bytes(directory.prompt, serialize({"prompt": learner.prompt.detach().float()}))
    metrics.close()


def _validate(config: Config, learner: Learner, sampler: EpisodeSampler, metrics: MetricsLog) -> str:
    """Score the validation episodes of each kind and return a line with their query losses."""
    found = []
    for kind in config.tasks.kinds:
        episodes = [sampler.validation_episode(kind, index) for index in range(config.train.validation_episodes)]
        record = learner.evaluate(episodes)
        metrics.append(record)
        found.append(f"{kind} {record.query_loss:.3f}")
    return f"{config.run.name} validation after {learner.next_step}: {', '.join(found)}"


def _rate_run(config: Config, method: str, rate: float) -> Config:
    """Return the run that tries a method at a rate: no test row counts, so few are scored."""
    return with_settings(
        config,
        {
            "run.name": f"{config.run.name}-{method}-{rate:g}",
            "fewshot.methods": [method],
            "fewshot.learning_rates": {},
            "fewshot.learning_rate": rate,
            "fewshot.fine_tuning_rate": rate,
            "fewshot.tasks": list(DEV_TASKS),
            "fewshot.seeds": list(DEV_SEEDS),
            "fewshot.k": [16],
            "fewshot.max_test_rows": 16,
        },
    )


def _width(config: Config) -> int:
    return int(load_model_config(config.backbone).hidden_size)
