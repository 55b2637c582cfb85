"""SUPMER against vanilla prompt tuning and PPT, over tasks and data seeds (section 7): the runs, and what is written."""

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
from supmer.config.load import with_settings
from supmer.fewshot.results import Record
from supmer.fewshot.significance import Comparison, compare_methods
from supmer.train.metrics import read_rows
from supmer.train.run_dir import RunDirectory

OURS = "supmer"
HEADLINES = {"supmer_minus_vanilla": "prompt_tuning", "supmer_minus_ppt": "ppt"}
PACKAGES = ("torch", "transformers", "ray")
ALGORITHMS = ("supmer", "multitask")


def meta_training_runs(config: Config) -> list[Config]:
    """Return the two meta-training runs, equal in all but `meta.algorithm` and name."""
    return [
        with_settings(config, {"run.name": f"{config.run.name}-{algorithm}", "meta.algorithm": algorithm})
        for algorithm in ALGORITHMS
    ]


def tuning_run(config: Config) -> Config:
    """Return the few-shot run that starts from the two."""
    ours, ppt = (run.run_dir for run in meta_training_runs(config))
    return with_settings(config, {"fewshot.from_run": ours, "fewshot.ppt_run": ppt})


def write_evidence(config: Config, records: Sequence[Record], out: str) -> str:
    """Write `evidence.json` and return where it is.

    Args:
        config: the few-shot run, see `tuning_run`.
        records: its cells.
        out: folder.
    """
    found = build_evidence(config.run_dir, records) | {
        "backbone": config.backbone.name,
        "hours": round(
            sum(map(_training_hours, meta_training_runs(config))) + sum(record["seconds"] for record in records) / 3600, 2
        ),
        "commit": _commit(),
        "hardware": describe_machine(),
        "cells": [{name: value for name, value in record.items() if name != "key"} for record in records],
    }
    path = storage.join(out, "evidence.json")
    storage.write_bytes(path, json.dumps(found, indent=1).encode() + b"\n")
    return path


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
        "comparisons": [_describe(method, found) for method, comparisons in compared.items() for found in comparisons],
    }


def describe_machine() -> str:
    """Return one line: processor cores, Python and versions of what computes."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, {versions}"


def _describe(reference: str, comparison: Comparison) -> dict[str, Any]:
    return {
        "task": comparison.task or "mean over tasks",
        "reference": reference,
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
