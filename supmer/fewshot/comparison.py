"""The few-shot job: cells as work for a pool of Ray actors, each with one backbone, or for this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence

import ray
import yaml
from ray.util import ActorPool

from supmer import storage
from supmer.backbone.load import check_backbone, is_causal, load_model_config, resolve_backbone
from supmer.backbone.unknown import FEW_UNKNOWN, check_unknown, count_unknown
from supmer.commands import job_command
from supmer.config import Config
from supmer.config.effects import all_settings
from supmer.config.load import to_yaml
from supmer.errors import UserError, setting_error
from supmer.fewshot.cell_runner import CellResult, CellRunner, build_template
from supmer.fewshot.cells import Cell, PreparedTask, cap_test_rows, cell_keys, plan_cells
from supmer.fewshot.comparison_files import write_files
from supmer.fewshot.data import by_size, draw_split, load_rows
from supmer.fewshot.forms import asked
from supmer.fewshot.methods import METHODS
from supmer.fewshot.places import local_place
from supmer.fewshot.results import Record, Results, cell_of
from supmer.fewshot.starting_points import PROMPT_FILE, StartingPoints, ppt_runs, read_starting_points
from supmer.fewshot.task import builtin_task_names, load_task
from supmer.placement import check_room, role_resources
from supmer.progress import Progress, time_left
from supmer.runtime import connect_ray
from supmer.sole_job import sole_job
from supmer.train.trackers import Tracked, Trackers

logger = logging.getLogger(__name__)

FEW_ROWS = 1000
"""Rows of each split by which a task is checked."""
MAX_RETRIES = 3
"""Times that an actor is restarted and its cell repeated: a lost node costs its cells in progress, not the job."""


def run_fewshot(config: Config) -> list[Record]:
    """Compute all cells of `fewshot` that are not finished yet and return the records of all.

    What a user can have got wrong is checked before any cell is computed.

    Raises:
        UserError: a task, its data, a method, or a starting point cannot be used, or another job is at work in the
            run directory.
    """
    _check_methods(config)
    given, config = config, resolve_backbone(config)
    tasks = prepare_tasks(config)
    points = _starting_points(config, tasks)
    cells = plan_cells(config, tasks)
    keys = cell_keys(config, tasks, points, cells)
    with sole_job(config.run_dir) as check_sole:
        own_settings = storage.join(config.run_dir, "config.yaml")
        if not storage.exists(own_settings):  # those of a meta-trained run stay
            storage.write_bytes(own_settings, to_yaml(given).encode())
        results = Results(config.run_dir, check_sole)
        todo = [cell for cell in cells if not results.is_finished(cell, keys[cell])]
        logger.info(
            "%d cells (task x method x K x pattern x seeds), %d finished before, %d to compute",
            len(cells),
            len(cells) - len(todo),
            len(todo),
        )
        if todo:
            _compute(config, tasks, points, todo, keys, results)
        logger.info("comparing methods, drawing: %s", storage.join(config.run_dir, "fewshot"))
        write_files(results, config.fewshot.methods, {name: prepared.rows.test for name, prepared in tasks.items()})
    for name, prepared in tasks.items():
        rows, level = prepared.rows, logging.WARNING if prepared.unknown > FEW_UNKNOWN else logging.INFO
        logger.log(level, "task %s: %.1f%% of the rows' tokens are unknown to the tokenizer", name, 100 * prepared.unknown)
        if rows.num_skipped_train or rows.num_skipped_test:
            logger.warning(
                "task %s: %d train and %d test rows could not be used and play no part in the scores",
                name,
                rows.num_skipped_train,
                rows.num_skipped_test,
            )
    return results.of(cells)


def export_command(config: Config, records: Sequence[Record]) -> str | None:
    """Return the command that exports the tuned prompt with the best dev score; None where no cell has one."""
    for record in sorted(records, key=lambda record: -record["dev_score"]):
        cell = cell_of(record).name
        if storage.exists(storage.join(config.run_dir, "fewshot", cell, PROMPT_FILE)):
            return job_command("export", "peft", "--run", config.run_dir, "--cell", cell, "--out", "adapter")
    return None


def check_fewshot(config: Config) -> None:
    """Check what few-shot tuning of a run that is still to be made will need, but for its starting points.

    Raises:
        UserError: a method, a task or its data cannot be used.
    """
    _check_methods(config)
    prepare_tasks(resolve_backbone(config))


def prepare_tasks(config: Config) -> dict[str, PreparedTask]:
    """Read and check the tasks: rows, label words, patterns and enough rows for every data seed."""
    settings = config.fewshot
    if not settings.tasks:
        raise setting_error("fewshot.tasks", [], f"must name tasks; built in are {', '.join(builtin_task_names())}")
    prepared: dict[str, PreparedTask] = {}
    with Progress("reading the tasks", len(settings.tasks), "tasks") as progress:
        tokenizer, causal = check_backbone(config.backbone), is_causal(config.backbone)
        for name in settings.tasks:
            task = load_task(name)
            task = task.for_causal() if causal else task
            if task.name in prepared:
                raise setting_error("fewshot.tasks", name, f"a task named {task.name} is there already")
            rows = cap_test_rows(load_rows(task, settings.data_dir), settings.max_test_rows)
            for k in sorted(settings.k, key=by_size):
                split = draw_split(task, rows.train, k, settings.seeds[0])
            num_unknown = num_tokens = 0
            for part, own in (("train", rows.train), ("test", rows.test)):
                texts = [text for row in own[:: len(own) // FEW_ROWS + 1] for text in row.fields.values()]
                unknown, all_tokens = count_unknown(texts, tokenizer)
                check_unknown(f"task {task.name}, {part}", unknown, all_tokens, config.corpus.max_unknown)
                num_unknown, num_tokens = num_unknown + unknown, num_tokens + all_tokens
            for form in dict.fromkeys(["pattern", *(METHODS[method].form for method in settings.methods)]):
                for pattern in range(len(asked(task, form).patterns)):
                    template = build_template(config, task, pattern, tokenizer, form)
                    template.encode([rows.train[index] for index in split.train[:FEW_ROWS]])
            prepared[task.name] = PreparedTask(task, rows, num_unknown / max(num_tokens, 1))
            progress.add(1)
    return prepared


def _check_methods(config: Config) -> None:
    for setting in ("methods", "learning_rates"):
        unknown = [name for name in getattr(config.fewshot, setting) if name not in METHODS]
        if unknown:
            raise setting_error(f"fewshot.{setting}", unknown[0], f"must be one of {', '.join(METHODS)}")
    settings = config.fewshot
    if settings.init == "text" and "prompt_tuning" in settings.methods and not (settings.init_text or "").strip():
        raise setting_error("fewshot.init_text", settings.init_text, "must be a text, with fewshot.init=text")


def _starting_points(config: Config, tasks: Mapping[str, PreparedTask]) -> StartingPoints:
    needed = frozenset().union(*(METHODS[name].needs for name in config.fewshot.methods))
    own = config.run_dir
    if config.fewshot.from_run is None and "prompt" in needed and not storage.exists(storage.join(own, PROMPT_FILE)):
        job, *arguments = sys.argv
        arguments = arguments if job.endswith(("prompt_tune.py", "prompt-tune")) else ["--config", "FILE"]
        makes = job_command("metatrain", *arguments)
        raise setting_error("fewshot.from_run", own, f"has no {PROMPT_FILE}; this makes it: {makes}")
    for run in sorted({config.fewshot.from_run or own, *ppt_runs(config)} if needed else ()):
        # A prompt of the right width for another backbone would be tuned without complaint, and to little use.
        settings = storage.join(local_place(run, "fewshot.from_run"), "config.yaml")
        stored = (yaml.safe_load(storage.read_bytes(settings)) or {}) if storage.exists(settings) else None
        name = None if stored is None else stored.get("backbone", {}).get("name")
        if stored is not None and name != config.backbone.name:
            logger.warning("the prompt of %s was trained for backbone.name=%s, not %s", run, name, config.backbone.name)
    formats = [prepared.task.format for prepared in tasks.values()]
    return read_starting_points(config, needed, load_model_config(config.backbone).hidden_size, formats)


def _compute(
    config: Config,
    tasks: Mapping[str, PreparedTask],
    points: StartingPoints,
    todo: list[Cell],
    keys: Mapping[Cell, str],
    results: Results,
) -> None:
    at_once = max(1, min(config.fewshot.concurrency, len(todo)))
    before = [record["seconds"] for record in results.records]
    seconds_each = sum(before) / len(before) / at_once if before else 0.0
    expected = (
        f"{seconds_each:.3g} s each by those finished before, {time_left(seconds_each * len(todo))}; " if before else ""
    )
    logger.info("computing %d cells, %d at a time; %sthe first ones also load the backbone", len(todo), at_once, expected)
    computed = _on_ray if config.fewshot.concurrency else _here
    with Progress("few-shot tuning", len(todo), "cells") as progress:
        for result in computed(config, tasks, points, todo):
            record = results.add(result, keys[result.cell])
            _track(config, result)
            progress.add(1)
            score = f"{record['metric']} {record['score']:.4f}"
            progress.say(f"{result.cell.name}: {score} (dev {record['dev_score']:.4f} at step {record['best_step']})")


def _here(
    config: Config, tasks: Mapping[str, PreparedTask], points: StartingPoints, todo: list[Cell]
) -> Iterator[CellResult]:
    """Compute cells one after the other in this process."""
    runner = CellRunner(config, tasks, points)
    yield from map(runner.run, todo)


def _on_ray(
    config: Config, tasks: Mapping[str, PreparedTask], points: StartingPoints, todo: list[Cell]
) -> Iterator[CellResult]:
    """Compute cells by `fewshot.concurrency` actors, and yield each as soon as it is finished."""
    settings = config.fewshot
    logger.info("starting or joining Ray")
    connect_ray(settings.concurrency * settings.cpus_per_cell)
    cpus, gpus = settings.cpus_per_cell, settings.gpus_per_cell
    check_room("fewshot.concurrency", settings.concurrency, settings.concurrency * cpus, settings.concurrency * gpus)
    shared = [ray.put(value) for value in (config, dict(tasks), points)]
    runner = ray.remote(_CellActor).options(
        num_cpus=settings.cpus_per_cell,
        num_gpus=settings.gpus_per_cell,
        resources=role_resources("trainer"),
        max_restarts=MAX_RETRIES,
        max_task_retries=MAX_RETRIES,
    )
    pool = ActorPool([runner.remote() for _ in range(min(settings.concurrency, len(todo)))])
    for cell in todo:
        pool.submit(lambda actor, value: actor.run.remote(shared, value), cell)
    while pool.has_next():
        yield pool.get_next_unordered()


def _track(config: Config, result: CellResult) -> None:
    """Send a cell's learning curve and score to the trackers, as a record of its own."""
    cell = result.cell
    folder = storage.join(config.run_dir, "fewshot", cell.name)
    settings = all_settings(config) | {f"cell.{name}": value for name, value in vars(cell).items()}
    name = f"{config.run.name}-{cell.name}"
    try:
        trackers = Trackers(config, Tracked(name, config.log.group or config.run.name, folder, settings))
    except UserError as error:  # the cell's result is kept all the same, and the next ones are worth computing
        logger.warning("%s: not tracked: %s", cell.name, error)
        return
    for step, loss, dev_score in result.curve:
        trackers.log({"fewshot/loss": loss, "fewshot/dev_score": dev_score}, step)
    last = result.curve[-1].step if result.curve else 0
    trackers.log({"fewshot/test_score": result.score, "fewshot/seconds": result.seconds}, last)
    trackers.finish([storage.join(folder, PROMPT_FILE)])


class _CellActor:
    """A runner on some node, made at its first cell: an actor without constructor arguments can always be restarted."""

    runner: CellRunner | None = None

    def run(self, shared: list[ray.ObjectRef], cell: Cell) -> CellResult:
        if self.runner is None:
            self.runner = CellRunner(*ray.get(shared))
        return self.runner.run(cell)
