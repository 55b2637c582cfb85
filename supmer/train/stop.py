"""SIGTERM and Ctrl-C while training: finish the meta-step, save, end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from typing_extensions import Self

EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


class StopSignals:
    """Catches both signals in the main thread while entered; the second one interrupts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """Exit code of a run that ended early: 0 after SIGTERM, 130 after Ctrl-C."""
        return EXIT_CODES[self.received] if self.received else 0

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # as under Ray Tune, which stops its trials itself

        def handle(number: int, frame: FrameType | None) -> None:
            if self.received:
                raise KeyboardInterrupt
            self.received = signal.Signals(number)

        self._before = {number: signal.signal(number, handle) for number in EXIT_CODES}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
