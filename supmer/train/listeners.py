"""Who follows a run: the terminal, TensorBoard and other trackers, and whoever started the run, as a sweep does."""

from __future__ import annotations

import logging
import posixpath
from collections import deque
from typing import Protocol

from typing_extensions import Self

from supmer.config import Config
from supmer.config.effects import all_settings
from supmer.errors import UserError
from supmer.meta.record import StepRecord
from supmer.progress import Progress
from supmer.train.mailbox import Event, Note, Stage
from supmer.train.run_dir import RunDirectory, find_sweep
from supmer.train.trackers import Tracked, Trackers

logger = logging.getLogger(__name__)

STEPS_OF_SPEED = 50
"""Meta-steps over which speed is averaged."""

SMOOTHING = 0.9
"""Weight of the past in the losses on the terminal, per step of the same kind."""


class Observer(Protocol):
    """Who follows a run besides the terminal, as a sweep does."""

    def see(self, event: Event) -> None:
        """Take what a worker has sent."""
        ...

    def stop_requested(self) -> bool:
        """Return whether the run should save after this meta-step and end."""
        ...


class Listeners:
    """Passes what the workers send to the terminal, to the trackers of `log.trackers` and to an observer."""

    def __init__(self, config: Config, directory: RunDirectory, observer: Observer | None) -> None:
        self._terminal, self._observer, self._every = Terminal(config), observer, config.log.every
        sweep = find_sweep(directory)
        group = config.log.group or (posixpath.basename(sweep.uri) if sweep else None)
        tracked = Tracked(config.run.name, group, directory.uri, all_settings(config), continues=True)
        self._trackers = Trackers(config, tracked)
        self._results = directory.prompt, directory.regularizer

    def receive(self, events: list[Event]) -> None:
        """Pass events on, of which there may be none; a failure that a worker sent is raised."""
        for event in events:
            if self._observer is not None:
                self._observer.see(event)
            match event:
                case StepRecord():
                    self._terminal.show(event)
                    if event.split == "validation" or event.step % self._every == 0:
                        self._trackers.log(tracked_values(event), event.step)
                case Stage(text):
                    self._terminal.begin(text)
                case Note(text, is_warning):
                    self._terminal.line(text, logging.WARNING if is_warning else logging.INFO)
                case UserError():
                    raise event

    def stop_requested(self) -> bool:
        return self._observer is not None and self._observer.stop_requested()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._terminal.close()
        self._trackers.finish(self._results)


class Terminal:
    """Shows how far a run is: what the workers do before the first meta-step, then steps, losses, speed and time left."""

    def __init__(self, config: Config) -> None:
        self._num_steps, self._num_kinds = config.meta.steps, len(config.tasks.kinds)
        self._validate_every = config.train.validate_every
        self._recent: deque[StepRecord] = deque(maxlen=STEPS_OF_SPEED)
        self._losses: dict[str, float] = {}
        self._validation: dict[str, StepRecord] = {}
        self.progress = Progress("starting the workers")
        self.progress.__enter__()

    def line(self, text: str, level: int = logging.INFO) -> None:
        self.progress.say(text, level)

    def begin(self, stage: str) -> None:
        """Say what begins now and may take long."""
        self._show(Progress(stage))
        self.line(stage)

    def close(self) -> None:
        self.progress.__exit__(None, None, None)

    def show(self, record: StepRecord) -> None:
        is_last = record.step == self._num_steps
        if record.split == "validation":
            self._validation[record.kind] = record  # workers that were started again may send a kind again
            if len(self._validation) == self._num_kinds:
                losses = "  ".join(f"{each.kind} {each.query_loss:.4f}" for each in self._validation.values())
                self.line(f"step {record.step}/{self._num_steps}  validation loss  {losses}")
                self._validation.clear()
                if is_last:
                    self.progress.note = self.progress.note.removesuffix("  validating")
                    self._show(Progress("saving and ending the workers"))
            return
        if not self.progress.total:  # the first step of these workers, which is slower than the others
            self._show(Progress("meta-training", self._num_steps, "steps", record.step))
        self._recent.append(record)
        kind, loss = record.kind, record.query_loss
        if not record.skipped:
            self._losses[kind] = SMOOTHING * self._losses.get(kind, loss) + (1 - SMOOTHING) * loss
        self.progress.reach(record.step)
        tokens = sum(recent.tokens for recent in self._recent) / sum(recent.step_seconds for recent in self._recent)
        losses = "  ".join(f"{kind} {loss:.3f}" for kind, loss in sorted(self._losses.items()))
        validating = "  validating" if is_last or record.step % self._validate_every == 0 else ""
        self.progress.note = f"loss  {losses}  gate {record.gate:.3f}  {tokens:,.0f} tokens/s{validating}"

    def _show(self, progress: Progress) -> None:
        self.close()
        self.progress = progress
        progress.__enter__()


def tracked_values(record: StepRecord) -> dict[str, float]:
    """Return what trackers get of a meta-step or a validation; a validation has a record for each kind at the same step."""
    of_kind = f"{record.split}/{record.kind}"
    every = "train" if record.split == "train" else of_kind
    values = {
        f"{of_kind}/query_loss": record.query_loss,
        f"{of_kind}/support_loss": record.support_loss,
        f"{every}/gate": record.gate,
        f"{every}/similarity": record.similarity,
    }
    if record.split == "train":
        values |= {
            "train/mixup_b": record.mixup_b,
            "speed/tokens_per_second": record.tokens / record.step_seconds,
            "speed/step_seconds": record.step_seconds,
            "speed/data_wait_seconds": record.data_wait_seconds,
        }
    return values
