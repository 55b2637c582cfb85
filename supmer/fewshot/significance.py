"""Is one method better than another? Paired bootstrap over data seeds, training seeds and test rows.

A resample draws data seeds, training seeds and test rows with replacement, the same for both methods, and takes the
difference of their mean scores. Shapes: B resamples, S data seeds, T training seeds of each, N test rows.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from supmer.config.fewshot import RowCount
from supmer.fewshot.results import Record, read_details
from supmer.fewshot.scoring import METRICS, Floats, Ints
from supmer.fewshot.summaries import metrics_of

logger = logging.getLogger(__name__)

NOTE = "Paired bootstrap over data seeds, training seeds and test rows."
NUM_RESAMPLES = 2000
BOOTSTRAP_SEED = 0

Seeds = tuple[int, int]
"""A data seed and a training seed."""
Grid = list[list[Record]]
"""Records by data seed (S rows) and training seed (T columns)."""


class Comparison(NamedTuple):
    """Difference of the mean scores of two sides, with its 95% interval and two-sided bootstrap p-value.

    `task` is None for the mean over tasks, whose resamples are drawn apart.
    """

    task: str | None
    difference: float
    low: float
    high: float
    p_value: float


class Predictions(NamedTuple):
    """Predictions [S, T, N] of one method on one task, with the labels [N]."""

    predictions: Ints
    labels: Ints
    metrics: Sequence[str]


class Scored(NamedTuple):
    """One side of a comparison: lines of `fewshot.jsonl`, all of one method, of the run directory they come from."""

    name: str
    run_dir: str
    records: Sequence[Record]


def compare_methods(run_dir: str, records: Sequence[Record], method: str, reference: str) -> list[Comparison]:
    """Compare two methods of a run on every task that both have run on with the same seeds, K and pattern, then over all."""
    ours, theirs = (
        Scored(name, run_dir, [record for record in records if record["method"] == name]) for name in (method, reference)
    )
    return compare_scored(ours, theirs)


def compare_scored(ours: Scored, theirs: Scored) -> list[Comparison]:
    """Compare two sides by task, then over all tasks; cells that were tested on other rows are left out with a warning."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    names: list[str | None] = []
    differences, resampled = [], []
    for task, (our_records, their_records) in _pairs(ours.records, theirs.records).items():
        every = [record for row in (*our_records, *their_records) for record in row]
        metrics = [name for name in metrics_of(every[0]) if all(name in metrics_of(record) for record in every)]
        if not metrics:
            logger.warning("%s: %s and %s were scored by other metrics and are not compared", task, ours.name, theirs.name)
            continue
        mine, others = _read(ours.run_dir, our_records, metrics), _read(theirs.run_dir, their_records, metrics)
        if mine is None or others is None or not np.array_equal(mine.labels, others.labels):
            logger.warning("%s: %s and %s were tested on other rows and are not compared", task, ours.name, theirs.name)
            continue
        difference, draws = bootstrap(mine, others, generator)
        names.append(task)
        differences.append(difference)
        resampled.append(draws)
    if len(names) > 1:
        names.append(None)
        differences.append(float(np.mean(differences)))
        resampled.append(np.mean(resampled, axis=0))
    found = []
    for name, difference, draws in zip(names, differences, resampled, strict=True):
        low, high = np.quantile(draws, [0.025, 0.975])
        # One is added to both counts, so that no finite number of resamples claims certainty.
        tail = min((draws <= 0).sum(), (draws >= 0).sum())
        p_value = min(1.0, 2 * (int(tail) + 1) / (len(draws) + 1))
        found.append(Comparison(name, difference, float(low), float(high), p_value))
    return found


def comparison_cells(found: Comparison, all_tasks: str = "mean over tasks") -> list[str]:
    """Return the cells of a table: task, difference in points, 95% interval, p."""
    low, high, difference = (100 * value for value in (found.low, found.high, found.difference))
    return [found.task or all_tasks, f"{difference:+.1f}", f"{low:+.1f} to {high:+.1f}", f"{found.p_value:.3f}"]


