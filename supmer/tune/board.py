"""The table of trials on the terminal, while a sweep runs and at its end."""

from __future__ import annotations

import logging
import math
import sys
import time
from types import TracebackType
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.table import Table
from typing_extensions import Self

from supmer.config import Config
from supmer.tune.outcome import pareto_front, ranked
from supmer.tune.records import Ledger, TrialRecord

SECONDS_BETWEEN_UPDATES = 1
SECONDS_BETWEEN_TABLES = 60
"""Where the output is no terminal, and a table is a new one each time."""

STYLES = {"running": "cyan", "complete": "green", "stopped": "dim", "diverged": "yellow", "failed": "red"}


class Board(Callback):  # type: ignore[misc]
    """Shows the table while entered: in place on a terminal, else now and then."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown_at = time.monotonic()
        self._shown = ""

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        seconds = SECONDS_BETWEEN_UPDATES if self._live else SECONDS_BETWEEN_TABLES
        if time.monotonic() - self._shown_at >= seconds:
            self._show()
            self._shown_at = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray Tune keeps a copy of its callbacks, which is never read here."""
        return {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
            _log_to_stderr()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            _log_to_stderr()

    def _show(self) -> None:
        table = trials_table(self._config, self._ledger.records)
        if self._live:
            self._live.update(table, refresh=True)
            return
        content = "".join(record.model_dump_json(exclude={"seconds"}) for record in self._ledger)
        if content != self._shown:
            self._console.print(table)
            self._shown = content


def trials_table(config: Config, records: list[TrialRecord]) -> Table:
    """Return the table of all trials, the best first; a star marks the Pareto front where there are several objectives."""
    names = list(dict.fromkeys(name for record in records for name in record.settings))
    front = {record.trial for record in pareto_front(config, records)} if len(config.tune.objectives) > 1 else set()
    table = Table(title=f"sweep {config.run.name}: {_summary(records)}", title_justify="left")
    for name in ("trial", "status", "step", *config.tune.objectives, *names):
        table.add_column(name.rsplit(".", 1)[-1], justify="left" if name in ("trial", "status") else "right")
    for record in ranked(config, records):
        table.add_row(
            record.trial + ("*" if record.trial in front else ""),
            record.status,
            str(record.step),
            *(format_value(record.value(name)) for name in config.tune.objectives),
            *(format_value(record.settings.get(name)) for name in names),
            style=STYLES[record.status],
        )
    return table


def format_value(value: Any) -> str:
    """Write a setting or an objective briefly; what is missing is a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.5g}"
    return " ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _summary(records: list[TrialRecord]) -> str:
    statuses = [record.status for record in records]
    return ", ".join(f"{statuses.count(status)} {status}" for status in STYLES if status in statuses)


def _log_to_stderr() -> None:
    """Let log lines go where `sys.stderr` leads now: a live table moves down for what is written there."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stderr)
