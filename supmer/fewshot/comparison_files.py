"""The files that a few-shot comparison leaves beside its results: tables, figures, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from supmer import storage
from supmer.fewshot.data import Row, by_size
from supmer.fewshot.report import scores_table, task_parts
from supmer.fewshot.results import Record, Results, read_details
from supmer.fewshot.significance import NOTE, compare_methods, comparison_cells
from supmer.fewshot.summaries import TITLE, by_seed, outcome, summarize, summary, transfer_grids
from supmer.reports import drawing
from supmer.reports.drawing import Curve
from supmer.reports.page import figure, heading, page, paragraph, wide
from supmer.reports.tables import Table
from supmer.train.report import write_report
from supmer.train.run_dir import RunDirectory


def write_files(results: Results, methods: Sequence[str], test_rows: Mapping[str, Sequence[Row]] | None = None) -> None:
    """Write tables, figures and `report.html` of all results of a run into ``<run>/fewshot/``.

    `methods` is the order of columns; the last one is compared with each of the others. The page shows some of `test_rows`.
    """
    order = {method: number for number, method in enumerate(methods)}
    records = sorted(results.records, key=lambda record: order.get(record["method"], len(order)))
    grid, learning = summarize(records), _learning_curves(results.run_dir, records)
    by_method = {method: [grid.percent(row, method) for row in grid.rows] for method in grid.columns}
    scores, by_k = drawing.bars(grid.rows, by_method, "test score (%)"), _scores_by_k(records)
    figures = {"scores": scores, "learning_curves": drawing.panels(learning, "step", "dev score (%)"), "scores_by_k": by_k}
    tables = {"table": grid.table().markdown() + "\n"}
    parts: list[str] = [paragraph(outcome(records)), paragraph(f"{TITLE[0].upper()}{TITLE[1:]}."), wide(grid.table())]
    parts.append(figure(scores, "Scores"))
    if len(methods) > 1:
        lines = [
            [reference, *comparison_cells(found, f"mean over tasks (K={k})")]
            for k in sorted({record["k"] for record in records}, key=by_size)
            for reference in methods[:-1]
            for found in compare_methods(
                results.run_dir, [record for record in records if record["k"] == k], methods[-1], reference
            )
        ]
        compared = Table([f"{methods[-1]} minus", "task", "points", "95% interval", "p"], lines, num_labels=2)
        tables["significance"] = f"{compared.markdown()}\n\n{NOTE}\n"
        parts += [heading("Differences"), wide(compared), paragraph(NOTE)]
    parts += [heading("Scores and what they took"), wide(scores_table(records))]
    if by_k is not None:
        parts += [heading("Scores by K"), figure(by_k, "Scores by K")]
    if grids := transfer_grids(records, results.transfer):
        moved = [away.table(f"{method}: tuned on") for method, away in grids.items()]
        tables["transfer"] = "\n".join(table.markdown() + "\n" for table in moved)
        shown = {
            method: (away.rows, away.columns, [[away.percent(row, to)[0] for to in away.columns] for row in away.rows])
            for method, away in grids.items()
        }
        maps = figures["transfer"] = drawing.heat_maps(shown)
        parts += [heading("Domain generalization"), *map(wide, moved), figure(maps, "Domain generalization")]
    for task, about in task_parts(results.run_dir, records, test_rows or {}).items():
        (title,) = (title for title in learning if title.startswith(f"{task} (K="))
        curves = drawing.panels({title: learning[title]}, "step", "dev score (%)")
        parts += [heading(title), figure(curves, f"Learning curves of {title}"), *about]
    files = {f"{name}.md": text.encode() for name, text in tables.items()}
    files |= {f"{name}.svg": drawing.svg(drawn) for name, drawn in figures.items() if drawn is not None}
    files["table.tex"] = grid.table().latex(bold=grid.best()).encode()
    directory = RunDirectory(results.run_dir)
    links = {"The run": "../report.html"} if storage.exists(directory.metrics) else {}
    files["report.html"] = page("Few-shot results", *parts, links=links).encode()
    for name, data in files.items():
        storage.write_bytes(storage.join(results.run_dir, "fewshot", name), data)
    if links:
        write_report(directory)  # which now links to these results


def _learning_curves(run_dir: str, records: Sequence[Record]) -> dict[str, dict[str, Curve]]:
    """Return, by task, each method's dev score by step: the mean over seeds, at the largest K of the task."""
    found: dict[str, dict[str, Curve]] = {}
    for task in dict.fromkeys(record["task"] for record in records):
        k = max((record["k"] for record in records if record["task"] == task), key=by_size)
        by_step: dict[str, dict[int, list[float]]] = {}
        for record in records:
            if (record["task"], record["k"]) == (task, k):
                for point in read_details(run_dir, record)["curve"]:
                    by_step.setdefault(record["method"], {}).setdefault(point["step"], []).append(point["dev_score"])
        lines = {method: sorted(curve.items()) for method, curve in by_step.items()}
        found[f"{task} (K={k})"] = {
            method: ([step for step, _ in curve], [100 * sum(scores) / len(scores) for _, scores in curve])
            for method, curve in lines.items()
        }
    return found


def _scores_by_k(records: Sequence[Record]) -> Figure | None:
    """Draw the mean over tasks by K; only tasks that were tuned with every K count, so that all points are comparable."""
    records = [record for record in records if record["k"] != "all"]  # how many these are differs by class and task
    every = {record["k"] for record in records}
    by_task: dict[str, set[int]] = {}
    for record in records:
        by_task.setdefault(record["task"], set()).add(record["k"])
    tasks = sorted(task for task, numbers in by_task.items() if numbers == every)
    if len(every) < 2 or not tasks:
        return None
    points: dict[str, list[tuple[int, float, float]]] = {}
    for method in dict.fromkeys(record["method"] for record in records if record["task"] in tasks):
        for k in sorted(every):
            chosen = [r for r in records if (r["method"], r["k"]) == (method, k) and r["task"] in tasks]
            if chosen:
                points.setdefault(method, []).append((k, *summary(list(by_seed(chosen).values())).percent))
    return drawing.doubling_curves({f"test score (%), mean over {', '.join(tasks)}": points}, "rows per class (K)")
