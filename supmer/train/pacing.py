"""Keeps Ray Data's scheduler, a thread of the trainer's process, from taking the processor while it has nothing to do."""

from __future__ import annotations

import time

from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor

PAUSE_SECONDS = 0.01
"""Long beside the work of a round, short beside the time that a block of episodes lasts, of which several are ahead."""


class PausingScheduler(ExecutionCallback):  # type: ignore[misc]
    """Pauses after every round of the scheduler of a Ray Data execution.

    The scheduler waits until all its tasks have output. When the consumer is the slower side, as training should be, they
    all have output that the memory limit leaves with them, so that the wait returns at once, round after round, and the
    interpreter's lock is held most of the time.
    """

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Sleep, which releases the lock."""
        time.sleep(PAUSE_SECONDS)
