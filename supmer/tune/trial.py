"""A trial: one meta-training run, followed by a Ray Tune trainable that reports its validations as rungs.

A sweep may be killed before it has taken note of a validation; the run's own metrics then still have it.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

from ray.tune import PlacementGroupFactory, Trainable

from supmer.backbone.load import resolve_backbone
from supmer.config import Config
from supmer.config.load import validate
from supmer.config.scalars import parse_yaml
from supmer.errors import DivergedError, UserError
from supmer.meta.record import StepRecord
from supmer.placement import role_resources
from supmer.train import checkpoint
from supmer.train.mailbox import Event
from supmer.train.metrics import read_rows
from supmer.train.run import run
from supmer.train.run_dir import RunDirectory
from supmer.tune.objectives import FEWSHOT, QUERY_LOSS, cost_of
from supmer.tune.result import Rung
from supmer.tune.schedule import STEP

SECONDS_TO_STOP = 30
"""For a run that is asked to stop: finish the meta-step, save, end the workers. Later they are ended with their owner."""

SECONDS_TO_START = 600
"""Until the first sign of life: workers are placed and load the backbone. `tune.stall_seconds` if that is longer."""

NEXT_TO_NOTHING = {"memory": 1.0}
"""Reserved by a trial's process that only waits for its workers: Ray Tune wants something."""


class TrialFailedError(Exception):
    """A trial that hangs."""


class SupmerTrial(Trainable):  # type: ignore[misc]
    """One trial under Ray Tune.

    Its parameters are `config`, the trial's configuration as YAML, `rungs`, which an earlier call of the sweep has taken,
    `objectives`, `stall_seconds`, and `resources`, what its own process reserves (the workers reserve theirs themselves). A
    step ends at the next rung; the last one is reported when the run has ended and left its results.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory([config["resources"] | role_resources("trainer") or NEXT_TO_NOTHING])

    def setup(self, config: dict[str, Any]) -> None:
        self._settings = validate(parse_yaml(config["config"]))
        self._objectives: list[str] = config["objectives"]
        known = [Rung.model_validate(rung) for rung in config["rungs"]]
        self._run = FollowedRun(self._settings, config["stall_seconds"], known, with_fewshot=FEWSHOT in self._objectives)
        self._step = 0

    def step(self) -> dict[str, Any]:
        """Return the next rung: meta-steps, the objectives' costs, all values under `values`, `status` and `error`."""
        values: dict[str, float | None] = {}
        error: str | None = None
        try:
            rung = self._run.next_rung()
            is_last = rung.step == self._settings.meta.steps
            if is_last:
                self._run.join_until_end()
            self._step, values, status = rung.step, rung.values, "complete" if is_last else "running"
            if any(values[name] is None for name in self._objectives):
                status, error = "diverged", f"not finite at meta-step {rung.step}"
        except DivergedError as diverged:
            status, error = "diverged", str(diverged)
        except UserError as mistake:  # trying again would not help
            status, error = "failed", str(mistake)
        costs = {name: cost_of(name, values.get(name)) for name in self._objectives}
        own = {"values": json.dumps(values), "status": status, "error": error}
        return {STEP: self._step, **costs, **own, "done": status != "running"}

    def cleanup(self) -> None:
        self._run.end()


