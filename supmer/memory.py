"""Memory of a device: now, and at its peak. For a CPU it is what this process holds (on Linux; else 0)."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def used_memory(device: torch.device) -> int:
    """Return bytes in use."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident("VmRSS")


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use since `reset_peak_memory`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def reset_peak_memory(device: torch.device) -> None:
    """Begin anew to look for the peak, where the system allows."""
    mark = Path("/proc/self/clear_refs")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access(mark, os.W_OK):
        mark.write_text("5")


def _resident(field: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields[field].split()[0]) * 1024
