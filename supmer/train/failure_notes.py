"""Why Ray Train starts the workers of a run again."""

from __future__ import annotations

from typing import Any

import ray.train

from supmer.errors import users_mistake
from supmer.train.mailbox import Failure, Note


class FailureNotes(ray.train.UserCallback):  # type: ignore[misc]  # Ray is untyped here
    """Tells the driver why workers are started again, or that only the user can help (a disk is full, say)."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in sorted(worker_exceptions.items()):
            mistake = users_mistake(error)
            if mistake is not None:
                self._mailbox.post.remote([Failure(mistake)])
                continue
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self._mailbox.post.remote([Note(f"worker {rank} failed: {lines[-1].strip()}", is_warning=True)])
