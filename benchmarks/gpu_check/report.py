"""Lines as they come, one table of all figures, and the limits of time."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch


class OutOfTimeError(Exception):
    """A section has used up its seconds."""


@dataclass
class Report:
    """What the sections found.

    Attributes:
        rows: lines of the Markdown table: section, what, figure.
        figures: of the JSON object.
        failures: what a section asserts and what did not hold.
    """

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def line(self, section: str, what: str, figure: str) -> None:
        """Keep a figure and show it at once."""
        self.rows.append((section, what, figure))
        print(f"{what}: {figure}", flush=True)

    def require(self, section: str, what: str, figure: str, *, holds: bool) -> None:
        """Keep a figure with whether it is as it must be."""
        self.line(section, what, f"{figure} {'ok' if holds else 'FAILED'}")
        if not holds:
            self.failures.append(f"{section}: {what}")

    def markdown(self) -> str:
        """Return the table for docs/gpu.md."""
        head = "| section | what | figure |\n|---|---|---|"
        return "\n".join([head, *(f"| {section} | {what} | {figure} |" for section, what, figure in self.rows)])


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise OutOfTimeError in the block when its seconds are over; a kernel that runs is awaited."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(max(1, seconds))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def device_name(device: torch.device) -> str:
    """Return the card's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def finish(device: torch.device) -> None:
    """Wait for all that the device was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(device: torch.device, started: float) -> float:
    """Return the seconds since `started`, with all that the device was given meanwhile."""
    finish(device)
    return time.perf_counter() - started


def free(device: torch.device) -> None:
    """Give freed tensors' memory back, so that one measurement does not stand in the next one's way."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
