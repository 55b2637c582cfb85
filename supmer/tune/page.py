"""`sweep.html`: all trials of a sweep in one file without outside references; figures are inline SVG."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from supmer import storage
from supmer.config import Config
from supmer.tune.board import format_value
from supmer.tune.objectives import as_cost
from supmer.tune.outcome import ranked, steps_spent
from supmer.tune.records import TrialRecord
from supmer.tune.study import frozen_trial

FILE_NAME = "sweep.html"
MIN_TRIALS_FOR_IMPORTANCE = 4

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;font-size:.85rem}td,th{padding:.2rem .6rem;text-align:left;border-bottom:1px solid #ccc}"
    "svg{max-width:100%;height:auto}code{font-size:.8rem}div{overflow-x:auto}"
)


def write_page(config: Config, records: Sequence[TrialRecord]) -> str:
    """Write the page and return where it is."""
    uri = storage.join(config.run_dir, FILE_NAME)
    storage.write_bytes(uri, render(config, records).encode())
    return uri


def render(config: Config, records: Sequence[TrialRecord]) -> str:
    """Return the page."""
    title = html.escape(f"Sweep {config.run.name}")
    parts = [_summary(config, records)]
    for objective in config.tune.objectives:
        shown = [record for record in records if math.isfinite(record.value(objective))]
        if shown:
            parts += [_section(config, shown, objective)]
    parts += [_table(config, records)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
        f"<body><h1>{title}</h1>{''.join(parts)}</body></html>\n"
    )


def importances(config: Config, records: Sequence[TrialRecord], objective: str) -> tuple[int, dict[str, float]]:
    """Return how much each dimension matters (shares of 1, by Optuna's fANOVA), judged where the most trials compare.

    Trials that were stopped have no final value, and the few that were not differ little. So trials are compared at the
    last meta-step that all have reached, which is returned too; there is nothing to tell of fewer than four trials.
    """
    alive = [record for record in records if record.rungs and record.status != "diverged"]
    step = min((record.step for record in alive), default=0)
    compared = [record for record in alive if math.isfinite(record.value(objective, step))]
    if len(compared) < MIN_TRIALS_FOR_IMPORTANCE:
        return step, {}
    study = optuna.create_study()
    study.add_trials(
        [frozen_trial(config, record, as_cost(objective, record.value(objective, step))) for record in compared]
    )
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return step, optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError):  # one value only, or no dimension that all trials have
        return step, {}


def _summary(config: Config, records: Sequence[TrialRecord]) -> str:
    spent, whole = steps_spent(records), len(records) * config.meta.steps
    statuses = [record.status for record in records]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    share = f"; {spent:,} meta-steps, {spent / whole:.0%} of running each trial to its end" if whole else ""
    return (
        f"<p>{len(records)} trials: {counts}{share}. Searcher {config.tune.searcher}, scheduler {config.tune.scheduler}.</p>"
    )


def _section(config: Config, records: Sequence[TrialRecord], objective: str) -> str:
    values = np.array([record.value(objective) for record in records])
    order = np.argsort([as_cost(objective, value) for value in values])[::-1]  # the best are drawn last, on top
    colours = _colours([as_cost(objective, value) for value in values])
    ordered = [(records[index], colours[index]) for index in order]
    step, shares = importances(config, records, objective)
    parts = [
        f"<h2>{html.escape(objective)}</h2>",
        _figure("Learning curves", lambda axes: _draw_curves(axes, ordered, objective)),
        _figure("Parallel coordinates", lambda axes: _draw_parallel(axes, ordered, objective)),
    ]
    if shares:
        title = f"Importance of each setting, at meta-step {step}"
        parts.append(_figure(title, lambda axes: _draw_importances(axes, shares), height=1 + 0.35 * len(shares)))
    return "".join(parts)


def _draw_curves(axes: Axes, ordered: Sequence[tuple[TrialRecord, Any]], objective: str) -> None:
    for record, colour in ordered:
        points = [(rung.step, rung.values[objective]) for rung in record.rungs if rung.values.get(objective) is not None]
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, linewidth=1)
        axes.annotate(record.trial, points[-1], fontsize=7, xytext=(3, 0), textcoords="offset points")
    axes.set_xlabel("meta-steps")
    axes.grid(alpha=0.3)


def _draw_parallel(axes: Axes, ordered: Sequence[tuple[TrialRecord, Any]], objective: str) -> None:
    """Draw an axis for each setting and one for the objective; a trial is a line, broken where a setting is not active."""
    names = list(dict.fromkeys(name for record, _ in ordered for name in record.settings))
    columns = [_scaled([record.settings.get(name) for record, _ in ordered]) for name in names]
    columns.append(_scaled([record.value(objective) for record, _ in ordered]))
    for index, (_, colour) in enumerate(ordered):
        axes.plot(range(len(columns)), [places[index] for places, _ in columns], color=colour, linewidth=1.2, marker=".")
    for position, (_, labels) in enumerate(columns):
        axes.axvline(position, color="#999", linewidth=0.6)
        for height, label in labels:
            axes.annotate(label, (position, height), fontsize=7, xytext=(3, 2), textcoords="offset points")
    axes.set_xticks(range(len(columns)), [*names, objective], fontsize=8, rotation=20, ha="right")
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.1)
    axes.spines[:].set_visible(False)


def _draw_importances(axes: Axes, shares: dict[str, float]) -> None:
    names = list(reversed(shares))
    axes.barh(names, [shares[name] for name in names], color="#4477aa")
    axes.set_xlim(0, 1)


def _scaled(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Return heights from 0 to 1 (NaN for None), and the labels of an axis: numbers by size, other values evenly."""
    numbers = [value for value in values if value is not None]
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers):
        low, high = min(numbers), max(numbers)
        is_log = low > 0 and high / low > 20
        scale: Callable[[float], float] = math.log if is_log else float
        span = scale(high) - scale(low) or 1.0
        places = {value: (scale(value) - scale(low)) / span for value in numbers}
        ends = dict.fromkeys((low, high))
        return [places.get(value, math.nan) for value in values], [(places[end], format_value(end)) for end in ends]
    labels = list(dict.fromkeys(format_value(value) for value in numbers))
    height = {label: index / max(1, len(labels) - 1) for index, label in enumerate(labels)}
    return [math.nan if value is None else height[format_value(value)] for value in values], [
        (place, label) for label, place in height.items()
    ]


