"""The dry run through its command line: what it measures of a meta-step is what the plan says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts import ROOT, run

SMALL = ("prompt.length=8", "tasks.max_length=64", "tasks.num_support=4", "tasks.num_query=4", "tasks.max_option_tokens=8")


@pytest.mark.slow
@pytest.mark.cluster
def test_a_real_meta_step_needs_what_the_plan_says_and_no_run_is_written(tmp_path: Path) -> None:
    places = (f"run.dir={tmp_path / 'runs'}", f"corpus.store_dir={tmp_path / 'stores'}")
    settings = ("train.workers=2", "train.sharding=full", *SMALL, *places)
    done = run("metatrain.py", "--config", "configs/quickstart.yaml", "--dry-run", *settings, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    errors = {
        name: abs(float(percent)) / 100
        for name, percent in re.findall(r"(?m)^([^:]+): .* measured, .* planned \(([-+.\d]+)%\)$", done.stdout)
    }
    assert errors["FLOPs of a worker, GFLOP"] < 0.02
    assert errors["peak memory of a worker, MiB"] < 0.25  # libraries' own buffers are large beside this little
    # 2 episodes of 4 support rows, 4 query rows and their augmentation rows, each of 64 positions less 8 of the prompt.
    seconds, rate = re.findall(r"([-.e\d]+) s a meta-step, ([,\d]+) tokens/s", done.stdout)[0]
    assert float(seconds) * float(rate.replace(",", "")) == pytest.approx(2 * (4 + 4 + 4) * 56, rel=0.02)
    assert not any(tmp_path.iterdir())
