"""Search over the settings of meta-training: space, searcher, scheduler and objectives are the section `tune`.

    supmer tune --config sweeps/inner_loop_quickstart [section.key=value ...]

The same command continues a sweep that was interrupted.
"""

from __future__ import annotations

import argparse

from supmer.cli import Job
from supmer.config import Config


def tune(config: Config, arguments: argparse.Namespace) -> int:
    """Run the sweep, print the table of its trials, and return the exit code: 0, or 130 if Ctrl-C stopped it."""
    from rich.console import Console  # here, so that --help and a misspelt setting answer at once

    from supmer.tune.result import trials_table
    from supmer.tune.run import run_sweep

    records, exit_code = run_sweep(config)
    Console().print(trials_table(config, records).terminal())
    return exit_code


JOB = Job(__doc__, tune)
