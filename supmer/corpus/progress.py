"""How far a step of the preparation is, as lines of the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import ray
from typing_extensions import Self

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Log every ten seconds what is done, and at the end how long all of it took.

        with Progress("embedding", 22_412, "sentences") as progress:
            progress.add(1000)

    A thread writes the lines, so that nothing is silent while the driver waits.
    """

    def __init__(self, step: str, total: int, what: str) -> None:
        self.step, self.total, self.what = step, total, what
        self.done = 0
        self.note = ""
        self._start = time.perf_counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, name=f"progress of {step}", daemon=True)

    def add(self, done: int) -> None:
        """Count what was done since the last call."""
        self.done += done

    def line(self) -> str:
        """Return what is done, of how much, at which rate, and the time left."""
        seconds = time.perf_counter() - self._start
        percent = 100 * self.done // max(self.total, 1)
        text = f"{self.step}: {self.done:,} of {self.total:,} {self.what} ({percent}%){self.note} after {seconds:.0f} s"
        if not self.done:
            return text
        rate = self.done / seconds
        return f"{text}, {rate:,.3g}/s, {(self.total - self.done) / rate:.0f} s left"

    def gather(self, tasks: Sequence[ray.ObjectRef[Any]]) -> list[Any]:
        """Return the results of Ray tasks in order, counting each as one that is done."""
        pending = list(tasks)
        while pending:
            done, pending = ray.wait(pending, num_returns=len(pending), timeout=1)
            ray.get(done)  # raises the error of a task that failed, without waiting for the others
            self.add(len(done))
        results: list[Any] = ray.get(list(tasks))
        return results

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            seconds = time.perf_counter() - self._start
            logger.info("%s took %.1f s: %s %s%s", self.step, seconds, f"{self.done:,}", self.what, self.note)

    def _report(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LINES):
            logger.info("%s", self.line())
