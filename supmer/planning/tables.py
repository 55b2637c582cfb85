"""Plans as tables, for the terminal and for Markdown pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.table import Table

from supmer.planning.estimate import Estimate
from supmer.planning.hardware import Hardware
from supmer.planning.search import fits


class Figures(NamedTuple):
    """A table's title, column heads and cells."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def sweep_table(title: str, found: Sequence[Estimate], hardware: Hardware) -> Figures:
    """Lay out one configuration on several numbers of GPUs."""
    heads = ("GPUs", "episodes", "weights GiB", "activ. GiB", "peak GiB", "largest budget", "GB", "TFLOP", *_TIMES)
    rows = [
        (
            str(one.setting.gpus),
            str(one.setting.tasks),
            _gibibytes(one.parameters),
            _gibibytes(one.activations),
            _gibibytes(one.peak) + ("" if fits(one, hardware) else " !"),
            str(one.largest_budget) if one.largest_budget else "none",
            *_work(one),
            *_times(one),
        )
        for one in found
    ]
    return Figures(title, heads, rows)


def sharding_table(title: str, found: Mapping[str, Sequence[Estimate]], hardware: Hardware) -> Figures:
    """Compare ways of sharding: peak memory and least time of each, one number of GPUs a row."""
    heads = ("GPUs", *(f"{name} {unit}" for unit in ("GiB", "gather s", "step s") for name in found))
    rows = []
    for estimates in zip(*found.values(), strict=True):
        peaks = (_gibibytes(one.peak) + ("" if fits(one, hardware) else " !") for one in estimates)
        gathers = (f"{one.gather_seconds:.2f}" for one in estimates)
        steps = (f"{one.seconds:.2f}" for one in estimates)
        rows.append((str(estimates[0].setting.gpus), *peaks, *gathers, *steps))
    return Figures(title, heads, rows)


def settings_table(title: str, found: Sequence[Estimate]) -> Figures:
    """Lay out settings that differ from row to row."""
    heads = ("GPUs", "episodes", "sharding", "check-pointing", "budget", "weights GiB", "peak GiB", "GB", "TFLOP", *_TIMES)
    rows = [
        (
            str(one.setting.gpus),
            str(one.setting.tasks),
            one.setting.sharding,
            "yes" if one.setting.checkpointing else "no",
            str(one.setting.max_tokens),
            _gibibytes(one.parameters),
            _gibibytes(one.peak),
            *_work(one),
            *_times(one),
        )
        for one in found
    ]
    return Figures(title, heads, rows)


def terminal_table(table: Figures) -> Table:
    """Return a table for `rich` to print."""
    drawn = Table(title=table.title, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for head in table.heads:
        drawn.add_column(head, justify="right")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def markdown_table(table: Figures) -> str:
    """Return the same in Markdown."""
    lines = [table.heads, ["---:"] * len(table.heads), *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_TIMES = ("compute s", "gather s", "step s", "episodes/s")


def _times(one: Estimate) -> tuple[str, ...]:
    seconds = (one.compute_seconds, one.gather_seconds, one.seconds, one.episodes_per_second)
    return tuple(f"{value:.2f}" for value in seconds)


def _work(one: Estimate) -> tuple[str, str]:
    return f"{one.gathered / 1e9:.1f}", f"{one.flops / 1e12:.3g}"


def _gibibytes(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f}"
