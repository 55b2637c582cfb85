"""The experiment behind the claim: SUPMER against vanilla prompt tuning and PPT, over tasks and data seeds (section 7)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import mean
from typing import Any

from supmer import storage
from supmer.config import Config
from supmer.fewshot.results import Record
from supmer.fewshot.significance import Comparison, compare_methods
from supmer.train.metrics import read_rows
from supmer.train.run_dir import RunDirectory

OURS = "supmer"
HEADLINES = {"supmer_minus_vanilla": "prompt_tuning", "supmer_minus_ppt": "ppt"}
PACKAGES = ("torch", "transformers", "ray")
ALGORITHMS = ("supmer", "multitask")
TUNING_REPORTS = ("table.md", "significance.md", "scores.svg", "learning_curves.svg")
TRANSFER_REPORTS = ("transfer.md", "transfer.svg")


def meta_training_runs(config: Config) -> list[Config]:
    """Return the two meta-training runs, equal in all but `meta.algorithm` and name."""
    return [
        config.model_copy(
            update={
                "run": config.run.model_copy(update={"name": f"{config.run.name}-{algorithm}"}),
                "meta": config.meta.model_copy(update={"algorithm": algorithm}),
            }
        )
        for algorithm in ALGORITHMS
    ]


def tuning_run(config: Config) -> Config:
    """Return the few-shot run that starts from the two."""
    ours, ppt = (run.run_dir for run in meta_training_runs(config))
    return config.model_copy(update={"fewshot": config.fewshot.model_copy(update={"from_run": ours, "ppt_run": ppt})})


def write_evidence(config: Config, records: Sequence[Record], out: str) -> None:
    """Write `evidence.json` and copy tables and figures of the few-shot run and the curves of meta-training beside it.

    Args:
        config: the few-shot run, see `tuning_run`.
        records: its cells.
        out: folder.
    """
    run, runs = config.run_dir, meta_training_runs(config)
    found = build_evidence(run, records) | {
        "hours": round(sum(map(_training_hours, runs)) + sum(record["seconds"] for record in records) / 3600, 2),
        "commit": _commit(),
        "hardware": describe_machine(),
        "cells": [{name: value for name, value in record.items() if name != "key"} for record in records],
    }
    files = {"evidence.json": json.dumps(found, indent=1).encode() + b"\n"}
    reports = {name: storage.join(run, "fewshot", name) for name in TUNING_REPORTS}
    if config.fewshot.transfer:
        reports |= {name: path for name in TRANSFER_REPORTS if storage.exists(path := storage.join(run, "fewshot", name))}
    files |= {name: storage.read_bytes(path) for name, path in reports.items()}
    for each in runs:
        files[f"meta_training_{each.meta.algorithm}.html"] = storage.read_bytes(RunDirectory(each.run_dir).report)
    for name, data in files.items():
        storage.write_bytes(storage.join(out, name), data)


def build_evidence(run_dir: str, records: Sequence[Record]) -> dict[str, Any]:
    """Return the headline differences in accuracy points, their intervals, and every comparison with another method."""
    others = sorted({record["method"] for record in records} - {OURS})
    compared = {method: compare_methods(run_dir, records, OURS, method) for method in others}
    overall = {method: comparisons[-1] for method, comparisons in compared.items() if comparisons}
    headlines = {name: overall[method] for name, method in HEADLINES.items() if method in overall}
    return {
        **{name: round(100 * comparison.difference, 2) for name, comparison in headlines.items()},
        "intervals": {name: _points(comparison.low, comparison.high) for name, comparison in headlines.items()},
        "p_values": {name: comparison.p_value for name, comparison in headlines.items()},
        "num_tasks": len({record["task"] for record in records}),
        "num_seeds": len({record["seed"] for record in records}),
        "mean_scores": _mean_scores(records),
        "comparisons": [_describe(comparison) for comparisons in compared.values() for comparison in comparisons],
    }


def describe_machine() -> str:
    """Return one line: processor cores, Python and versions of what computes."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, {versions}"


def _describe(comparison: Comparison) -> dict[str, Any]:
    return {
        "task": comparison.task or "mean over tasks",
        "reference": comparison.reference,
        "points": round(100 * comparison.difference, 2),
        "interval": _points(comparison.low, comparison.high),
        "p_value": comparison.p_value,
    }


def _points(*values: float) -> list[float]:
    return [round(100 * value, 2) for value in values]


def _mean_scores(records: Sequence[Record]) -> Mapping[str, float]:
    """Return each method's score in percent, the mean over tasks of the mean over seeds."""
    grouped: dict[str, dict[str, list[float]]] = {}
    for record in records:
        grouped.setdefault(record["method"], {}).setdefault(record["task"], []).append(record["score"])
    return {method: round(100 * mean(map(mean, tasks.values())), 2) for method, tasks in grouped.items()}


def _training_hours(config: Config) -> float:
    rows = read_rows(RunDirectory(config.run_dir).metrics)
    return sum(row["step_seconds"] or 0 for row in rows if row["split"] == "train") / 3600


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return found.stdout.strip() or "unknown"
