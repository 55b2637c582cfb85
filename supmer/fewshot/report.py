"""The files that a few-shot comparison leaves beside its results: tables, figures, significance."""

from __future__ import annotations

from collections.abc import Sequence

from supmer import storage
from supmer.fewshot.plots import bars_by_method, curves_by_k, heat_maps, learning_curves
from supmer.fewshot.results import Record, Results
from supmer.fewshot.significance import Comparison, compare_methods
from supmer.fewshot.tables import latex_table, markdown_table, summarize
from supmer.fewshot.transfer import markdown_matrix, transfer_matrices


def write_report(results: Results, methods: Sequence[str]) -> None:
    """Write tables and figures of all results of a run into ``<run>/fewshot/``.

    Args:
        results: the run's results, of this and of earlier comparisons.
        methods: the order of columns; the last one is compared with each of the others.
    """
    order = {method: number for number, method in enumerate(methods)}
    records = sorted(results.records, key=lambda record: order.get(record["method"], len(order)))
    grid = summarize(records)
    files = {
        "table.md": markdown_table(grid).encode(),
        "table.tex": latex_table(grid).encode(),
        "scores.svg": bars_by_method(grid),
        "learning_curves.svg": learning_curves(results.run_dir, records),
    }
    if len({record["k"] for record in records}) > 1:
        files["scores_by_k.svg"] = curves_by_k(records)
    if len(methods) > 1:
        files["significance.md"] = _significance(results.run_dir, records, methods).encode()
    if matrices := transfer_matrices(records, results.transfer):
        tables = [markdown_matrix(method, matrix) for method, matrix in matrices.items()]
        files |= {"transfer.md": "\n".join(tables).encode(), "transfer.svg": heat_maps(matrices)}
    for name, data in files.items():
        storage.write_bytes(storage.join(results.run_dir, "fewshot", name), data)


def _significance(run_dir: str, records: Sequence[Record], methods: Sequence[str]) -> str:
    ours = methods[-1]
    lines = [f"| {ours} minus | task | points | 95% interval | p |", "|---|---|---:|---:|---:|"]
    for k in sorted({record["k"] for record in records}):
        of_k = [record for record in records if record["k"] == k]
        for reference in methods[:-1]:
            lines += [_line(comparison, k) for comparison in compare_methods(run_dir, of_k, ours, reference)]
    return "\n".join(lines) + "\n\nPaired bootstrap over data seeds and test rows.\n"


def _line(comparison: Comparison, k: int) -> str:
    low, high, difference = (100 * value for value in (comparison.low, comparison.high, comparison.difference))
    task = comparison.task or f"mean over tasks (K={k})"
    return f"| {comparison.reference} | {task} | {difference:+.1f} | {low:+.1f} to {high:+.1f} | {comparison.p_value:.3f} |"
