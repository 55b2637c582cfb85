"""What the driver and the workers send each other: the job to the workers, records, notes and mistakes back.

`ray.train.report` is a barrier over all ranks, so it is kept for checkpoints and validations; the mailbox is none. Ray's own
processes hold jobs and messages too and have no use for torch, so nothing here imports it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from supmer.config import Config
from supmer.errors import UserError
from supmer.meta.record import StepRecord
from supmer.train.run_dir import Origin, RunDirectory

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_MESSAGES = 0.5


@dataclass(frozen=True)
class Job:
    """One run: its settings, where it is kept, what it learns from, and the mailbox that reaches the driver."""

    config: Config
    directory: RunDirectory
    store_uri: str
    origin: Origin
    mailbox: Any


@dataclass(frozen=True)
class Note:
    """Something the user should read."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Stage:
    """What a worker does from now on, where that may take long."""

    text: str


Event = StepRecord | Note | Stage | UserError
"""A UserError is a mistake that only the user can mend: starting the workers again would not help."""


class MailboxActor:
    """Keeps events until the driver collects them."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = self._failed = False

    def post(self, events: list[Event]) -> bool:
        """Take events; return whether the run is asked to stop."""
        self._events += events
        self._failed |= any(isinstance(event, UserError) for event in events)
        return self._stop

    def has_failed(self) -> bool:
        """Return whether a mistake was posted that ends the run: workers that Ray starts again then have nothing to do."""
        return self._failed

    def collect(self) -> list[Event]:
        """Hand out the events since the last call."""
        events, self._events = self._events, []
        return events

    def request_stop(self) -> None:
        self._stop = True


def open_mailbox() -> Any:
    """Start the mailbox on the driver's node, whose loss would end the run anyway."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(MailboxActor).remote()


class Reporter:
    """A worker's side of the mailbox: sends in batches and does not wait, except where a method says so."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._waiting: list[Event] = []
        self._sent: Any = None
        self._sent_at = float("-inf")
        self.stop_requested = False

    def send(self, event: Event) -> None:
        self._waiting.append(event)
        self._take_answer(timeout=0)
        if self._sent is None and time.monotonic() - self._sent_at >= SECONDS_BETWEEN_MESSAGES:
            self._send()

    def begin(self, stage: str) -> None:
        """Say at once what begins and may take long."""
        self._mailbox.post.remote([Stage(stage)])

    def warn(self, text: str) -> None:
        self.send(Note(text, is_warning=True))

    def warn_at_once(self, text: str) -> None:
        """Send a warning before all that waits, and wait until it has arrived; may be called in any thread."""
        ray.wait([self._mailbox.post.remote([Note(text, is_warning=True)])], timeout=10)

    def flush(self) -> None:
        """Send all that is left and wait until it has arrived."""
        self._take_answer(timeout=10)
        self._send()
        self._take_answer(timeout=10)

    def _send(self) -> None:
        self._sent, self._sent_at = self._mailbox.post.remote(self._waiting), time.monotonic()
        self._waiting = []

    def _take_answer(self, timeout: float) -> None:
        if self._sent is None or not ray.wait([self._sent], timeout=timeout)[0]:
            return
        try:
            self.stop_requested |= ray.get(self._sent)
        except RayError as error:
            logger.warning("the driver cannot be reached: %s", error)
        self._sent = None
