"""Figures of few-shot results, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from supmer.fewshot.results import Record, read_details
from supmer.fewshot.tables import Grid, Summary, summary
from supmer.fewshot.transfer import Matrix

# Text stays text and ids depend on the content only: figures of equal results are equal files.
SVG_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "supmer"}


def bars_by_method(grid: Grid) -> bytes:
    """Draw the mean score of each method, by task, with the standard deviation over seeds."""
    figure = Figure(figsize=(max(6.0, 1.2 * len(grid.rows)), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(grid.methods)
    for number, method in enumerate(grid.methods):
        found = [(row, grid.cells[name, method]) for row, name in enumerate(grid.rows) if (name, method) in grid.cells]
        positions = [row - 0.4 + (number + 0.5) * width for row, _ in found]
        means = [100 * cell.mean for _, cell in found]
        axes.bar(positions, means, width, yerr=[100 * (cell.std or 0.0) for _, cell in found], capsize=2, label=method)
    axes.set_xticks(range(len(grid.rows)), grid.rows, rotation=30, ha="right")
    axes.set_ylabel("test score (%)")
    figure.legend(loc="outside upper center", ncols=len(grid.methods), fontsize="small")
    return _svg(figure)


def learning_curves(run_dir: str, records: Sequence[Record]) -> bytes:
    """Draw the dev score by step, mean over seeds, one panel a task, at the largest K that it was tuned with."""
    largest = {record["task"]: max(r["k"] for r in records if r["task"] == record["task"]) for record in records}
    records = [record for record in records if record["k"] == largest[record["task"]]]
    tasks = list(largest)
    figure = Figure(figsize=(5 * min(3, len(tasks)), 3.2 * -(-len(tasks) // 3)), layout="constrained")
    panels = figure.subplots(-(-len(tasks) // 3), min(3, len(tasks)), squeeze=False).flatten()
    for axes, task in zip(panels, tasks, strict=False):
        for method, curve in _curves(run_dir, [record for record in records if record["task"] == task]).items():
            axes.plot(list(curve), [100 * float(np.mean(scores)) for scores in curve.values()], label=method)
        axes.set(title=f"{task} (K={largest[task]})", xlabel="step", ylabel="dev score (%)")
    for axes in panels[len(tasks) :]:
        axes.axis("off")
    panels[0].legend(fontsize="small")
    return _svg(figure)


def curves_by_k(records: Sequence[Record]) -> bytes:
    """Draw the test score by the number of rows per class: mean over tasks, with the standard deviation over seeds.

    Only tasks that were tuned with every K count, so that all points are means of the same tasks.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    numbers = sorted({record["k"] for record in records})
    tasks = {task for task in {r["task"] for r in records} if {r["k"] for r in records if r["task"] == task} == set(numbers)}
    for method in dict.fromkeys(record["method"] for record in records):
        chosen = [record for record in records if record["method"] == method and record["task"] in tasks]
        cells = [(k, _over_seeds([record for record in chosen if record["k"] == k])) for k in numbers]
        points = np.asarray([(k, 100 * cell.mean, 100 * (cell.std or 0.0)) for k, cell in cells if cell is not None])
        if len(points):
            axes.errorbar(points[:, 0], points[:, 1], yerr=points[:, 2], marker="o", capsize=3, label=method)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(k) for k in numbers])
    axes.set(xlabel="rows per class (K)", ylabel=f"test score (%), mean over {', '.join(sorted(tasks))}")
    axes.legend(fontsize="small")
    return _svg(figure)


def heat_maps(matrices: Mapping[str, Matrix]) -> bytes:
    """Draw the domain generalization matrix of each method: tuned on the row's task, tested on the column's."""
    size = max(len(matrix.targets) for matrix in matrices.values())
    figure = Figure(figsize=((1.2 + 0.6 * size) * len(matrices), 1.6 + 0.6 * size), layout="compressed")
    for axes, (method, matrix) in zip(figure.subplots(1, len(matrices), squeeze=False)[0], matrices.items(), strict=True):
        image = 100 * np.asarray([[np.nan if cell is None else cell.mean for cell in row] for row in matrix.cells])
        axes.imshow(image, vmin=0, vmax=100, cmap="viridis")
        for (row, column), value in np.ndenumerate(image):
            if not np.isnan(value):
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value < 60 else "black")
        axes.set_xticks(range(len(matrix.targets)), matrix.targets, rotation=60, ha="right")
        axes.set_yticks(range(len(matrix.sources)), matrix.sources)
        axes.set_title(method)
    return _svg(figure)


def _over_seeds(records: Sequence[Record]) -> Summary | None:
    """Summarize the seeds' mean scores over tasks and patterns; None where there are no records."""
    by_seed: dict[int, list[float]] = {}
    for record in records:
        by_seed.setdefault(record["seed"], []).append(record["score"])
    return summary([float(np.mean(scores)) for scores in by_seed.values()]) if by_seed else None


def _curves(run_dir: str, records: Sequence[Record]) -> dict[str, dict[int, list[float]]]:
    curves: dict[str, dict[int, list[float]]] = {}
    for record in records:
        for point in read_details(run_dir, record)["curve"]:
            curves.setdefault(record["method"], {}).setdefault(point["step"], []).append(point["dev_score"])
    return {method: dict(sorted(curve.items())) for method, curve in curves.items()}


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with rc_context(SVG_SETTINGS):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
