"""Compare runs: settings that differ, validation losses, few-shot scores with intervals of their differences.

supmer compare RUN [RUN ...] [--html FILE]
"""

from __future__ import annotations

import argparse

from supmer.cli import Job
from supmer.config import Config


def compare(_: Config, arguments: argparse.Namespace) -> None:
    """Print the tables, and write the page if asked to."""
    from rich.console import Console  # here, so that --help answers at once

    from supmer import storage
    from supmer.compare.runs import read_runs, render, tables

    runs = read_runs(arguments.runs)
    console = Console()
    found = [table for table in tables(runs) if table.rows]
    for table in found:
        console.print(table.terminal())
    if not found:
        print("The runs have the same settings, and there are no results to compare.")
    if arguments.html:
        storage.write_bytes(arguments.html, render(runs, storage.absolute(arguments.html).rpartition("/")[0]).encode())
        print(f"page: {arguments.html}")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories; differences are from the first")
    parser.add_argument("--html", metavar="FILE", help="also write a page with the curves")


JOB = Job(__doc__, compare, add_options, has_settings=False)
