"""Figures as SVG. Equal numbers give equal files."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.colors import TABLEAU_COLORS
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

MAX_POINTS = 500
"""Longer curves are drawn as means over stretches of their points, so that files stay small."""
MAX_COLUMNS = 3

STYLES = cycler(linestyle=["-", "--", ":"]) * cycler(color=list(TABLEAU_COLORS.values()))
HATCHES = ("", "///", "...")
"""Ten colours can be told apart: the next ten curves are dashed, and the next ten bars hatched."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Positions and values."""
Point = tuple[int, float, float]
"""Position, value, error."""


def svg(figure: Figure, salt: str = "supmer", **options: Any) -> bytes:
    """Return a figure as an SVG file: text stays text, and identifiers depend on the content and `salt` only."""
    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", **{"metadata": {"Date": None}, **options})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file's ending names; SVG as `svg` makes it."""
    if path.suffix == ".svg":
        path.write_bytes(svg(figure))
    else:
        figure.savefig(path, dpi=150)


def curves(found: Mapping[str, Curve], xlabel: str, marker: str = "") -> Figure:
    """Draw curves by name over one axis, with the legend beside them."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(STYLES)
    for name, (positions, values) in found.items():
        shown = marker or ("o" if len(values) == 1 else "")  # a line of one point is not seen
        axes.plot(_thin(positions), _thin(values), label=name, marker=shown, linewidth=1)
    axes.set_xlabel(xlabel)
    axes.grid(alpha=0.3)
    if found:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def panels(found: Mapping[str, Mapping[str, Curve]], xlabel: str, ylabel: str) -> Figure:
    """Draw curves by name in one panel for each title."""
    num_columns = min(MAX_COLUMNS, len(found))
    num_rows = math.ceil(len(found) / num_columns)
    figure = Figure(figsize=(5 * num_columns, 3.2 * num_rows), layout="constrained")
    every = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for axes, (title, lines) in zip(every, found.items(), strict=False):
        axes.set_prop_cycle(STYLES)
        for name, (positions, values) in lines.items():
            axes.plot(positions, values, label=name)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    for axes in every[len(found) :]:
        axes.axis("off")
    every[0].legend(fontsize="small")
    return figure


def bars(groups: Sequence[str], series: Mapping[str, Sequence[tuple[float, float]]], ylabel: str) -> Figure:
    """Draw, for each group, a bar of each series: a value with an error; NaN leaves a bar out."""
    figure = Figure(figsize=(max(6.0, 1.2 * len(groups)), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(series)
    for number, (name, pairs) in enumerate(series.items()):
        shown = [(group, *pair) for group, pair in enumerate(pairs) if not math.isnan(pair[0])]
        positions = [group - 0.4 + (number + 0.5) * width for group, _, _ in shown]
        heights, errors = [value for _, value, _ in shown], [error for _, _, error in shown]
        hatch = HATCHES[number // len(TABLEAU_COLORS) % len(HATCHES)]
        axes.bar(positions, heights, width, yerr=errors, capsize=2, hatch=hatch, label=name)
    axes.set_xticks(range(len(groups)), groups, rotation=30, ha="right")
    axes.set_ylabel(ylabel)
    if len(series) > 1:
        figure.legend(loc="outside upper center", ncols=len(series), fontsize="small")
    return figure


def stacked_steps(positions: Sequence[float], found: Mapping[str, Sequence[int]], xlabel: str, ylabel: str) -> Figure:
    """Draw numbers by name as steps over one axis, stacked."""
    figure = Figure(figsize=(7, 2.5), layout="constrained")
    axes = figure.add_subplot()
    axes.stackplot(positions, list(found.values()), labels=list(found), step="post", alpha=0.8)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, positions[-1]))
    axes.set_ylim(0, max(sum(column) for column in zip(*found.values(), strict=True)) + 1.5)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", ncols=len(found), frameon=False)
    return figure


def doubling_curves(
    found: Mapping[str, Mapping[str, Sequence[Point]]], xlabel: str, limits: Mapping[str, float] | None = None
) -> Figure:
    """Draw points by name, one panel for each y label; the axis doubles at equal steps.

    `limits` draws a dashed line across the panels that it names.
    """
    figure = Figure(figsize=(6 * len(found), 4), layout="constrained")
    for axes, (ylabel, lines) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for name, points in lines.items():
            positions, values, errors = zip(*points, strict=True)
            axes.errorbar(positions, values, yerr=errors if any(errors) else None, marker="o", capsize=3, label=name)
        if limits and ylabel in limits:
            axes.axhline(limits[ylabel], color="grey", linestyle="--", label="usable")
        ticks = sorted({position for points in lines.values() for position, _, _ in points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def sizes_and_places(
    sizes: Mapping[str, Sequence[int]], places: Sequence[tuple[float, float, str]], titles: tuple[str, str]
) -> Figure:
    """Draw groups as stacked bars of their parts' sizes, in the order given, and as dots [x, y, label] of these sizes."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    bars, plane = figure.subplots(1, 2, width_ratios=(2, 3))
    total = np.zeros(len(places))
    for name, numbers in sizes.items():
        bars.bar(range(len(places)), numbers, bottom=total, width=1.0, label=name)
        total += numbers
    bars.set(xlabel="clusters, by size", ylabel="units", yscale="log", title=titles[0])
    bars.legend()
    plane.scatter([x for x, _, _ in places], [y for _, y, _ in places], s=600 * total / total.max(), alpha=0.4)
    for x, y, label in places:
        plane.annotate(label, (x, y), fontsize=7, ha="center", va="center")
    plane.set(title=titles[1], xticks=[], yticks=[])
    return figure


def heat_maps(found: Mapping[str, tuple[Sequence[str], Sequence[str], Sequence[Sequence[float]]]]) -> Figure:
    """Draw matrices of percentages by title, each as (row names, column names, values); NaN stays empty."""
    size = max(len(columns) for _, columns, _ in found.values())
    figure = Figure(figsize=((1.2 + 0.6 * size) * len(found), 1.6 + 0.6 * size), layout="compressed")
    every = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (title, (rows, columns, values)) in zip(every, found.items(), strict=True):
        image = np.asarray(values, float)
        axes.imshow(image, vmin=0, vmax=100, cmap="viridis")
        for (row, column), value in np.ndenumerate(image):
            if not np.isnan(value):
                axes.text(
                    column, row, f"{value:.0f}", ha="center", va="center", color="#ffffff" if value < 60 else "#111111"
                )
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_title(title)
    return figure


def _thin(values: Sequence[float]) -> list[float]:
    return [float(part.mean()) for part in np.array_split(np.asarray(values, float), min(MAX_POINTS, len(values)))]
