"""Few-shot comparison: tune on K rows a class by several methods, score on the test sets, print a table.

python pipeline/prompt_tune.py --config FILE fewshot.tasks='[sst-2,my-task.yaml]' fewshot.data_dir=FOLDER
"""

from __future__ import annotations

import argparse

from rich.console import Console

from supmer.cli import build_parser, run_job
from supmer.config import Config
from supmer.fewshot.run import run_fewshot
from supmer.fewshot.tables import summarize, terminal_table


def job(config: Config, _: argparse.Namespace) -> None:
    """Run the comparison and print its table."""
    records = run_fewshot(config)
    Console().print(terminal_table(summarize(records)))


def main() -> None:
    """Entry point."""
    run_job(job, build_parser(__doc__ or ""))


if __name__ == "__main__":
    main()
