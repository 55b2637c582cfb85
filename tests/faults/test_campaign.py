"""The fault campaign in small; `make faults` does it at length."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name("campaign.py")

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]


def campaign(folder: Path, *arguments: str) -> dict[str, object]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, str(CAMPAIGN), "--keep", str(folder), *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1400, check=False, env=environment)
    assert result.returncode == 0, result.stdout
    return dict(json.loads(result.stdout.splitlines()[-1]))


def test_two_workers_through_faults_give_the_undisturbed_result_bit_for_bit(tmp_path: Path) -> None:
    kinds = ["worker hangs", "driver killed while a checkpoint is written"]
    found = campaign(tmp_path, "--faults", "2", "--workers", "2", "--changes", "--kinds", *kinds)
    assert found == {"campaign": "faults", "injected": 2, "recovered": 2, "identical": 2}


def test_machines_that_come_and_go_change_nothing_but_the_last_digits(tmp_path: Path) -> None:
    found = campaign(tmp_path, "--faults", "0", "--workers", "--changes", "machine joins", "machine preempted")
    assert found == {"campaign": "faults", "injected": 2, "recovered": 2, "identical": 2}
    log = (tmp_path / "elastic.log").read_text()
    assert "with 2 workers" in log
    assert "will be taken away; saving" in log
