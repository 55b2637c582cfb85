"""What a benchmark ran on, and how fast that multiplies matrices."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import ray
import torch
import transformers


def describe() -> str:
    """Return one line: processor, threads, versions and commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, ray {ray.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, {versions}, commit {commit or 'unknown'}"


def matmul_seconds(
    clock: Callable[[], float], size: int = 1024, repeats: int = 8, dtype: torch.dtype = torch.float32
) -> tuple[float, float]:
    """Multiply matrices; return floating-point operations and seconds by `clock`, of all repeats together."""
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    left @ right  # warm-up
    started = clock()
    for _ in range(repeats):
        left @ right
    return 2.0 * size**3 * repeats, clock() - started


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
