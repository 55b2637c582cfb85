"""`sweep.html`: all trials of a sweep in one file that opens offline.

Optuna draws its figures with matplotlib. Its other backend, plotly, would add a dependency, and 4 MB of script to each page.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import matplotlib
import optuna
from matplotlib import pyplot
from matplotlib.colors import LinearSegmentedColormap
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState
from optuna.visualization.matplotlib import plot_parallel_coordinate

from supmer import storage
from supmer.config import Config
from supmer.reports.drawing import bars, curves
from supmer.reports.page import figure, heading, page, paragraph, wide
from supmer.reports.tables import Table
from supmer.tune.objectives import FEWSHOT
from supmer.tune.result import TrialRecord, ranked, summary, trials_table
from supmer.tune.search import frozen_trial
from supmer.tune.trial_config import TRIALS

FILE_NAME = "sweep.html"
MIN_TRIALS_FOR_IMPORTANCE = 4
GOOD_TO_POOR = LinearSegmentedColormap.from_list("good to poor", ["tab:blue", "tab:orange"])
"""Optuna's own colours go from white to navy: on a light page its poor trials are not seen, on a dark one its good ones."""


def write_page(config: Config, records: Sequence[TrialRecord]) -> str:
    uri = storage.join(config.run_dir, FILE_NAME)
    storage.write_bytes(uri, render(config, records).encode())
    return uri


def render(config: Config, records: Sequence[TrialRecord]) -> str:
    head = f"{summary(config, records)}. Searcher {config.tune.searcher}, scheduler {config.tune.scheduler}."
    parts: list[str] = [paragraph(head)]
    for objective in config.tune.objectives:
        with_value = [record for record in records if math.isfinite(record.value(objective))]
        if not with_value:
            continue
        found = {record.trial: record.curve(objective) for record in with_value}
        drawn = {f"{objective}: learning curves": curves(found, "meta-steps", "o")}
        matplotlib.use("agg")  # no display
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", "Attempting to set identical low and high")  # the first trial
            axes = plot_parallel_coordinate(_study(config, with_value, objective), target_name=objective)
        axes.set_title("")  # the page has a heading
        for lines in axes.collections:
            lines.set_cmap(GOOD_TO_POOR.reversed() if objective == FEWSHOT else GOOD_TO_POOR)
        coordinates = drawn[f"{objective}: parallel coordinates"] = axes.get_figure()
        coordinates.set_size_inches(11, 4.5)
        step, compared = compared_study(config, with_value, objective)
        if shares := importances(compared):
            title = f"{objective}: importance of each setting, at meta-step {step}"
            drawn[title] = bars(list(shares), {"importance": [(share, 0.0) for share in shares.values()]}, "importance")
        for title, each in drawn.items():
            parts += [heading(title), figure(each, title)]
        pyplot.close(coordinates)
    table = trials_table(config, records)
    ends = [
        [f"{record.seconds:.0f}", str(record.attempts), record.error or "", record.command]
        for record in ranked(config, records)
    ]
    rows = [[*row, *end] for row, end in zip(table.rows, ends, strict=True)]
    whole = Table([*table.heads, "seconds", "attempts", "error", "repeat it by"], rows, num_labels=2)
    reports = {record.trial: f"{TRIALS}/{record.trial}/report.html" for record in records}
    links = {trial: report for trial, report in reports.items() if storage.exists(storage.join(config.run_dir, report))}
    return page(f"Sweep {config.run.name}", *parts, heading("Trials"), wide(whole), links=links)


def compared_study(config: Config, records: Sequence[TrialRecord], objective: str) -> tuple[int, optuna.Study]:
    """Return the study of an objective at the last meta-step that all trials have reached, and that meta-step.

    Trials that were stopped have no final value, and the few that were not differ little.
    """
    alive = [record for record in records if record.rungs and record.status != "diverged"]
    step = min((record.step for record in alive), default=0)
    return step, _study(config, alive, objective, step)


def importances(study: optuna.Study) -> dict[str, float]:
    """Return how much each dimension matters (parts of 1, by Optuna's fANOVA); nothing of fewer than four trials."""
    if len(study.trials) < MIN_TRIALS_FOR_IMPORTANCE:
        return {}
    try:
        return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))
    except (RuntimeError, ValueError):  # one value only, or no dimension that all trials have
        return {}


def _study(config: Config, records: Sequence[TrialRecord], objective: str, step: int | None = None) -> optuna.Study:
    """Return a study of one objective: the newest value of each trial, or the value at a meta-step."""
    study = optuna.create_study(direction="maximize" if objective == FEWSHOT else "minimize")
    for record in records:
        value = record.value(objective, step)
        if math.isfinite(value):
            study.add_trial(frozen_trial(config, record, TrialState.COMPLETE, [value]))
    return study
