"""Domain generalization: tuned on one task, tested on the others of its format (section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from supmer.fewshot.results import Record
from supmer.fewshot.tables import Summary, summary


class Matrix(NamedTuple):
    """Scores of one method by source (rows) and target task; None where a pair was not tested."""

    sources: list[str]
    targets: list[str]
    cells: list[list[Summary | None]]


def transfer_matrices(records: Sequence[Record], transfer: Sequence[Record]) -> dict[str, Matrix]:
    """Return a matrix per method; the diagonal holds the scores on the tasks' own test rows.

    Args:
        records: lines of `fewshot.jsonl`.
        transfer: lines of `transfer.jsonl`.
    """
    own = [{**record, "source": record["task"], "target": record["task"]} for record in records]
    matrices = {}
    for method in dict.fromkeys(line["method"] for line in transfer):
        involved = {line[end] for line in transfer if line["method"] == method for end in ("source", "target")}
        matrices[method] = _matrix(
            [line for line in (*own, *transfer) if line["method"] == method and line["source"] in involved]
        )
    return matrices


def markdown_matrix(method: str, matrix: Matrix) -> str:
    """Return a Markdown table, scores in percent."""
    lines = [f"| {method}: tuned on | " + " | ".join(matrix.targets) + " |", "|---|" + "---:|" * len(matrix.targets)]
    for source, row in zip(matrix.sources, matrix.cells, strict=True):
        lines.append(f"| {source} | " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |")
    return "\n".join(lines) + "\n"


def _matrix(lines: list[Record]) -> Matrix:
    scores: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        scores.setdefault((line["source"], line["target"]), []).append(line["score"])
    sources = list(dict.fromkeys(source for source, _ in scores))
    targets = list(dict.fromkeys([*sources, *(target for _, target in scores)]))

    def cell(source: str, target: str) -> Summary | None:
        return summary(scores[source, target]) if (source, target) in scores else None

    return Matrix(sources, targets, [[cell(source, target) for target in targets] for source in sources])
