"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK_EVERY_SECONDS = 0.05


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until the condition holds; an AssertionError says that it did not within so many seconds."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"waited {seconds:g} s in vain"
        time.sleep(LOOK_EVERY_SECONDS)