def bootstrap(ours: Predictions, theirs: Predictions, generator: np.random.Generator) -> tuple[float, Floats]:
    """Return the difference of mean scores and its resamples [B]."""
    num_data, num_training, num_rows = ours.predictions.shape
    assert ours.predictions.shape == theirs.predictions.shape and np.array_equal(ours.labels, theirs.labels)
    row_weights = generator.multinomial(num_rows, np.full(num_rows, 1 / num_rows), NUM_RESAMPLES).astype(float)
    of_data, of_training = (
        generator.multinomial(number, np.full(number, 1 / number), NUM_RESAMPLES) / number
        for number in (num_data, num_training)
    )
    seed_weights = np.einsum("bs,bt->bst", of_data, of_training).reshape(NUM_RESAMPLES, -1)
    draws = ((_scores(ours, row_weights) - _scores(theirs, row_weights)) * seed_weights).sum(axis=1)
    once = np.ones((1, num_rows))
    return float((_scores(ours, once) - _scores(theirs, once)).mean()), draws


def _scores(found: Predictions, weights: Floats) -> Floats:
    """Return the mean of the metrics [B, S T] of each cell's predictions with test rows weighted by `weights` [B, N]."""
    cells = found.predictions.reshape(-1, found.predictions.shape[-1])
    every = [METRICS[metric](cells, found.labels, weights) for metric in found.metrics]
    return np.asarray(np.mean(every, axis=0))


def _pairs(ours: Sequence[Record], theirs: Sequence[Record]) -> dict[str, tuple[Grid, Grid]]:
    """Return, by task (with K and pattern where they vary), the records of both sides by data and training seed."""
    sides = []
    for records in (ours, theirs):
        by_task: dict[tuple[str, RowCount, int], dict[Seeds, Record]] = {}
        for record in records:
            seeds = record["seed"], record["training_seed"]
            by_task.setdefault((record["task"], record["k"], record["pattern"]), {})[seeds] = record
        sides.append(by_task)
    pairs = {}
    for (task, k, pattern), group in sides[0].items():
        others = sides[1].get((task, k, pattern), {})
        if shared := group.keys() & others.keys():
            name = f"{task} (K={k}, pattern {pattern})" if pattern else f"{task} (K={k})"
            chosen = seed_grid(shared)
            ours_of_task, theirs_of_task = ([[side[seeds] for seeds in row] for row in chosen] for side in (group, others))
            pairs[name] = (ours_of_task, theirs_of_task)
    return pairs


def seed_grid(seeds: Collection[Seeds]) -> list[list[Seeds]]:
    """Arrange pairs of data and training seed by data seed, each with the training seeds that all data seeds have.

    Where they have none in common, as when each data seed trains with its own number, each keeps its first.

    >>> seed_grid({(0, 1), (0, 2), (5, 1), (5, 2), (5, 3)})
    [[(0, 1), (0, 2)], [(5, 1), (5, 2)]]
    >>> seed_grid({(0, 0), (1, 1)})
    [[(0, 0)], [(1, 1)]]
    """
    by_data: dict[int, list[int]] = {}
    for data, training in sorted(seeds):
        by_data.setdefault(data, []).append(training)
    common = sorted(set.intersection(*map(set, by_data.values())))
    return [[(data, each) for each in common or own[:1]] for data, own in by_data.items()]


def _read(run_dir: str, records: Grid, metrics: Sequence[str]) -> Predictions | None:
    """Return the predictions of cells; None where they were tested on different rows."""
    details = [[read_details(run_dir, record) for record in row] for row in records]
    labels = details[0][0]["labels"]
    if any(detail["labels"] != labels for row in details for detail in row):
        return None
    predictions = np.asarray([[np.argmax(detail["scores"], axis=1) for detail in row] for row in details])
    return Predictions(predictions, np.asarray(labels), metrics)
