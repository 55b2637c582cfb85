"""A trial: one meta-training run, followed by a Ray Tune trainable that reports its validations as rungs."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from typing import Any

import yaml
from ray.tune import PlacementGroupFactory, Trainable

from supmer.cli import validate
from supmer.config import Config
from supmer.errors import DivergedError, UserError
from supmer.placement import role_resources
from supmer.pretrain.warmup import resolve_backbone
from supmer.train.mailbox import Event, Progress
from supmer.train.run import run
from supmer.train.run_dir import RunDirectory
from supmer.tune.objectives import FEWSHOT, Values, as_cost, is_finite
from supmer.tune.records import Rung
from supmer.tune.rungs import Rungs
from supmer.tune.schedule import COST, STEP, WORST

logger = logging.getLogger(__name__)

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

    Its parameters are `config`, the trial's configuration as YAML, `objectives`, `stall_seconds`, and `resources`, what its
    own process reserves (the workers reserve theirs themselves). A step ends at the next rung; the last one is reported
    when the run has ended and left its results.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory([config["resources"] | role_resources("trainer") or NEXT_TO_NOTHING])

    def setup(self, config: dict[str, Any]) -> None:
        self._settings = validate(yaml.safe_load(config["config"]))
        self._objectives: list[str] = config["objectives"]
        self._run = FollowedRun(self._settings, config["stall_seconds"], with_fewshot=FEWSHOT in self._objectives)
        self._step = 0

    def step(self) -> dict[str, Any]:
        """Return the next rung: `step`, the objectives under `values`, `cost`, `status` and `error`."""
        try:
            rung = self._run.next_rung()
            if rung.step == self._settings.meta.steps:
                self._run.join_until_end()
        except DivergedError as error:
            return self._result(self._step, {}, "diverged", str(error))
        except UserError as error:  # trying again would not help
            return self._result(self._step, {}, "failed", str(error))
        self._step = rung.step
        values = {name: math.nan if value is None else value for name, value in rung.values.items()}
        if not is_finite(values, self._objectives):
            return self._result(rung.step, values, "diverged", f"not finite at meta-step {rung.step}")
        is_complete = rung.step == self._settings.meta.steps
        return self._result(rung.step, values, "complete" if is_complete else "running")

    def cleanup(self) -> None:
        self._run.end()

    def _result(self, step: int, values: Values, status: str, error: str | None = None) -> dict[str, Any]:
        first = self._objectives[0]
        cost = as_cost(first, values.get(first, math.nan))
        return {
            STEP: step,
            COST: cost if math.isfinite(cost) else WORST,
            "values": json.dumps(values),
            "status": status,
            "error": error,
            "done": status != "running",
        }


class FollowedRun:
    """A meta-training run in a thread, and the rungs that it reaches.

    Args:
        config: the run's configuration.
        stall_seconds: a run that gives no sign of life for so long counts as hanging.
        with_fewshot: score each rung on the few-shot tasks too.
    """

    def __init__(self, config: Config, stall_seconds: float, *, with_fewshot: bool) -> None:
        self._config = config
        self._directory = RunDirectory(config.run_dir)
        self._stall_seconds = stall_seconds
        self._with_fewshot = with_fewshot
        self._rungs = Rungs(config)
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._hangs = False
        self._is_alive = False
        self._alive_at = time.monotonic()
        self._thread = threading.Thread(target=self._work, daemon=True, name="trial")
        self._thread.start()

    def see(self, event: Event) -> None:
        """Take an event of the run."""
        self._is_alive, self._alive_at = True, time.monotonic()
        if isinstance(event, Progress) and event.row.split == "validation":
            self._rungs.add(event.row.step, event.row.kind, event.row.query_loss)

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
            rung = self._rungs.next(timeout=0.2)
            if rung is not None:
                return rung if self._rungs.was_reported(rung) else self._completed(rung)
            self._check()

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

    def _work(self) -> None:
        try:
            run(self._config, self)
        except Exception as error:  # raised again by whoever waits for the next rung
            self._error = error

    def _check(self) -> None:
        self._check_stall()
        if not self._thread.is_alive() and self._rungs.none_waits():
            self._raise_error()
            raise TrialFailedError("the run ended before its last meta-step")

    def _check_stall(self) -> None:
        limit = self._stall_seconds if self._is_alive else max(self._stall_seconds, SECONDS_TO_START)
        if time.monotonic() - self._alive_at > limit:
            self._hangs = True
            what = f"tune.stall_seconds={limit:g}" if self._is_alive else f"the {limit:g} seconds it has to start"
            raise TrialFailedError(f"hangs: no sign of life for {what}")

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _completed(self, rung: Rung) -> Rung:
        """Add the few-shot score, if it is asked for, and keep the rung."""
        if self._with_fewshot:
            from supmer.tune.fewshot_score import dev_score, state_at  # here: most sweeps do without what it brings along

            score = dev_score(resolve_backbone(self._config), state_at(self._directory, rung.step))
            rung = Rung(step=rung.step, values={**rung.values, FEWSHOT: score})
            self._alive_at = time.monotonic()
        self._rungs.keep(rung)
        return rung
