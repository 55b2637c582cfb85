"""Every method on labelled tasks: pre-train the prompts that some start from, tune, print the table.

    python -m experiments.methods --config experiments/methods/methods.yaml fewshot.data_dir=TASKS [section.key=value ...]

Runs are `<run.name>-supmer`, a PPT run for each format of tasks (`-pair`, `-multi_choice`, `-single`), `-unified` for
Unified PPT, and `<run.name>` with the few-shot results. The seconds of a method are the median of its cells. The same
command goes on after a stop.
"""

from __future__ import annotations

import argparse
from statistics import median

from supmer.cli import job_parser, run_job
from supmer.config import Config
from supmer.config.load import with_settings
from supmer.reports.tables import Table

KINDS = {"pair": "nsp", "multi_choice": "nss", "single": "scc"}
"""The kind of self-supervised tasks that PPT pre-trains the prompt of each format on (METHOD section 9)."""
UNIFIED_OPTIONS = [2, 16]


def pre_training_runs(config: Config) -> dict[str, Config]:
    """Return the runs of prompts by the end of their names."""

    def run(name: str, **meta_and_tasks: object) -> Config:
        settings = {setting.replace("__", "."): value for setting, value in meta_and_tasks.items()}
        return with_settings(config, {"run.name": f"{config.run.name}-{name}", **settings})

    runs = {"supmer": run("supmer")}
    runs |= {form: run(form, meta__algorithm="multitask", tasks__kinds=[kind]) for form, kind in KINDS.items()}
    options = {"tasks__num_options_nss": UNIFIED_OPTIONS}
    return runs | {"unified": run("unified", meta__algorithm="multitask", tasks__kinds=["nss"], **options)}


def tuning_run(config: Config) -> Config:
    """Return the few-shot run that starts from them."""
    folders = {name: run.run_dir for name, run in pre_training_runs(config).items()}
    starts = {
        "fewshot.from_run": folders["supmer"],
        "fewshot.ppt_run": {form: folders[form] for form in KINDS},
        "fewshot.unified_ppt_run": folders["unified"],
    }
    return with_settings(config, starts)


def compare_all(config: Config, _: argparse.Namespace) -> int:
    """Do what is missing and print the table; return 130 after Ctrl-C, 0 after SIGTERM."""
    from rich.console import Console  # here, so that --help and a misspelt setting answer at once

    from supmer.fewshot.comparison import check_fewshot, run_fewshot
    from supmer.fewshot.summaries import TITLE, outcome, summarize
    from supmer.train.run import run

    check_fewshot(config)  # a mistake there must not first show up after the pre-training
    for each in pre_training_runs(config).values():
        result = run(each)
        if not result.is_complete:
            return result.exit_code
    records = run_fewshot(tuning_run(config))
    Console().print(summarize(records).table(title=TITLE).terminal())
    Console().print(outcome(records), highlight=False)
    seconds = {
        method: median(record["processor_seconds"] for record in records if record["method"] == method)
        for method in config.fewshot.methods
    }
    rows = [[method, f"{spent:.1f}"] for method, spent in seconds.items()]
    Console().print(Table(["method", "processor seconds a cell"], rows).terminal())
    return 0


def main() -> None:
    run_job(compare_all, job_parser(__doc__ or ""))


if __name__ == "__main__":
    main()