def _colours(costs: Sequence[float]) -> list[Any]:
    """Colour by rank, the best dark: one diverging trial must not make the others look alike."""
    ranks = np.argsort(np.argsort(costs)) / max(1, len(costs) - 1)
    return [colormaps["viridis"](0.95 * rank) for rank in ranks]


def _table(config: Config, records: Sequence[TrialRecord]) -> str:
    names = list(dict.fromkeys(name for record in records for name in record.settings))
    head = ["trial", "status", "step", *config.tune.objectives, *names, "seconds", "attempts", "error", "repeat it by"]
    rows = [
        [
            record.trial,
            record.status,
            str(record.step),
            *(format_value(record.value(name)) for name in config.tune.objectives),
            *(format_value(record.settings.get(name)) for name in names),
            f"{record.seconds:.0f}",
            str(record.attempts),
            record.error or "",
            record.command,
        ]
        for record in ranked(config, records)
    ]
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    titles = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    return f"<h2>Trials</h2><div><table><tr>{titles}</tr><tr>{'</tr><tr>'.join(lines)}</tr></table></div>"


def _figure(title: str, draw: Callable[[Axes], None], height: float = 4) -> str:
    figure = Figure(figsize=(11, height), layout="constrained")
    draw(figure.add_subplot())
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return f"<h3>{html.escape(title)}</h3>{svg[svg.index('<svg') :]}"
