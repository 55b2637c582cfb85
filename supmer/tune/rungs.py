"""The rungs of a trial: its validations, which a sweep may be killed before it has taken note of."""

from __future__ import annotations

import math
import queue

from supmer import storage
from supmer.config import Config
from supmer.train import checkpoint
from supmer.train.metrics import read_rows
from supmer.train.run_dir import RunDirectory
from supmer.tune.objectives import QUERY_LOSS, Values
from supmer.tune.records import Rung

RUNGS_FILE = "rungs.jsonl"


class Rungs:
    """Rungs in the order of their meta-steps, each once.

    First come those that an earlier attempt reported, kept in `rungs.jsonl` of the run directory; then those that it left
    in `metrics.jsonl` only, as a run goes on while its rungs wait to be reported; then those of validations that are added.
    """

    def __init__(self, config: Config) -> None:
        self._directory = RunDirectory(config.run_dir)
        self._num_kinds = len(config.tasks.kinds)
        self._losses: dict[int, Values] = {}
        self._waiting: queue.Queue[Rung] = queue.Queue()
        self._reported = _read_reported(self._directory)
        self._steps = {rung.step for rung in self._reported}
        for rung in self._reported:
            self._waiting.put(rung)
        for step, kind, query_loss in _recorded(self._directory):
            self.add(step, kind, query_loss)

    def add(self, step: int, kind: str, query_loss: float) -> None:
        """Take the loss on one kind; those of all kinds at one meta-step, but the first state's, make a rung."""
        losses = self._losses.setdefault(step, {})
        losses[kind] = query_loss
        if step > 0 and step not in self._steps and len(losses) == self._num_kinds:
            self._steps.add(step)
            self._waiting.put(Rung(step=step, values=_named(losses)))

    def next(self, timeout: float = 0) -> Rung | None:
        """Return the next rung, None if there is none within `timeout` seconds."""
        try:
            return self._waiting.get(timeout=timeout)
        except queue.Empty:
            return None

    def none_waits(self) -> bool:
        return self._waiting.empty()

    def was_reported(self, rung: Rung) -> bool:
        return rung in self._reported

    def keep(self, rung: Rung) -> None:
        """Write down a rung that is about to be reported, its values complete."""
        self._reported.append(rung)
        lines = "".join(known.model_dump_json() + "\n" for known in self._reported)
        storage.write_bytes(storage.join(self._directory.uri, RUNGS_FILE), lines.encode())


def _read_reported(directory: RunDirectory) -> list[Rung]:
    uri = storage.join(directory.uri, RUNGS_FILE)
    if not storage.exists(uri):
        return []
    return [Rung.model_validate_json(line) for line in storage.read_bytes(uri).splitlines()]


def _recorded(directory: RunDirectory) -> list[tuple[int, str, float]]:
    """Return step, kind and loss of the validations that the run will not repeat: it goes on from its newest checkpoint."""
    name = checkpoint.find_newest(directory.checkpoints)
    if name is None:
        return []
    last = checkpoint.read_manifest(storage.join(directory.checkpoints, name)).step
    rows = (row for row in read_rows(directory.metrics) if row["split"] == "validation" and row["step"] <= last)
    return [(row["step"], row["kind"], math.nan if row["query_loss"] is None else row["query_loss"]) for row in rows]


def _named(losses: Values) -> dict[str, float | None]:
    mean = sum(losses.values()) / len(losses)
    return {QUERY_LOSS: mean, **{f"{QUERY_LOSS}_{kind}": loss for kind, loss in losses.items()}}
