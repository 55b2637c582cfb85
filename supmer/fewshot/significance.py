"""Is one method better than another? Paired bootstrap over data seeds and test rows.

A resample draws seeds and test rows with replacement, the same for both methods, and takes the difference of their mean
scores. Shapes: B resamples, S seeds, N test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from supmer.fewshot.results import Record, read_details

NUM_RESAMPLES = 2000
BOOTSTRAP_SEED = 0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Comparison(NamedTuple):
    """Mean score of `method` minus that of `reference`, with its 95% interval and two-sided bootstrap p-value.

    `task` is None for the mean over tasks, whose resamples are drawn apart.
    """

    task: str | None
    method: str
    reference: str
    difference: float
    low: float
    high: float
    p_value: float


class Predictions(NamedTuple):
    """Predictions [S, N] of one method on one task, with the labels [N]."""

    predictions: Ints
    labels: Ints
    metric: str


def compare_methods(run_dir: str, records: Sequence[Record], method: str, reference: str) -> list[Comparison]:
    """Compare two methods on every task that both have run on with the same seeds, K and pattern, then over all tasks."""
    pairs = _pairs(records, method, reference)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    differences, resampled = [], []
    for ours, theirs in pairs.values():
        difference, draws = bootstrap(_read(run_dir, ours), _read(run_dir, theirs), generator)
        differences.append(difference)
        resampled.append(draws)
    by_task = zip(pairs, differences, resampled, strict=True)
    found = [_comparison(task, method, reference, difference, draws) for task, difference, draws in by_task]
    if len(found) > 1:
        found.append(_comparison(None, method, reference, float(np.mean(differences)), np.mean(resampled, axis=0)))
    return found


def bootstrap(ours: Predictions, theirs: Predictions, generator: np.random.Generator) -> tuple[float, Floats]:
    """Return the difference of mean scores and its resamples [B]."""
    num_seeds, num_rows = ours.predictions.shape
    assert ours.predictions.shape == theirs.predictions.shape and np.array_equal(ours.labels, theirs.labels)
    row_weights = generator.multinomial(num_rows, np.full(num_rows, 1 / num_rows), NUM_RESAMPLES).astype(float)
    seed_weights = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), NUM_RESAMPLES) / num_seeds
    draws = ((_scores(ours, row_weights) - _scores(theirs, row_weights)) * seed_weights).sum(axis=1)
    once = np.ones((1, num_rows))
    return float((_scores(ours, once) - _scores(theirs, once)).mean()), draws


def _scores(found: Predictions, weights: Floats) -> Floats:
    """Return the metric [B, S] of each seed's predictions with test rows weighted by `weights` [B, N]."""
    return WEIGHTED_METRICS[found.metric](found.predictions, found.labels, weights)


def _accuracy(predictions: Ints, labels: Ints, weights: Floats) -> Floats:
    correct = (predictions == labels).astype(float)
    return np.asarray(weights @ correct.T / weights.sum(axis=1, keepdims=True))


def _macro_f1(predictions: Ints, labels: Ints, weights: Floats) -> Floats:
    total = np.zeros((len(weights), len(predictions)))
    num_classes = np.zeros_like(total)
    for label in np.union1d(labels, predictions):
        hits = weights @ ((predictions == label) & (labels == label)).astype(float).T
        occurrences = weights @ ((predictions == label).astype(float) + (labels == label)).T
        total += np.divide(2 * hits, occurrences, out=np.zeros_like(hits), where=occurrences > 0)
        num_classes += occurrences > 0
    return total / num_classes


WEIGHTED_METRICS: dict[str, Callable[[Ints, Ints, Floats], Floats]] = {"accuracy": _accuracy, "macro_f1": _macro_f1}


def _comparison(task: str | None, method: str, reference: str, difference: float, draws: Floats) -> Comparison:
    low, high = np.quantile(draws, [0.025, 0.975])
    # One is added to both counts, so that no finite number of resamples claims certainty.
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    p_value = min(1.0, 2 * (int(tail) + 1) / (len(draws) + 1))
    return Comparison(task, method, reference, difference, float(low), float(high), p_value)


def _pairs(records: Sequence[Record], method: str, reference: str) -> dict[str, tuple[list[Record], list[Record]]]:
    """Return, by task (with K and pattern where they vary), the records of both methods in the order of seeds."""
    grouped: dict[tuple[str, int, int], dict[tuple[str, int], Record]] = {}
    for record in records:
        group = grouped.setdefault((record["task"], record["k"], record["pattern"]), {})
        group[record["method"], record["seed"]] = record
    pairs = {}
    for (task, k, pattern), group in grouped.items():
        shared = sorted(seed for name, seed in group if name == method and (reference, seed) in group)
        if shared:
            name = f"{task} (K={k}, pattern {pattern})" if pattern else f"{task} (K={k})"
            pairs[name] = ([group[method, seed] for seed in shared], [group[reference, seed] for seed in shared])
    return pairs


def _read(run_dir: str, records: list[Record]) -> Predictions:
    details = [read_details(run_dir, record) for record in records]
    predictions = np.asarray([np.argmax(detail["scores"], axis=1) for detail in details])
    return Predictions(predictions, np.asarray(details[0]["labels"]), records[0]["metric"])
