"""`report.html`: what a run did, in one file without outside references; figures are inline SVG."""

from __future__ import annotations

import html
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from supmer import storage
from supmer.train.metrics import read_rows
from supmer.train.run_dir import RunDirectory

MAX_POINTS = 500
"""Longer curves are drawn as means over stretches of meta-steps, so that the file stays small."""

Row = dict[str, Any]
Curve = tuple[Sequence[float], Sequence[float]]

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ccc}"
    "td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}pre{background:#f5f5f5;padding:1rem}"
)


def write_report(directory: RunDirectory) -> None:
    """Write `report.html` from `metrics.jsonl` and `config.yaml`."""
    rows = read_rows(directory.metrics)
    settings = storage.read_bytes(directory.config).decode()
    storage.write_bytes(directory.report, render(directory.uri.rsplit("/", 1)[-1], rows, settings).encode())


def render(name: str, rows: Sequence[Row], settings: str) -> str:
    """Return the page for the rows of a `metrics.jsonl`."""
    train = [row for row in rows if row["split"] == "train"]
    validation = [row for row in rows if row["split"] == "validation"]
    figures = [
        _figure("Meta-validation query loss", _by_kind(validation, "query_loss"), marker="o"),
        _figure("Query loss in meta-training", _by_kind(train, "query_loss")),
        _figure("Support loss in meta-training", _by_kind(train, "support_loss")),
        _figure("Gate z and gradient similarity", _columns(train, "gate", "similarity")),
        _figure("Mixup parameter b of the curriculum", _columns(train, "mixup_b")),
        _figure(
            "Seconds a meta-step and, of these, waiting for episodes", _columns(train, "step_seconds", "data_wait_seconds")
        ),
    ]
    title = html.escape(name)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
        f"<body><h1>{title}</h1>{_summary(train)}{_validation_table(validation)}{''.join(figures)}"
        f"<details><summary>Settings</summary><pre>{html.escape(settings)}</pre></details></body></html>\n"
    )


def _summary(train: Sequence[Row]) -> str:
    seconds = sum(row["step_seconds"] for row in train)
    if not seconds:
        return "<p>No meta-step was done.</p>"
    tokens = sum(row["tokens"] for row in train)
    waited = sum(row["data_wait_seconds"] for row in train) / seconds
    return (
        f"<p>{train[-1]['step']:,} meta-steps, {tokens:,} tokens in {seconds:,.0f} s ({tokens / seconds:,.0f} tokens/s), "
        f"{waited:.1%} of it waiting for episodes.</p>"
    )


def _validation_table(validation: Sequence[Row]) -> str:
    """Compare each kind's query loss at the first and at the last validation."""
    lines = []
    for kind, (steps, losses) in _by_kind(validation, "query_loss").items():
        lines.append(f"<tr><td>{kind}</td><td>{losses[0]:.4f}</td><td>{losses[-1]:.4f}</td><td>{steps[-1]:.0f}</td></tr>")
    head = "<tr><th>meta-validation query loss</th><th>first</th><th>last</th><th>at step</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>" if lines else ""


def _by_kind(rows: Iterable[Row], column: str) -> dict[str, Curve]:
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


def _thin(values: Sequence[float]) -> list[float]:
    return [float(part.mean()) for part in np.array_split(np.asarray(values, float), min(MAX_POINTS, len(values)))]


def _figure(title: str, curves: dict[str, Curve], marker: str = "") -> str:
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    for name, (steps, values) in curves.items():
        axes.plot(_thin(steps), _thin(values), label=name, marker=marker, linewidth=1)
    axes.set_xlabel("meta-steps")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return f"<h2>{html.escape(title)}</h2>{svg[svg.index('<svg') :]}"
