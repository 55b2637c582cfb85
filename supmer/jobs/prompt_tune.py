"""Few-shot comparison: tune on K rows a class by several methods, score on the test sets, print a table.

supmer prompt-tune --config FILE fewshot.tasks='[sst-2,my-task.yaml]' fewshot.data_dir=FOLDER
"""

from __future__ import annotations

import argparse

from supmer.cli import Job
from supmer.config import Config


def prompt_tune(config: Config, arguments: argparse.Namespace) -> None:
    """Run the comparison, print its table and what the table shows."""
    from rich.console import Console  # here, so that --help and a misspelt setting answer at once

    from supmer.fewshot.comparison import export_command, run_fewshot
    from supmer.fewshot.summaries import TITLE, outcome, summarize

    records = run_fewshot(config)
    console = Console()
    console.print(summarize(records).table(title=TITLE).terminal())
    console.print(outcome(records), highlight=False)
    if command := export_command(config, records):
        console.print("To use the best tuned prompt with transformers and peft alone:", highlight=False)
        console.print(f"  {command}", highlight=False, soft_wrap=True)


JOB = Job(__doc__, prompt_tune)
