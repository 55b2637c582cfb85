"""Which schedule of rates should tuning have by default? Dev scores of the candidates; no test row counts.

    python -m experiments.methods.schedules --config experiments/methods/seeds.yaml fewshot.data_dir=TASKS

Vanilla prompt tuning and SUPMER under each schedule, one training seed for each data seed; runs are `<run.name>-<schedule>`.
"""

from __future__ import annotations

import argparse
from statistics import mean, stdev

from supmer.cli import job_parser, run_job
from supmer.config import Config
from supmer.config.load import with_settings
from supmer.reports.tables import Table

METHODS = ["prompt_tuning", "supmer"]

SCHEDULES: dict[str, dict[str, object]] = {
    "constant": {"fewshot.schedule": "constant", "fewshot.clip_norm": None},
    "constant-clipped": {"fewshot.schedule": "constant", "fewshot.clip_norm": 1.0},
    "linear": {"fewshot.schedule": "linear", "fewshot.clip_norm": None},
    "linear-clipped": {"fewshot.schedule": "linear", "fewshot.clip_norm": 1.0},  # published
}


def compare_schedules(config: Config, _: argparse.Namespace) -> None:
    """Compute the cells that are missing and print the table, in Markdown."""
    from supmer.fewshot.comparison import run_fewshot  # here, so that --help and a misspelt setting answer at once

    rows = []
    for name, schedule in SCHEDULES.items():
        own = {"run.name": f"{config.run.name}-{name}", "fewshot.methods": METHODS, "fewshot.training_seeds": None}
        records = run_fewshot(with_settings(config, own | schedule))
        for method in METHODS:
            found = {
                task: [
                    100 * record["dev_score"] for record in records if (record["method"], record["task"]) == (method, task)
                ]
                for task in dict.fromkeys(record["task"] for record in records)
            }
            by_task = [f"{mean(scores):.1f}" for scores in found.values()]
            # Of the means over tasks, by data seed.
            by_seed = [mean(scores) for scores in zip(*found.values(), strict=True)]
            spread = f" ± {stdev(by_seed):.1f}" if len(by_seed) > 1 else ""
            rows.append([name, method, *by_task, f"{mean(by_seed):.1f}{spread}"])
    print(Table(["schedule", "method", *found, "mean"], rows, num_labels=2).markdown())


def main() -> None:
    run_job(compare_schedules, job_parser(__doc__ or ""))


if __name__ == "__main__":
    main()
