"""The core runs without Ray and the other libraries of the jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


WITH_PYARROW = """
import sys
sys.modules.update(dict.fromkeys(("accelerate", "omegaconf", "pandas", "peft", "ray", "scipy", "sklearn", "tensorboard")))
import gpu_check.evidence
"""


def test_evidence_on_a_lent_gpu_needs_pyarrow_besides() -> None:
    """What tunes cells there reads tasks and stores, but no configuration file of a job."""
    paths = f"{ROOT}:{ROOT / 'benchmarks'}"
    command = [sys.executable, "-c", WITH_PYARROW]
    done = subprocess.run(command, env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
