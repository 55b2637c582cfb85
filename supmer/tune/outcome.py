"""How a sweep turned out: the order of its trials, the Pareto front, the meta-steps spent, `best.yaml`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supmer import storage
from supmer.cli import to_yaml
from supmer.config import Config
from supmer.tune.objectives import as_cost
from supmer.tune.records import TrialRecord
from supmer.tune.trials import best_config

BEST_FILE = "best.yaml"


@dataclass(frozen=True)
class Outcome:
    """What `run_sweep` returns; `best` is None where no trial reached its end."""

    directory: str
    records: list[TrialRecord]
    best: TrialRecord | None
    is_complete: bool
    exit_code: int


def costs(config: Config, record: TrialRecord) -> list[float]:
    """Return a trial's objectives, each so that less is better; infinite where it has none."""
    return [as_cost(name, record.value(name)) for name in config.tune.objectives]


def ranked(config: Config, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Order trials: complete ones by the first objective, then the others by how far they came."""

    def key(record: TrialRecord) -> tuple[bool, int, float, str]:
        is_complete = record.status == "complete"
        return (not is_complete, 0 if is_complete else -record.step, costs(config, record)[0], record.trial)

    return sorted(records, key=key)


def best_of(config: Config, records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial that is best by the first objective."""
    order = ranked(config, records)
    return order[0] if order and order[0].status == "complete" and math.isfinite(costs(config, order[0])[0]) else None


def pareto_front(config: Config, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials that no other beats in one objective without losing in another."""
    complete = [record for record in records if record.status == "complete"]
    if not complete:
        return []
    values = np.array([costs(config, record) for record in complete])
    beaten = [bool(((values <= row).all(axis=1) & (values < row).any(axis=1)).any()) for row in values]
    return [record for record, is_beaten in zip(complete, beaten, strict=True) if not is_beaten]


def steps_spent(records: Sequence[TrialRecord]) -> int:
    """Return the meta-steps that the trials reported, in all."""
    return sum(record.step for record in records)


def write_best(config: Config, best: TrialRecord) -> str:
    """Write `best.yaml`, which `metatrain.py --config` takes as it is, and return where it is."""
    uri = storage.join(config.run_dir, BEST_FILE)
    shown = ", ".join(f"{name} {best.value(name):.6f}" for name in config.tune.objectives)
    head = f"# python pipeline/metatrain.py --config {uri}\n# Trial {best.trial} of sweep {config.run.name}: {shown}.\n"
    storage.write_bytes(uri, (head + to_yaml(best_config(config, best.settings))).encode())
    return uri
