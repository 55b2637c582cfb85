"""The progress of a sweep: `trials.jsonl` is kept up to date, and the user sees how far the trials are."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from supmer.config import Config
from supmer.progress import Progress
from supmer.train.run_dir import RunDirectory
from supmer.tune.result import Ledger, TrialRecord, best_of, format_value
from supmer.tune.search import num_left

SECONDS_BETWEEN_LOOKS = 1
"""The steps of running trials are read from their files."""
MAX_ERROR_LENGTH = 300
ERROR_CLASS = re.compile(r"^[A-Za-z_.]+(Error|Exception): ")


class SweepProgress(Callback):  # type: ignore[misc]
    """Writes what Ray Tune reports about trials into `trials.jsonl` and the log."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._config, self._ledger = config, ledger
        self._started: dict[str, float] = {}
        self._looked_at = time.monotonic()
        self.shown = Progress("sweep", config.meta.steps, "meta-steps", sum(self._steps_done(record) for record in ledger))

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray Tune keeps a copy, which is never read here."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if time.monotonic() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
            self.look()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record = self._record(trial)
        record.attempts += 1
        self._started[record.trial] = time.monotonic() - record.seconds
        self._ledger.save()
        values = ", ".join(f"{name}={format_value(value)}" for name, value in record.settings.items())
        self.shown.say(f"{record.trial}: starts: {values}")

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Any, **info: Any) -> None:
        record = self._record(trial)
        record.error = result["error"]
        if values := json.loads(result["values"]):
            record.add_rung(result["training_iteration"], values)
            self.shown.say(f"{record.trial}: step {record.step}/{self._num_steps(record)}: {self._values(record)}")
        self._ledger.save()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record = self._record(trial)
        record.error = _error_of(trial)
        self._ledger.save()
        self.shown.say(f"{record.trial}: tried again: {record.error}", logging.WARNING)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._record(trial).error = _error_of(trial)
        self.on_trial_complete(iteration, trials, trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record = self._record(trial)
        self._ledger.save()
        ending = f"{record.trial}: {record.status} after {record.step} meta-steps, {record.seconds:.0f} s"
        level = logging.INFO if record.status in ("complete", "stopped") else logging.WARNING
        self.shown.say("; ".join(part for part in (ending, record.error, self._best()) if part), level)

    def look(self) -> None:
        """Show how many meta-steps are done and how many are left, how many trials have ended, and the best so far."""
        self._looked_at = time.monotonic()
        records, to_begin = self._ledger.records, num_left(self._config, self._ledger)
        running = [record for record in records if not record.is_finished]
        done = sum(self._steps_done(record) for record in records)
        # Trials that have not begun are taken to be as long as those that ended.
        ended = [record.step for record in records if record.is_finished and record.rungs]
        expected = sum(ended) / len(ended) if ended else self._config.meta.steps
        to_do = sum(self._num_steps(record) - self._steps_done(record) for record in running) + to_begin * expected
        self.shown.total = round(done + to_do)
        self.shown.reach(done)
        steps = ", ".join(f"{record.trial} at {self._steps_done(record)}/{self._num_steps(record)}" for record in running)
        trials = f"{len(records) - len(running)} of {len(records) + to_begin} trials ended"
        self.shown.note = "; ".join(part for part in (trials, steps, self._best()) if part)

    def _best(self) -> str:
        best = best_of(self._config, self._ledger.records)
        return f"best so far {best.trial}, {self._values(best)}" if best else ""

    def _values(self, record: TrialRecord) -> str:
        return ", ".join(f"{name} {record.value(name):.4f}" for name in self._config.tune.objectives)

    def _num_steps(self, record: TrialRecord) -> int:
        return int(record.settings.get("meta.steps", self._config.meta.steps))

    def _steps_done(self, record: TrialRecord) -> int:
        """Return a trial's meta-steps; of a running trial those of the last whole line of its metrics."""
        metrics = Path(RunDirectory(record.directory).metrics)
        if record.is_finished or not metrics.exists():
            return record.step
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - 4096))
            lines = file.read().split(b"\n")[:-1]
        return max(record.step, int(json.loads(lines[-1])["step"]) if lines else 0)

    def _record(self, trial: Trial) -> TrialRecord:
        """Return the record of a trial, its time brought up to date."""
        record = self._ledger.find(trial.config["trial"])
        if record.trial in self._started:  # else it failed before it started
            record.seconds = time.monotonic() - self._started[record.trial]
        return record


def _error_of(trial: Trial) -> str:
    """Return the line of a trial's traceback that says what went wrong."""
    path = trial.error_file
    text = Path(path).read_text() if path and Path(path).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ERROR_CLASS.sub("", lines[-1])[:MAX_ERROR_LENGTH] if lines else "unknown error"
