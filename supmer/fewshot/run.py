"""The few-shot job: cells as work for a pool of Ray actors, each with one backbone."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import ray
import yaml
from ray.util import ActorPool

from supmer import storage
from supmer.backbone.load import load_model_config, load_tokenizer
from supmer.cli import to_yaml
from supmer.config import Config
from supmer.errors import UserError
from supmer.fewshot.cells import (
    Cell,
    CellResult,
    CellRunner,
    PreparedTask,
    build_template,
    cap_test_rows,
    cell_keys,
    plan_cells,
)
from supmer.fewshot.data import draw_split, load_rows
from supmer.fewshot.methods import METHODS
from supmer.fewshot.report import write_report
from supmer.fewshot.results import Record, Results
from supmer.fewshot.starting_points import StartingPoints, read_starting_points
from supmer.fewshot.task import builtin_task_names, load_task
from supmer.placement import role_resources
from supmer.pretrain.warmup import NAME as WARMUP
from supmer.pretrain.warmup import resolve_backbone
from supmer.runtime import connect_ray
from supmer.sole_job import sole_job

logger = logging.getLogger(__name__)

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
    points = _starting_points(config)
    cells = plan_cells(config, tasks)
    keys = cell_keys(config, tasks, points, cells)
    with sole_job(config.run_dir) as check_sole:
        _write_settings(given)
        results = Results(config.run_dir, check_sole)
        todo = [cell for cell in cells if not results.is_finished(cell, keys[cell])]
        logger.info("%d cells, %d finished before", len(cells), len(cells) - len(todo))
        if todo:
            _compute(config, tasks, points, todo, keys, results)
        write_report(results, config.fewshot.methods)
    return results.of(cells)


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
        raise UserError(f"fewshot.tasks=[]: must name tasks; built in are {', '.join(builtin_task_names())}")
    tokenizer = load_tokenizer(config.backbone)
    prepared: dict[str, PreparedTask] = {}
    for name in settings.tasks:
        task = load_task(name)
        if task.name in prepared:
            raise UserError(f"fewshot.tasks={name}: a task named {task.name} is there already")
        rows = cap_test_rows(load_rows(task, settings.data_dir), settings.max_test_rows)
        split = draw_split(task, rows.train, max(settings.k), settings.seeds[0])
        for pattern in range(len(task.patterns)):
            build_template(config, task, pattern, tokenizer).encode([rows.train[index] for index in split.train])
        prepared[task.name] = PreparedTask(task, rows)
    return prepared


def _write_settings(config: Config) -> None:
    """Leave the settings in a run directory that has none; those of a meta-trained run stay."""
    path = storage.join(config.run_dir, "config.yaml")
    if not storage.exists(path):
        storage.write_bytes(path, to_yaml(config).encode())


def _check_methods(config: Config) -> None:
    for setting in ("methods", "learning_rates"):
        unknown = [name for name in getattr(config.fewshot, setting) if name not in METHODS]
        if unknown:
            raise UserError(f"fewshot.{setting}={unknown[0]}: must be one of {', '.join(METHODS)}")


def _starting_points(config: Config) -> StartingPoints:
    needed = frozenset().union(*(METHODS[name].needs for name in config.fewshot.methods))
    own = config.run_dir
    for run in sorted({config.fewshot.from_run or own, config.fewshot.ppt_run or own} if needed else ()):
        _warn_of_other_backbone(run, config)
    return read_starting_points(config, needed, load_model_config(config.backbone).d_model)


def _warn_of_other_backbone(run: str, config: Config) -> None:
    """A prompt of the right width for another backbone would be tuned without complaint, and to little use."""
    path = storage.join(run, "config.yaml")
    if not storage.exists(path):
        return
    stored = (yaml.safe_load(storage.read_bytes(path)) or {}).get("backbone", {}).get("name")
    if stored not in (config.backbone.name, WARMUP):
        logger.warning("the prompt of %s was trained for backbone.name=%s, not %s", run, stored, config.backbone.name)


def _compute(
    config: Config,
    tasks: Mapping[str, PreparedTask],
    points: StartingPoints,
    todo: list[Cell],
    keys: Mapping[Cell, str],
    results: Results,
) -> None:
    settings = config.fewshot
    connect_ray(settings.concurrency * settings.cpus_per_cell)
    _check_capacity(config)
    shared = [ray.put(value) for value in (config, dict(tasks), points)]
    runner = ray.remote(_CellActor).options(
        num_cpus=settings.cpus_per_cell,
        num_gpus=settings.gpus_per_cell,
        resources=role_resources("trainer"),
        max_restarts=MAX_RETRIES,
        max_task_retries=MAX_RETRIES,
    )
    pool = ActorPool([runner.remote() for _ in range(min(settings.concurrency, len(todo)))])
    finished = pool.map_unordered(lambda actor, cell: actor.run.remote(shared, cell), todo)
    for number, result in enumerate(finished, start=1):
        record = results.add(result, keys[result.cell])
        logger.info(
            "%d/%d %s: %s %.4f (dev %.4f at step %d), %.0f s",
            number,
            len(todo),
            result.cell.name,
            record["metric"],
            record["score"],
            record["dev_score"],
            record["best_step"],
            record["seconds"],
        )


class _CellActor:
    """A runner on some node, made at its first cell: an actor without constructor arguments can always be restarted."""

    runner: CellRunner | None = None

    def run(self, shared: list[ray.ObjectRef], cell: Cell) -> CellResult:
        if self.runner is None:
            self.runner = CellRunner(*ray.get(shared))
        return self.runner.run(cell)


def _check_capacity(config: Config) -> None:
    """Refuse what can never be scheduled, instead of waiting for ever."""
    settings, total = config.fewshot, ray.cluster_resources()
    for what, each in (("CPU", settings.cpus_per_cell), ("GPU", settings.gpus_per_cell)):
        # The head of an autoscaling cluster says what it can grow to.
        available = total.get(f"limit_{what.lower()}s", total.get(what, 0.0))
        if each * settings.concurrency > available:
            raise UserError(
                f"fewshot.concurrency={settings.concurrency}: needs {each * settings.concurrency:g} {what}s "
                f"(fewshot.{what.lower()}s_per_cell={each:g}), the cluster has {available:g}"
            )
