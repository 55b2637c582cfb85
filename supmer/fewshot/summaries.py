"""Few-shot results over seeds: the table of scores, the domain generalization matrix, and a sentence on the outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from supmer.fewshot.results import Record
from supmer.reports.tables import Table

TITLE = "few-shot results (%), mean ± standard deviation (minimum) over data and training seeds"
MISSING = "-"


class Summary(NamedTuple):
    """Scores of one task and method over seeds; `std` is the sample standard deviation, None for one cell."""

    mean: float
    std: float | None
    minimum: float

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {100 * self.std:.1f} ({100 * self.minimum:.1f})"
        return f"{100 * self.mean:.1f}{spread}"

    @property
    def percent(self) -> tuple[float, float]:
        """Mean and deviation in percent; the deviation of one cell is 0."""
        return 100 * self.mean, 100 * (self.std or 0.0)


class Grid(NamedTuple):
    """Summaries by row and column, both in order of first appearance; not every pair is there."""

    rows: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], Summary]

    def table(self, corner: str = "task", title: str = "") -> Table:
        """Return a table of the scores in percent."""
        rows = [[row, *(str(self.cells.get((row, column), MISSING)) for column in self.columns)] for row in self.rows]
        return Table([corner, *self.columns], rows, title)

    def percent(self, row: str, column: str) -> tuple[float, float]:
        """Return mean and deviation in percent, for figures; NaN where the pair is not there."""
        return self.cells[row, column].percent if (row, column) in self.cells else (math.nan, 0.0)

    def best(self) -> frozenset[tuple[int, int]]:
        """Return where the table has the best mean of each row."""
        found = set()
        for number, row in enumerate(self.rows):
            means = {name: self.cells[row, name].mean for name in self.columns if (row, name) in self.cells}
            found |= {(number, self.columns.index(name) + 1) for name in means if means[name] == max(means.values())}
        return frozenset(found)


def summarize(records: Sequence[Record]) -> Grid:
    """Group records by task (and metric, K and pattern, where several occur) and method."""
    return _grid([(row, record["method"], record["score"]) for row, record in by_row(records)])


def by_row(records: Sequence[Record]) -> list[tuple[str, Record]]:
    """Return a record for each metric of each record, with that metric as its score; first of all the first metrics.

    Beside each is what a table calls it: its task, and its metric, K and pattern, where several occur.

    >>> by_row([{"task": "cb", "k": 16, "pattern": 0, "metrics": {"accuracy": 0.8, "macro_f1": 0.6}}])[1]
    ('cb (macro_f1)', {'task': 'cb', 'k': 16, 'pattern': 0, 'metrics': {'accuracy': 0.8, 'macro_f1': 0.6}, 'score': 0.6})
    """
    several_k = len({record["k"] for record in records}) > 1
    found = []
    for record in records:
        metrics = metrics_of(record)
        for place, (metric, score) in enumerate(metrics.items()):
            notes = [metric] if len(metrics) > 1 else []
            notes += [f"K={record['k']}"] if several_k else []
            notes += [f"pattern {record['pattern']}"] if record["pattern"] else []
            name = f"{record['task']} ({', '.join(notes)})" if notes else record["task"]
            found.append((place, name, {**record, "score": score}))
    return [(name, record) for _, name, record in sorted(found, key=lambda entry: entry[0])]


def metrics_of(record: Record) -> dict[str, float]:
    """Return the metrics of a record; earlier versions had one, the score."""
    metrics: dict[str, float] = record.get("metrics") or {record.get("metric", ""): record["score"]}
    return metrics


def transfer_grids(records: Sequence[Record], transfer: Sequence[Record]) -> dict[str, Grid]:
    """Return, by method, the scores of prompts tuned on one task (rows) and tested on another (columns).

    The diagonal holds the scores on the tasks' own test rows. The lines are those of `fewshot.jsonl` and `transfer.jsonl`.
    """
    grids = {}
    for method in dict.fromkeys(line["method"] for line in transfer):
        away = [line for line in transfer if line["method"] == method]
        involved = {line[end] for line in away for end in ("source", "target")}
        own = [line for line in records if line["method"] == method and line["task"] in involved]
        found = [(line["task"], line["task"], line["score"]) for line in own]
        grid = _grid([*found, *((line["source"], line["target"], line["score"]) for line in away)])
        grids[method] = grid._replace(columns=list(dict.fromkeys([*grid.rows, *grid.columns])))
    return grids


def by_seed(records: Sequence[Record]) -> dict[tuple[int, int], float]:
    """Return the mean score over tasks and patterns of each data seed with each training seed."""
    found: dict[tuple[int, int], list[float]] = {}
    for record in records:
        found.setdefault((record["seed"], record["training_seed"]), []).append(record["score"])
    return {seeds: mean(scores) for seeds, scores in found.items()}


def summary(scores: Sequence[float]) -> Summary:
    """Return mean, sample standard deviation and minimum of scores."""
    return Summary(mean(scores), stdev(scores) if len(scores) > 1 else None, min(scores))


def outcome(records: Sequence[Record]) -> str:
    """Say which method is ahead of the next by how much, and whether that is beyond the spread between seeds.

    Methods are compared on the cells that all of them have. The spread is the larger standard deviation, over data and
    training seeds, of the two methods' mean scores.
    """
    by_method: dict[str, dict[tuple[object, ...], Record]] = {}
    for record in records:
        cell = tuple(record[name] for name in ("task", "k", "pattern", "seed", "training_seed"))
        by_method.setdefault(record["method"], {})[cell] = record
    shared = set.intersection(*(set(cells) for cells in by_method.values())) if by_method else set()
    if len(by_method) < 2 or not shared:
        return "There are no two methods to compare."
    seeds = {method: by_seed([cells[cell] for cell in shared]) for method, cells in by_method.items()}
    scores = {method: summary(list(found.values())) for method, found in seeds.items()}
    first, second, *_ = sorted(scores, key=lambda method: -scores[method].mean)
    points = 100 * (scores[first].mean - scores[second].mean)
    if round(points, 1) == 0:
        return f"{first} and {second} are equal to a tenth of a point."
    ahead = f"{first} is ahead of {second} by {points:.1f} points"
    spreads = [scores[method].std for method in (first, second)]
    if None in spreads:
        return f"{ahead}; with one seed nothing says whether that is more than chance."
    spread = 100 * max(std for std in spreads if std is not None)
    if points > spread:
        return f"{ahead}, more than the spread between seeds ({spread:.1f} points)."
    return f"{ahead}, no more than the spread between seeds ({spread:.1f} points): this is no evidence of a difference."


def _grid(scores: Sequence[tuple[str, str, float]]) -> Grid:
    grouped: dict[tuple[str, str], list[float]] = {}
    for row, column, score in scores:
        grouped.setdefault((row, column), []).append(score)
    rows, columns = (list(dict.fromkeys(pair[side] for pair in grouped)) for side in (0, 1))
    return Grid(rows, columns, {pair: summary(found) for pair, found in grouped.items()})
