"""`fewshot/report.html`: what the methods scored, and for each task where they went wrong."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from statistics import mean, mode
from typing import Any, NamedTuple

import numpy as np

from supmer import storage
from supmer.fewshot.data import Row, by_size
from supmer.fewshot.results import Record, read_details
from supmer.fewshot.scoring import f1
from supmer.fewshot.summaries import MISSING, by_row, summary
from supmer.reports.page import heading, paragraph, wide
from supmer.reports.tables import Table

WRONG_ROWS_FILE = "wrong_rows.json"
"""The rows that the report shows, by task: their texts lie outside the run directory, and other tasks are tuned later."""
NUM_WRONG_ROWS = 10
MAX_TEXT = 160
"""Letters of a row in the report."""


class Predicted(NamedTuple):
    """What one method predicted on a task: `predictions` [S, N] of S cells (seeds, patterns) for `labels` [N]."""

    predictions: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    label_words: list[str]


def scores_table(records: Sequence[Record]) -> Table:
    """Return scores, and what they took, by task (and metric, where it has several) and method."""
    grouped: dict[str, dict[str, list[Record]]] = {}
    for name, record in by_row(records):
        grouped.setdefault(name, {}).setdefault(record["method"], []).append(record)
    rows = []
    for name, methods in grouped.items():
        for method, found in methods.items():
            scores = [record["score"] for record in found]
            of_scores, peak = summary(scores), max(record.get("peak_bytes", 0) for record in found)
            std = MISSING if of_scores.std is None else f"{100 * of_scores.std:.1f}"
            numbers = [f"{100 * of_scores.mean:.1f}", std, f"{100 * of_scores.minimum:.1f}", str(len(scores))]
            spent = [f"{mean(record['seconds'] for record in found):.1f}", f"{peak / 2**20:,.0f}" if peak else MISSING]
            rows.append([name, method, *numbers, *spent])
    heads = ["task", "method", "mean", "deviation", "minimum", "cells", "seconds a cell", "peak memory (MiB)"]
    return Table(heads, rows, num_labels=2)


def task_parts(run_dir: str, records: Sequence[Record], test_rows: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    """Return, by task, what its section of the page shows besides its curves; at the largest K.

    Of the test rows at hand those that are shown are kept in the run directory, for the next report.
    """
    path = storage.join(run_dir, "fewshot", WRONG_ROWS_FILE)
    kept = json.loads(storage.read_bytes(path)) if storage.exists(path) else {}
    parts: dict[str, list[str]] = {}
    for task in dict.fromkeys(record["task"] for record in records):
        predicted_by = _read(run_dir, [record for record in records if record["task"] == task])
        if task in test_rows:
            wrong = wrong_rows(predicted_by, test_rows[task])
            kept[task] = {"heads": wrong.heads, "rows": wrong.rows}
        parts[task] = [heading("F1 by class (%)", 3), wide(f1_table(predicted_by))]
        parts[task] += [heading("Confusion, all cells together", 3)]
        parts[task] += [wide(confusion_table(method, found)) for method, found in predicted_by.items()]
        if kept.get(task, {}).get("rows"):
            note = "Test rows that were labelled wrongly most often, and by how many of a method's cells."
            parts[task] += [heading("Rows that are often wrong", 3), paragraph(note)]
            parts[task].append(wide(Table(**kept[task], num_labels=3)))
    storage.write_bytes(path, json.dumps(kept).encode())
    return parts


def f1_table(predicted_by: Mapping[str, Predicted]) -> Table:
    """Return each class's F1 by method, the mean over cells."""
    words = next(iter(predicted_by.values())).label_words
    rows = []
    for method, found in predicted_by.items():
        every_row = np.ones((1, len(found.labels)))
        scores = [f1(found.predictions, found.labels, every_row, label).mean() for label in range(len(words))]
        rows.append([method, *(f"{100 * score:.1f}" for score in scores)])
    return Table(["method", *words], rows)


def confusion_table(method: str, found: Predicted) -> Table:
    """Count test rows by class (lines) and predicted class (columns) over all cells."""
    counts = np.zeros((len(found.label_words),) * 2, dtype=int)
    np.add.at(counts, (np.broadcast_to(found.labels, found.predictions.shape), found.predictions), 1)
    rows = [[word, *map(str, line)] for word, line in zip(found.label_words, counts, strict=True)]
    return Table([f"{method}: class, predicted as", *found.label_words], rows)


def wrong_rows(predicted_by: Mapping[str, Predicted], rows: Sequence[Row]) -> Table:
    """Return the test rows that most cells labelled wrongly: with class, most frequent mistake, and counts."""
    usable = {method: found for method, found in predicted_by.items() if len(found.labels) == len(rows)}
    lines = []
    if usable:
        _, labels, words = next(iter(usable.values()))
        every = np.concatenate([found.predictions for found in usable.values()])
        num_wrong = (every != labels).sum(axis=0)
        worst = np.argsort(-num_wrong, kind="stable")[:NUM_WRONG_ROWS]
        for index in worst[num_wrong[worst] > 0]:
            wrong = every[:, index][every[:, index] != labels[index]]
            text = textwrap.shorten(" | ".join(rows[index].fields.values()), MAX_TEXT, placeholder=" ...")
            by_method = [found.predictions[:, index] != labels[index] for found in usable.values()]
            counts = [f"{cells.sum()}/{len(cells)}" for cells in by_method]
            lines.append([text, words[labels[index]], words[np.bincount(wrong).argmax()], *counts])
    return Table(["row", "class", "mostly taken for", *usable], lines, num_labels=3)


def _read(run_dir: str, records: Sequence[Record]) -> dict[str, Predicted]:
    """Read the predictions of a task's cells by method; only those at the largest K, on one number of test rows."""
    k = max((record["k"] for record in records), key=by_size)
    num_test = mode(record["num_test"] for record in records if record["k"] == k)
    details: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if (record["k"], record["num_test"]) == (k, num_test):
            details.setdefault(record["method"], []).append(read_details(run_dir, record))
    return {
        method: Predicted(
            np.asarray([np.argmax(cell["scores"], axis=1) for cell in cells]),
            np.asarray(cells[0]["labels"]),
            cells[0]["record"]["label_words"],
        )
        for method, cells in details.items()
    }
