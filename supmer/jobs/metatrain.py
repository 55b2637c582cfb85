"""The main job: meta-train the prompt and the gradient regularizer on self-supervised episodes, under Ray Train.

    supmer metatrain --config quickstart [section.key=value ...]

Prepares the task store first if it is missing. The same command continues a run that was interrupted. With --dry-run it
measures one meta-step on the hardware that is there, beside the plan's figures. With --replay STEP it recomputes one step of
the run alone, in this process. Neither changes the run.
"""

from __future__ import annotations

import argparse

from supmer.cli import Job
from supmer.config import Config


def metatrain(config: Config, arguments: argparse.Namespace) -> int:
    """Run the job and return the exit code: 0, or 130 if Ctrl-C stopped it after saving."""
    # Imports are here, so that --help and a misspelt setting answer at once.
    if arguments.dry_run:
        from supmer.planning.dry_run import dry_run

        for line in dry_run(config):
            print(line, flush=True)
        return 0
    if arguments.replay is not None:
        from supmer.train.replay import replay

        for line in replay(config, arguments.replay):
            print(line)
        return 0
    from supmer.train.run import run

    return run(config).exit_code


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="measure one meta-step at the longest rows; write no run")
    parser.add_argument("--replay", type=int, metavar="STEP", help="recompute this step of the run, as metrics.jsonl counts")


JOB = Job(__doc__, metatrain, add_options)
