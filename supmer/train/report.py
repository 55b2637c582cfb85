"""`report.html`: what a run did, in one file without outside references."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from supmer import storage
from supmer.reports.drawing import Curve, curves
from supmer.reports.page import figure, folded, heading, page, paragraph, wide
from supmer.reports.tables import Table
from supmer.train.metrics import read_rows
from supmer.train.run_dir import RunDirectory, find_sweep

Row = dict[str, Any]

FEWSHOT_PAGE = "fewshot/report.html"
SWEEP_PAGE = "../../sweep.html"
"""Pages that link to the report and are linked by it, seen from a run directory; a trial's lies in its sweep's."""


def write_report(directory: RunDirectory) -> None:
    """Write `report.html` from `metrics.jsonl` and `config.yaml`, with links to the pages that belong to it."""
    rows = read_rows(directory.metrics)
    settings = storage.read_bytes(directory.config).decode()
    links = {"Few-shot results": FEWSHOT_PAGE} if storage.exists(storage.join(directory.uri, FEWSHOT_PAGE)) else {}
    if find_sweep(directory) is not None:
        links["The sweep"] = SWEEP_PAGE
    storage.write_bytes(directory.report, render(directory.uri.rsplit("/", 1)[-1], rows, settings, links).encode())


def render(name: str, rows: Sequence[Row], settings: str, links: Mapping[str, str] | None = None) -> str:
    """Return the page for the rows of a `metrics.jsonl`."""
    train = [row for row in rows if row["split"] == "train"]
    validation = [row for row in rows if row["split"] == "validation"]
    figures = {
        "Meta-validation query loss": curves_by_kind(validation, "query_loss"),
        "Query loss in meta-training": curves_by_kind(train, "query_loss"),
        "Support loss in meta-training": curves_by_kind(train, "support_loss"),
        "Gate z and gradient similarity": _columns(train, "gate", "similarity"),
        "Mixup parameter b of the curriculum": _columns(train, "mixup_b"),
        "Seconds a meta-step and, of these, waiting for episodes": _columns(train, "step_seconds", "data_wait_seconds"),
    }
    markers = dict.fromkeys(figures, "") | {"Meta-validation query loss": "o"}  # a few points only
    parts = [paragraph("No meta-step was done.")]
    if seconds := sum(row["step_seconds"] for row in train):
        tokens = sum(row["tokens"] for row in train)
        waited = sum(row["data_wait_seconds"] for row in train) / seconds
        done = f"{train[-1]['step']:,} meta-steps, {tokens:,} tokens in {seconds:,.0f} s ({tokens / seconds:,.0f} tokens/s)"
        parts = [paragraph(f"{done}, {waited:.1%} of it waiting for episodes.")]
    compared = [
        [kind, f"{losses[0]:.4f}", f"{losses[-1]:.4f}", f"{steps[-1]:.0f}"]
        for kind, (steps, losses) in curves_by_kind(validation, "query_loss").items()
    ]
    if compared:
        parts.append(wide(Table(["meta-validation query loss", "first", "last", "at step"], compared)))
    for title, found in figures.items():
        parts += [heading(title), figure(curves(found, "meta-steps", markers[title]), title)]
    return page(name, *parts, folded("Settings", settings), links=links)


def curves_by_kind(rows: Iterable[Row], column: str) -> dict[str, Curve]:
    """Return a column of `metrics.jsonl` over meta-steps by kind of task, without what was not finite."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row[column] is not None:
            points[row["kind"]].append((row["step"], row[column]))
    return {kind: _split(found) for kind, found in sorted(points.items())}


def _columns(rows: Sequence[Row], *columns: str) -> dict[str, Curve]:
    found = {column: [(row["step"], row[column]) for row in rows if row[column] is not None] for column in columns}
    return {column.replace("_", " "): _split(points) for column, points in found.items() if points}


def _split(points: Sequence[tuple[float, float]]) -> Curve:
    return [step for step, _ in points], [value for _, value in points]
