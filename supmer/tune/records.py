"""The ledger of a sweep, `trials.jsonl`: one object a line for each trial, whatever became of it.

It is the one thing that a sweep is continued from; what Ray Tune itself leaves on disk is never read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from supmer import storage
from supmer.errors import UserError
from supmer.train.run_dir import RunDirectory

Status = Literal["running", "complete", "stopped", "diverged", "failed"]


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
        trial: its id, also the name of its run directory.
        status: `stopped` by the scheduler, `diverged` to values that are not finite, `failed` with `error`.
        settings: the settings in which it differs from the sweep's configuration.
        draws: the same as the searcher drew them.
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
        """Meta-steps done when it last reported."""
        return self.rungs[-1].step if self.rungs else 0

    def value(self, objective: str, step: int | None = None) -> float:
        """Return the newest value of an objective, or that at a meta-step; NaN if there is none."""
        found = [rung for rung in self.rungs if step is None or rung.step == step]
        value = found[-1].values.get(objective) if found else None
        return math.nan if value is None else value

    def add_rung(self, step: int, values: dict[str, float]) -> None:
        """Take a report; one of a step that is known already replaces it."""
        kept = [rung for rung in self.rungs if rung.step != step]
        self.rungs = sorted([*kept, Rung(step=step, values=dict(values))], key=lambda rung: rung.step)


class Ledger:
    """The trials of a sweep in the order in which they were proposed; written whole at each change.

    Args:
        sweep_uri: the sweep's run directory.
        check: called before each write; raises where another job has taken over.
    """

    def __init__(self, sweep_uri: str, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self.uri = RunDirectory(sweep_uri).trials
        self.records: list[TrialRecord] = _read(self.uri)

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


def _read(uri: str) -> list[TrialRecord]:
    if not storage.exists(uri):
        return []
    lines = storage.read_bytes(uri).splitlines()
    try:
        return [TrialRecord.model_validate(json.loads(line)) for line in lines]
    except (ValueError, ValidationError) as error:
        raise UserError(f"{uri}: is damaged, mend or delete it ({' '.join(str(error).split())[:200]})") from error
