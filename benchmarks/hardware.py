"""What a benchmark ran on, and how fast that multiplies matrices."""

from __future__ import annotations

import platform
import subprocess
import time
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


def matmul_rate(size: int = 2048, repeats: int = 5) -> float:
    """Return the fastest fp32 rate of `size`^3 matrix products in floating-point operations per second."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    fastest = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        left @ right
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
