"""`benchmarks/gpu.py` on tiny shapes: the same program that a GPU runs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_whole_check_runs_on_a_cpu() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--cpu"], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    lines = done.stdout.splitlines()
    found = json.loads(lines[-1])
    assert found["failures"] == [] and done.returncode == 0, done.stdout + done.stderr
    assert found["synchronizations"] == 0 and 0 < found["mfu"] < 1.5 and found["rows_per_second"] > 0
    assert "| section | what | figure |" in lines
    sections = {line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")}
    assert {"equality", "synchronizations", "speed", "planner", "few-shot"} <= sections


def test_a_section_that_fails_does_not_keep_the_next_from_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    program, syncs = importlib.import_module("gpu"), importlib.import_module("gpu_check.syncs")

    def fail(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(syncs, "run", fail)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", "--only", "syncs", "tuning"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended.value.code == 1 and found["failures"] == ["syncs: RuntimeError: no such kernel"]
    assert found["rows_per_second"] > 0
