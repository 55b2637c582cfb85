"""How far a job is, in one style: a bar where stderr is a terminal, a line every ten seconds where it is not."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from datetime import datetime, timedelta
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from typing_extensions import Self

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0
"""The longest time without a line, where there is no bar."""
NUM_SAMPLES = 100
"""The rate is taken over so many of the last reports."""
SECONDS_WITH_A_CLOCK = 600
"""Where more time is left, the lines also say when the end is expected."""
BAR_WIDTH = 20
"""Characters; the numbers beside the bar must have room in a terminal of 80."""

CONSOLE = Console(stderr=True, highlight=False)


class Progress:
    """What a job is doing, how much of it is done, at which rate, and the time left.

        with Progress("embedding", 22_412, "sentences") as progress:
            progress.add(1000)

    A thread draws or logs, so that nothing is silent while the driver waits. One at a time has a bar.

    Attributes:
        done: what is done so far, as a part of `total`.
        note: what else to say now, as how the losses are.

    Args:
        step: what is being done.
        total: how much of `what` there is; 0 where nothing can be counted, as while a model loads.
        what: the noun that is counted, in the plural.
        done: what was done before, by an earlier call; the rate leaves it out.
    """

    def __init__(self, step: str, total: int = 0, what: str = "", done: int = 0) -> None:
        self.step, self.total, self.what, self.done, self.note = step, total, what, done, ""
        self._start = self._last_line = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque([(self._start, done)], maxlen=NUM_SAMPLES)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, name=f"progress of {step}", daemon=True)
        self._bar: Live | None = None
        self._spinner = Spinner("dots")

    def add(self, done: int) -> None:
        """Count what was done since the last call."""
        self.reach(self.done + done)

    def reach(self, done: int) -> None:
        """Set what is done in all."""
        if done != self.done:
            self._samples.append((time.monotonic(), done))
        self.done = done

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Log a line of its own; the next line about the progress comes ten seconds later."""
        logger.log(level, "%s", text)
        self._last_line = time.monotonic()

    def line(self) -> str:
        """Return what is done, of how much, at which rate, and the time left."""
        if not self.total:
            return f"{self.step}: {self.elapsed()} so far{self._noted()}"
        counted = f"{self.done:,} of {self.total:,} {self.what} ({100 * self.done // self.total}%)"
        return f"{self.step}: {counted}, {self.pace() or f'{self.elapsed()} so far'}{self._noted()}"

    def pace(self) -> str:
        """Return the rate and the time left, or nothing before anything is done."""
        (first, before), (last, done) = self._samples[0], self._samples[-1]
        if done <= before or last <= first:
            return ""
        each = (last - first) / (done - before)
        left = max(0.0, each * (self.total - self.done) - (time.monotonic() - last))
        if each > 1:
            return f"{each:.3g} s each, {time_left(left)}"
        return f"{1 / each:,.0f}/s, {time_left(left)}" if each <= 0.01 else f"{1 / each:.3g}/s, {time_left(left)}"

    def elapsed(self) -> str:
        """Return the time since the beginning."""
        return str(timedelta(seconds=round(time.monotonic() - self._start)))

    def __enter__(self) -> Self:
        self._last_line = time.monotonic()
        if CONSOLE.is_terminal and logger.isEnabledFor(logging.INFO):
            self._bar = Live(console=CONSOLE, get_renderable=self._draw, transient=True, redirect_stdout=False)
            self._bar.start()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()
        else:
            self._thread.join()
        if error is None and self.total:
            seconds = time.monotonic() - self._start
            logger.info("%s: %s %s done after %.1f s%s", self.step, f"{self.done:,}", self.what, seconds, self._noted())

    def _draw(self) -> RenderableType:
        row = Table.grid(padding=(0, 1))
        if self.total:
            counted = f"{self.done:,}/{self.total:,} {self.what}, {self.pace() or self.elapsed()}"
            row.add_row(self._spinner, self.step, ProgressBar(self.total, self.done, width=BAR_WIDTH), counted)
        else:
            row.add_row(self._spinner, self.step, self.elapsed())
        return Group(row, Text(f"  {self.note}", no_wrap=True, overflow="ellipsis")) if self.note else row

    def _noted(self) -> str:
        return f"; {self.note}" if self.note else ""

    def _report(self) -> None:
        while not self._ended.wait(max(0.1, self._last_line + SECONDS_BETWEEN_LINES - time.monotonic())):
            if time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
                self.say(self.line())


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes the lines of the log to stderr, above a bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        CONSOLE.print(Text(self.format(record)), soft_wrap=True)


def time_left(seconds: float) -> str:
    """Return how long something still takes, and until when if that is long.

    >>> time_left(75.4)
    '0:01:15 left'
    """
    text = f"{timedelta(seconds=round(seconds))} left"
    if seconds < SECONDS_WITH_A_CLOCK:
        return text
    now = datetime.now()
    end = now + timedelta(seconds=seconds)
    return f"{text} (until {end.strftime('%H:%M' if end.date() == now.date() else '%a %d %b %H:%M')})"
