"""Plans as tables, for the terminal and for Markdown pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    heads = ("GPUs", "weights", "activ.", "peak", "max tokens", "GB", "TFLOP", "compute", "step", "ep/s")
    rows = [
        (
            str(one.setting.gpus),
            _gibibytes(one.parameters),
            _gibibytes(one.activations),
            _gibibytes(one.peak) + ("" if fits(one, hardware) else "!"),
            str(one.largest_budget) if one.largest_budget else "none",
            f"{one.gathered / 1e9:.1f}",
            _teraflops(one),
            *_seconds(one.compute_seconds, one.seconds),
            f"{one.episodes_per_second:.3g}",
        )
        for one in found
    ]
    return Figures(title, heads, rows)


def sharding_table(title: str, found: Mapping[str, Sequence[Estimate]], hardware: Hardware) -> Figures:
    """Compare ways of sharding: peak memory and least time of each, one number of GPUs a row."""
    heads = ("GPUs", *(f"{name} {unit}" for unit in ("peak", "gather", "step") for name in found))
    rows = []
    for estimates in zip(*found.values(), strict=True):
        peaks = (_gibibytes(one.peak) + ("" if fits(one, hardware) else "!") for one in estimates)
        gathers = _seconds(*(one.gather_seconds for one in estimates))
        steps = _seconds(*(one.seconds for one in estimates))
        rows.append((str(estimates[0].setting.gpus), *peaks, *gathers, *steps))
    return Figures(title, heads, rows)


def settings_table(title: str, found: Sequence[Estimate]) -> Figures:
    """Lay out settings that differ from row to row."""
    heads = ("GPUs", "sharding", "ckpt", "tokens", "weights", "peak", "TFLOP", "compute", "step", "ep/s")
    rows = [
        (
            str(one.setting.gpus),
            one.setting.sharding,
            "yes" if one.setting.checkpointing else "no",
            str(one.setting.max_tokens),
            _gibibytes(one.parameters),
            _gibibytes(one.peak),
            _teraflops(one),
            *_seconds(one.compute_seconds, one.seconds),
            f"{one.episodes_per_second:.3g}",
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


def _seconds(*values: float) -> Iterator[str]:
    return (f"{value:.2f}" for value in values)


def _teraflops(one: Estimate) -> str:
    number = one.flops / 1e12
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _gibibytes(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f}"
