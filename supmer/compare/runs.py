"""What several runs have in common and what not, as tables and as one page. Differences are taken from the first run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from supmer import storage
from supmer.config import Config
from supmer.config.load import to_yaml
from supmer.config.scalars import parse_yaml
from supmer.errors import UserError, setting_error
from supmer.fewshot.results import Record, Results
from supmer.fewshot.significance import NOTE, Scored, compare_scored, comparison_cells
from supmer.fewshot.summaries import MISSING, summarize
from supmer.reports.drawing import Curve, panels
from supmer.reports.page import figure, heading, page, paragraph, wide
from supmer.reports.tables import Table
from supmer.train.metrics import read_rows
from supmer.train.report import curves_by_kind
from supmer.train.run_dir import RunDirectory

PLACES = ("run.name", "run.dir")
"""Settings in which every two runs differ."""


class Run(NamedTuple):
    """A run directory: its settings by dotted name, its validation losses by kind of task, its few-shot records."""

    name: str
    uri: str
    settings: Mapping[str, Any]
    validation: Mapping[str, Curve]
    records: Sequence[Record]


def read_runs(paths: Sequence[str]) -> list[Run]:
    """Read run directories; those of the same last name are called by their paths.

    Raises:
        UserError: a folder holds no run, or its configuration cannot be read.
    """
    last = [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]
    names = last if len(set(last)) == len(last) else [path.rstrip("/") for path in paths]
    runs = []
    for path, name in zip(paths, names, strict=True):
        directory = RunDirectory(storage.absolute(path))
        if not storage.exists(directory.config):
            raise setting_error("RUN", path, "is no run directory: it has no config.yaml")
        try:
            settings = _flat(parse_yaml(storage.read_bytes(directory.config)))
        except (yaml.YAMLError, RecursionError, AttributeError) as error:
            raise UserError(f"{directory.config}: is not readable") from error
        validation = [row for row in read_rows(directory.metrics) if row["split"] == "validation"]
        losses = curves_by_kind(validation, "query_loss")
        runs.append(Run(name, directory.uri, settings, losses, Results(directory.uri).records))
    return runs


def settings_table(runs: Sequence[Run]) -> Table:
    """Return the settings in which runs differ; those of a single run are compared with the defaults."""
    columns = {run.name: run.settings for run in runs}
    if len(runs) == 1:
        columns["default"] = _flat(parse_yaml(to_yaml(Config())))
    every = dict.fromkeys(name for settings in columns.values() for name in settings if name not in PLACES)
    rows = [[name, *(str(settings.get(name, MISSING)) for settings in columns.values())] for name in every]
    return Table(
        ["settings that differ", *columns], [row for row in rows if len(set(row[1:])) > 1], num_labels=1 + len(columns)
    )


def validation_table(runs: Sequence[Run]) -> Table:
    """Return meta-validation losses by kind of task: at the last step that all runs share, and each run's last."""
    rows = []
    for kind in dict.fromkeys(kind for run in runs for kind in run.validation):
        losses = [dict(zip(*run.validation.get(kind, ([], [])), strict=True)) for run in runs]
        shared = set.intersection(*(set(found) for found in losses))
        if shared:
            rows.append([kind, f"{max(shared):.0f}", *(f"{found[max(shared)]:.4f}" for found in losses)])
        if any(found and max(found) > max(shared, default=-1) for found in losses):
            rows.append([kind, "last", *(f"{found[max(found)]:.4f}" if found else MISSING for found in losses)])
    return Table(["meta-validation query loss", "step", *(run.name for run in runs)], rows)


def scores_table(runs: Sequence[Run]) -> Table:
    """Return few-shot scores in percent, a column for each run."""
    rows = []
    for method in dict.fromkeys(record["method"] for run in runs for record in run.records):
        of_method = ((run, record) for run in runs for record in run.records if record["method"] == method)
        grid = summarize([{**record, "method": run.name} for run, record in of_method])
        rows += [[task, method, *(str(grid.cells.get((task, run.name), MISSING)) for run in runs)] for task in grid.rows]
    return Table(["task", "method", *(run.name for run in runs)], rows, num_labels=2)


def differences_table(runs: Sequence[Run]) -> Table:
    """Return each run's few-shot scores minus those of the first run under the same method, with 95% intervals."""
    first, rows = runs[0], []
    for run in runs[1:]:
        for method in dict.fromkeys(record["method"] for record in run.records):
            ours, theirs = (
                Scored(f"{each.name}: {method}", each.uri, [line for line in each.records if line["method"] == method])
                for each in (run, first)
            )
            rows += [[run.name, method, *comparison_cells(found)] for found in compare_scored(ours, theirs)]
    return Table([f"run minus {first.name}", "method", "task", "points", "95% interval", "p"], rows, num_labels=3)


def tables(runs: Sequence[Run]) -> list[Table]:
    """Return the tables of settings, validation losses, few-shot scores and their differences; some may have no rows."""
    return [settings_table(runs), validation_table(runs), scores_table(runs), differences_table(runs)]


def render(runs: Sequence[Run], folder: str) -> str:
    """Return the page: the tables, and validation curves over each other.

    Args:
        runs: the first one is the one that the others are compared with.
        folder: where the page will lie; its links to the runs' reports lead from there.
    """
    parts: list[str] = [paragraph(", ".join(run.uri for run in runs))]
    differing, validation, scores, differences = tables(runs)
    parts += [heading("Settings that differ"), wide(differing) if differing.rows else paragraph("None.")]
    if validation.rows:
        kinds = [row[0] for row in validation.rows]
        drawn = {kind: {run.name: run.validation[kind] for run in runs if kind in run.validation} for kind in kinds}
        curves = figure(panels(drawn, "meta-steps", "query loss"), "Meta-validation query loss")
        parts += [heading("Meta-validation"), wide(validation), curves]
    if scores.rows:
        parts += [heading("Few-shot scores (%)"), wide(scores)]
    if differences.rows:
        parts += [heading("Differences"), wide(differences), paragraph(NOTE)]
    links = {}
    for run in runs:
        report = RunDirectory(run.uri).report
        if storage.exists(report):  # of a file in a bucket the address is given in full
            links[run.name] = report if "://" in folder + report else quote(os.path.relpath(report, folder))
    return page("Comparison of runs", *parts, links=links)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of sections by dotted names."""
    return {f"{section}.{name}": value for section, settings in values.items() for name, value in settings.items()}