class Rungs:
    """Rungs in the order of their meta-steps, each once.

    First come the known rungs, which an earlier call of the sweep has taken; then the rungs that only `metrics.jsonl` of an
    earlier attempt holds, because a run goes on while its rungs wait to be reported; then those that are added.
    """

    def __init__(self, config: Config, known: Sequence[Rung] = ()) -> None:
        self._num_kinds = len(config.tasks.kinds)
        self._losses: dict[int, dict[str, float]] = {}
        self._waiting: queue.Queue[Rung] = queue.Queue()
        self._steps = {rung.step for rung in known}
        for rung in known:
            self._waiting.put(rung)
        directory = RunDirectory(config.run_dir)
        newest = checkpoint.read_newest_manifest(directory.checkpoints)
        last = newest.step if newest else 0  # later validations are repeated by the run
        for row in read_rows(directory.metrics):
            if row["split"] == "validation" and 0 < row["step"] <= last:
                self.add(row["step"], row["kind"], math.nan if row["query_loss"] is None else row["query_loss"])

    def add(self, step: int, kind: str, query_loss: float) -> None:
        """Take the loss on one kind; those of all kinds at one meta-step, but the first state's, make a rung."""
        losses = self._losses.setdefault(step, {})
        losses[kind] = query_loss
        if step > 0 and step not in self._steps and len(losses) == self._num_kinds:
            self._steps.add(step)
            by_kind = {f"{QUERY_LOSS}_{name}": loss for name, loss in losses.items()}
            self._waiting.put(Rung(step=step, values={QUERY_LOSS: sum(losses.values()) / len(losses), **by_kind}))

    def next(self, timeout: float = 0) -> Rung | None:
        """Return the next rung, None if there is none within `timeout` seconds."""
        try:
            return self._waiting.get(timeout=timeout)
        except queue.Empty:
            return None


class FollowedRun:
    """A meta-training run in a thread, and the rungs that it reaches.

    Args:
        config: the run's configuration.
        stall_seconds: a run that gives no sign of life for so long counts as hanging.
        known: rungs that need no score.
        with_fewshot: score each other rung on the few-shot tasks too.
    """

    def __init__(self, config: Config, stall_seconds: float, known: Sequence[Rung] = (), *, with_fewshot: bool) -> None:
        self._config = config
        self._stall_seconds = stall_seconds
        self._with_fewshot = with_fewshot
        self._known = {rung.step: rung for rung in known}
        self._rungs = Rungs(config, known)
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._hangs = False
        self._is_alive = False
        self._alive_at = time.monotonic()

        def work() -> None:
            try:
                run(config, self)
            except Exception as error:  # raised again by whoever waits for the next rung
                self._error = error

        self._thread = threading.Thread(target=work, daemon=True, name="trial")
        self._thread.start()

    def see(self, event: Event) -> None:
        """Take an event of the run."""
        self._is_alive, self._alive_at = True, time.monotonic()
        if isinstance(event, StepRecord) and event.split == "validation":
            self._rungs.add(event.step, event.kind, event.query_loss)

    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def next_rung(self) -> Rung:
        """Wait for the next rung.

        Raises:
            UserError: the run ended by a mistake that trying again does not mend.
            TrialFailedError: it hangs, or ended without reaching the last meta-step.
            Exception: whatever else ended it.
        """
        while True:
            is_running = self._thread.is_alive()  # asked first: what a run sends before it ends is not missed
            rung = self._rungs.next(timeout=0.2)
            if rung is not None:
                return self._known.get(rung.step) or self._scored(rung)
            self._check_stall()
            if not is_running:
                self._raise_error()
                raise TrialFailedError("the run ended before its last meta-step")

    def join_until_end(self) -> None:
        """Wait until the run has written its results; raises as `next_rung` does."""
        while self._thread.is_alive():
            self._thread.join(0.2)
            self._check_stall()
        self._raise_error()

    def end(self) -> None:
        """Ask the run to save and stop, and wait for that a while; one that hangs is left to end with this process."""
        self._stop.set()
        if not self._hangs:
            self._thread.join(SECONDS_TO_STOP)

    def _check_stall(self) -> None:
        limit = self._stall_seconds if self._is_alive else max(self._stall_seconds, SECONDS_TO_START)
        if time.monotonic() - self._alive_at > limit:
            self._hangs = True
            what = f"tune.stall_seconds={limit:g}" if self._is_alive else f"the {limit:g} seconds it has to start"
            raise TrialFailedError(f"hangs: no sign of life for {what}")

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _scored(self, rung: Rung) -> Rung:
        """Add the few-shot score, if it is asked for."""
        if not self._with_fewshot:
            return rung
        from supmer.tune.fewshot_score import dev_score, state_at  # here: most sweeps do without what it brings along

        score = dev_score(resolve_backbone(self._config), state_at(RunDirectory(self._config.run_dir), rung.step))
        self._alive_at = time.monotonic()
        return Rung(step=rung.step, values={**rung.values, FEWSHOT: score})
