"""The benchmark that compares a backbone's encoder with a random one, through its command line."""

from __future__ import annotations

import json
import subprocess
import sys

from scripts import ROOT

PROBE = [sys.executable, str(ROOT / "benchmarks" / "backbone_probe.py"), "backbone.name=embedded"]


def probe(*overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROBE, *overrides], capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def test_the_embedded_backbone_knows_more_than_a_random_one() -> None:
    finished = probe("fewshot.seeds=[0,1]", "fewshot.max_test_rows=60")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    scores = found["tasks"]["library-docs"]
    assert found["k"] == 16 and scores["backbone"]["accuracy"] > scores["random"]["accuracy"] + 0.05
    assert scores["backbone"]["accuracy"] > scores["largest_class"]


def test_several_numbers_of_rows_are_refused() -> None:
    finished = probe("fewshot.k=[4,8]")
    assert finished.returncode == 2 and finished.stderr.splitlines()[-1].endswith(
        "fewshot.k=[4, 8]: one number of rows at a time"
    )
