"""The core runs without Ray and the other libraries of the jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_meta_step_and_tuning_where_ray_cannot_be_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "tests/core_step.py"],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "the core needs none of" in done.stdout.splitlines()[-1]
