"""Few-shot comparison: tune on K rows a class by several methods, score on the test sets, print a table.

python pipeline/prompt_tune.py --config FILE fewshot.tasks='[sst-2,my-task.yaml]' fewshot.data_dir=FOLDER
"""

from __future__ import annotations

import argparse

from supmer.cli import build_parser, run_job
from supmer.config import Config


def prompt_tune(config: Config, arguments: argparse.Namespace) -> None:
    """Run the comparison and print its table."""
    from rich.console import Console  # here, so that --help and a misspelt setting answer at once

    from supmer.fewshot.run import run_fewshot
    from supmer.fewshot.tables import summarize, terminal_table

    records = run_fewshot(config)
    Console().print(terminal_table(summarize(records)))


def main() -> None:
    run_job(prompt_tune, build_parser(__doc__ or ""))


if __name__ == "__main__":
    main()
