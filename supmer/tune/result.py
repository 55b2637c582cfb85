"""What became of a sweep's trials: `trials.jsonl`, their order, the Pareto front, the table, `best.yaml`.

A sweep is continued from `trials.jsonl` alone. The snapshots that Ray Tune itself writes are not read, see `run.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from supmer import storage
from supmer.commands import job_command
from supmer.config import Config
from supmer.config.load import to_yaml, with_settings
from supmer.errors import UserError
from supmer.reports.tables import Table
from supmer.train.run_dir import RunDirectory
from supmer.tune.objectives import cost_of
from supmer.tune.trial_config import as_single_run

Status = Literal["running", "complete", "stopped", "diverged", "failed"]

BEST_FILE = "best.yaml"


class Rung(BaseModel):
    """What a trial reported after `step` meta-steps; values that are not finite are kept as None."""

    model_config = ConfigDict(extra="forbid")

    step: int
    values: dict[str, float | None]

    @field_validator("values")
    @classmethod
    def _finite_or_none(cls, values: dict[str, float | None]) -> dict[str, float | None]:
        return {name: None if value is None or not math.isfinite(value) else value for name, value in values.items()}


class TrialRecord(BaseModel):
    """One trial.

    Attributes:
        trial: its name, also the name of its run directory.
        status: `stopped` by the scheduler, `diverged` to values that are not finite, `failed` with `error`.
        settings: the settings in which it differs from the sweep's configuration.
        draws: the same as Optuna drew them.
        rungs: what it reported, by meta-steps.
        attempts: times it was started.
        error: what ended it, on one line.
        seconds: wall time, from its start to its end.
        directory: its run directory.
        command: how to repeat it.
    """

    model_config = ConfigDict(extra="forbid")

    trial: str
    status: Status = "running"
    settings: dict[str, Any]
    draws: dict[str, Any]
    rungs: list[Rung] = Field(default_factory=list)
    attempts: int = 0
    error: str | None = None
    seconds: float = 0.0
    directory: str
    command: str

    @property
    def is_finished(self) -> bool:
        return self.status != "running"

    @property
    def step(self) -> int:
        """Meta-steps done at the newest report."""
        return self.rungs[-1].step if self.rungs else 0

    def value(self, objective: str, step: int | None = None) -> float:
        """Return the newest value of an objective, or that at a meta-step; NaN if there is none."""
        found = [rung for rung in self.rungs if step is None or rung.step == step]
        value = found[-1].values.get(objective) if found else None
        return math.nan if value is None else value

    def curve(self, objective: str) -> tuple[list[int], list[float]]:
        """Return meta-steps and the objective's values there."""
        points = [(rung.step, value) for rung in self.rungs if (value := rung.values.get(objective)) is not None]
        return [step for step, _ in points], [value for _, value in points]

    def add_rung(self, step: int, values: Mapping[str, float | None]) -> None:
        """Take a report; a report of a known step replaces the earlier one."""
        kept = [rung for rung in self.rungs if rung.step != step]
        self.rungs = sorted([*kept, Rung(step=step, values=dict(values))], key=lambda rung: rung.step)


class Ledger:
    """The trials of a sweep in the order in which they were proposed; the file is written whole at each change.

    Args:
        sweep_uri: the sweep's run directory.
        check: called before each write; raises where another job has taken over.
    """

    def __init__(self, sweep_uri: str, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self.uri = RunDirectory(sweep_uri).trials
        lines = storage.read_bytes(self.uri).splitlines() if storage.exists(self.uri) else []
        try:
            self.records = [TrialRecord.model_validate(json.loads(line)) for line in lines]
        except (ValueError, ValidationError) as error:
            raise UserError(f"{self.uri}: is damaged, mend or delete it ({' '.join(str(error).split())[:200]})") from error

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def find(self, trial: str) -> TrialRecord:
        return next(record for record in self.records if record.trial == trial)

    def add(self, record: TrialRecord) -> None:
        self.records.append(record)
        self.save()

    def save(self) -> None:
        self._check()
        lines = "".join(record.model_dump_json() + "\n" for record in self.records)
        storage.write_bytes(self.uri, lines.encode())


def ranked(config: Config, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Order trials: complete ones by the first objective, then the others by how far they came."""

    def key(record: TrialRecord) -> tuple[bool, int, float, str]:
        is_complete, objective = record.status == "complete", config.tune.objectives[0]
        return not is_complete, 0 if is_complete else -record.step, cost_of(objective, record.value(objective)), record.trial

    return sorted(records, key=key)


def best_of(config: Config, records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial that is best by the first objective; None where no trial has reached its end."""
    first = next(iter(ranked(config, records)), None)
    is_good = first and first.status == "complete" and math.isfinite(first.value(config.tune.objectives[0]))
    return first if is_good else None


def pareto_front(config: Config, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials that no other beats in one objective without losing in another."""
    found = {
        record.trial: [cost_of(name, record.value(name)) for name in config.tune.objectives]
        for record in records
        if record.status == "complete"
    }
    beaten = {
        trial
        for trial, costs in found.items()
        if any(other != costs and all(o <= c for o, c in zip(other, costs, strict=True)) for other in found.values())
    }
    return [record for record in records if record.trial in found and record.trial not in beaten]


def summary(config: Config, records: Sequence[TrialRecord]) -> str:
    """Return how many trials ended how, and the meta-steps they took."""
    statuses = [record.status for record in records]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in get_args(Status) if status in statuses)
    spent, whole = sum(record.step for record in records), len(records) * config.meta.steps
    used = f"; {spent:,} meta-steps, {spent / whole:.0%} of running each trial to its end" if whole else ""
    return f"{len(records)} trials: {counts or 'none yet'}{used}"


def trials_table(config: Config, records: Sequence[TrialRecord]) -> Table:
    """Return the table of all trials, the best first; a star marks the Pareto front."""
    objectives = config.tune.objectives
    settings = list(dict.fromkeys(name for record in records for name in record.settings))
    front = pareto_front(config, records) if len(objectives) > 1 else []
    rows = [
        [
            record.trial + ("*" if record in front else ""),
            record.status,
            str(record.step),
            *(format_value(record.value(name)) for name in objectives),
            *(format_value(record.settings.get(name)) for name in settings),
        ]
        for record in ranked(config, records)
    ]
    heads = ["trial", "status", "step", *objectives, *settings]
    return Table(heads, rows, f"sweep {config.run.name}: {summary(config, records)}", num_labels=2)


def format_value(value: Any) -> str:
    """Write a setting or an objective briefly; what is missing is a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.5g}"
    return " ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def write_best(config: Config, best: TrialRecord) -> str:
    """Write `best.yaml`, which `metatrain.py --config` takes as it is, and return where it is."""
    uri = storage.join(config.run_dir, BEST_FILE)
    shown = ", ".join(f"{name} {best.value(name):.6f}" for name in config.tune.objectives)
    head = f"# {job_command('metatrain', '--config', uri)}\n# Trial {best.trial} of sweep {config.run.name}: {shown}.\n"
    again = with_settings(as_single_run(config), {"run.name": f"{config.run.name}-best", **best.settings})
    storage.write_bytes(uri, (head + to_yaml(again)).encode())
    return uri
