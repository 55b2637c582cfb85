"""Check a running cluster for a run: versions, workers, storage, backbone, disk, all-reduce. Exit code 1 if a check fails.

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \\
        python pipeline/doctor.py --config configs/flan_t5_xl.yaml run.dir=s3://BUCKET/runs
"""

from __future__ import annotations

import argparse

from rich.console import Console

from supmer.cli import Job
from supmer.config import Config


def examine(config: Config, arguments: argparse.Namespace) -> int:
    """Print the table of checks; return 1 if one failed."""
    from supmer.doctor.run import print_table, run_checks
    from supmer.runtime import connect_ray

    connect_ray()
    checks = run_checks(config, arguments.wait_seconds)
    print_table(checks, Console(width=140))
    return 0 if all(check.passed for check in checks) else 1


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait-seconds", type=float, default=900, help="how long nodes may take to come")


JOB = Job(__doc__, examine, add_options)
