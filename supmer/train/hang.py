"""A process that hangs says where, and ends, so that its run can go on from the newest checkpoint.

A collective that never returns cannot be interrupted from Python, and waits for a rank that may be anywhere. So each rank
has a watch of its own: ranks work in lockstep, and when one of them hangs, the watches of all go off together. The
standard library's `faulthandler.dump_traceback_later` would write to a log file of each worker, and end the first rank
before the others have written; here the user reads one line for each rank.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from typing_extensions import Self

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: another attempt may succeed."""

SECONDS_FOR_OTHERS = 3.0
"""Time between report and end, in which the other ranks report too: the first to end makes Ray end them all."""

NUM_FRAMES = 6


class HangWatch:
    """While entered, ends this process when `beat` is not called for `seconds`, after a report of where the thread hangs.

    Args:
        seconds: the longest time from one beat to the next.
        report: takes one line that says where; it is called in the watch's own thread.
    """

    def __init__(self, seconds: float, report: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._report = report
        self._watched = threading.get_ident()
        self._last_beat = time.monotonic()
        self._left = threading.Event()

    def beat(self) -> None:
        """Say that something was finished."""
        self._last_beat = time.monotonic()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="hang-watch", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()

    def _watch(self) -> None:
        while (left := self._last_beat + self._seconds - time.monotonic()) > 0:
            if self._left.wait(left):
                return
        self._report(f"nothing was finished for {self._seconds:g} s, in {where(self._watched)}")
        if not self._left.wait(SECONDS_FOR_OTHERS):
            os._exit(EXIT_CODE)


def where(thread_id: int) -> str:
    """Say where a thread is, the innermost call first: ``all_reduce (distributed_c10d.py:3001) < step (learner.py:95)``."""
    frame = sys._current_frames().get(thread_id)
    if frame is None:
        return "a thread that has ended"
    calls = [f"{call.name} ({Path(call.filename).name}:{call.lineno})" for call in reversed(traceback.extract_stack(frame))]
    return " < ".join(calls[:NUM_FRAMES])
