"""One answer of the doctor, and the table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is well, what was found, and what to do if it is not."""

    name: str
    passed: bool
    found: str
    remedy: str = ""


def print_table(checks: Sequence[Check], console: Console) -> None:
    """Print one row a check; the remedy only where it is needed."""
    table = Table(title="cluster", title_justify="left")
    table.add_column("check", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("remedy", overflow="fold")
    for check in checks:
        result = "[green]pass[/green]" if check.passed else "[red]FAIL[/red]"
        table.add_row(check.name, result, check.found, "" if check.passed else check.remedy)
    console.print(table)
