"""Results as tables: mean and standard deviation over data seeds, for the terminal, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from rich.table import Table

from supmer.fewshot.results import Record


class Summary(NamedTuple):
    """Scores of one task and method over seeds; `std` is the sample standard deviation, None for one seed."""

    mean: float
    std: float | None
    num_seeds: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f}" + ("" if self.std is None else f" ± {100 * self.std:.1f}")


class Grid(NamedTuple):
    """Summaries by row label and method, both in order of first appearance."""

    rows: list[str]
    methods: list[str]
    cells: dict[tuple[str, str], Summary]


def summarize(records: Sequence[Record]) -> Grid:
    """Group records by task (and K and pattern, where several occur) and method."""
    several_k = len({record["k"] for record in records}) > 1
    grouped: dict[tuple[str, str], list[float]] = {}
    for record in records:
        grouped.setdefault((_row_label(record, several_k), record["method"]), []).append(record["score"])
    cells = {key: summary(scores) for key, scores in grouped.items()}
    rows = list(dict.fromkeys(row for row, _ in cells))
    return Grid(rows, list(dict.fromkeys(method for _, method in cells)), cells)


def summary(scores: Sequence[float]) -> Summary:
    """Return mean, sample standard deviation and number of scores."""
    return Summary(mean(scores), stdev(scores) if len(scores) > 1 else None, len(scores))


def terminal_table(grid: Grid) -> Table:
    """Return a table to be printed by rich, scores in percent."""
    table = Table(title="few-shot results (%), mean ± standard deviation over data seeds")
    table.add_column("task")
    for method in grid.methods:
        table.add_column(method, justify="right", overflow="fold")
    for row in grid.rows:
        table.add_row(row, *(_text(grid, row, method) for method in grid.methods))
    return table


def markdown_table(grid: Grid) -> str:
    """Return a Markdown table, scores in percent."""
    lines = [_markdown_line(["task", *grid.methods]), _markdown_line(["---"] + ["---:"] * len(grid.methods))]
    lines += [_markdown_line([row, *(_text(grid, row, method) for method in grid.methods)]) for row in grid.rows]
    return "\n".join(lines) + "\n"


def latex_table(grid: Grid) -> str:
    """Return a LaTeX tabular (booktabs), scores in percent, the best mean of each row in bold."""
    lines = [rf"\begin{{tabular}}{{l{'r' * len(grid.methods)}}}", r"\toprule"]
    lines += [" & ".join(_latex(name) for name in ("task", *grid.methods)) + r" \\", r"\midrule"]
    lines += [
        " & ".join([_latex(row), *(_latex_cell(grid, row, method) for method in grid.methods)]) + r" \\" for row in grid.rows
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _row_label(record: Record, several_k: bool) -> str:
    notes = [f"K={record['k']}"] if several_k else []
    notes += [f"pattern {record['pattern']}"] if record["pattern"] else []
    return f"{record['task']} ({', '.join(notes)})" if notes else str(record["task"])


def _text(grid: Grid, row: str, method: str) -> str:
    found = grid.cells.get((row, method))
    return "-" if found is None else str(found)


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _latex_cell(grid: Grid, row: str, method: str) -> str:
    found = grid.cells.get((row, method))
    if found is None:
        return "--"
    best = max(cell.mean for (other, _), cell in grid.cells.items() if other == row)
    value = f"{100 * found.mean:.1f}"
    value = rf"\textbf{{{value}}}" if found.mean == best else value
    return value + ("" if found.std is None else rf" {{\scriptsize $\pm$ {100 * found.std:.1f}}}")


def _latex(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")
