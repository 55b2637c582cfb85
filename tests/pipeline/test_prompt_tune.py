from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from fewshot_material import job_settings, make_backbone, make_run, make_task
from scripts import Finished, call, start
from scripts import run as run_script

TIMEOUT = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, a task, a run named `test` and a configuration file."""
    folder = tmp_path_factory.mktemp("prompt_tune")
    settings = job_settings(make_backbone(folder / "t5"), make_task(folder), folder / "runs")
    make_run(folder / "runs" / "test")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def run(folder: Path, *overrides: str) -> Finished:
    return run_script("prompt_tune.py", "--config", folder / "config.yaml", *overrides, cwd=folder, timeout=TIMEOUT)


def lines(folder: Path, name: str = "test") -> list[dict[str, Any]]:
    file = folder / "runs" / name / "fewshot.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_job_loses_no_finished_cell_and_a_finished_one_computes_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["fewshot.methods=[zero_shot,prompt_tuning,supmer]", "fewshot.seeds=[0,1]", "fewshot.steps=40"]
    overrides += ["fewshot.concurrency=2", "fewshot.cpus_per_cell=0.5"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    arguments = ("--config", folder / "config.yaml", *overrides)
    process = start("prompt_tune.py", *arguments, cwd=folder, start_new_session=True, **silent)
    deadline = time.monotonic() + TIMEOUT
    while len(lines(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = lines(folder)
    assert 2 <= len(before) < 6

    resumed = run(folder, *overrides)
    assert resumed.returncode == 0, resumed.stderr
    after = lines(folder)
    assert after[: len(before)] == before  # seconds included: not computed again
    assert len(after) == 6
    assert {(line["method"], line["seed"]) for line in after} == {
        (method, seed) for method in ("zero_shot", "prompt_tuning", "supmer") for seed in (0, 1)
    }
    assert all(line["num_test"] == 100 and line["k"] == 4 and line["metric"] == "accuracy" for line in after)
    assert "colour" in resumed.stdout and "prompt_tuning" in resumed.stdout and "±" in resumed.stdout

    with (folder / "test.jsonl").open("a") as file:
        file.write("{broken\n")
    assert call("prompt_tune.py", *arguments).returncode == 0
    assert "6 finished before" in caplog.text
    assert "task colour: 0 train and 1 test rows could not be used" in caplog.text
    assert lines(folder) == after


GOOD = {"text": "the red river .", "label": 0}
TASK = "name: mine\npatterns: ['{text} It was <X> .']\nlabel_words: [bad, good]\nfolder: {path: .}\n"


def test_a_bad_task_ends_with_one_line_and_code_2(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TASK)
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(f"{json.dumps(GOOD)}\n{json.dumps({**GOOD, 'label': 2})}\n")
    finished = call("prompt_tune.py", "--config", folder / "config.yaml", f"fewshot.tasks=[{tmp_path / 'mine.yaml'}]")
    assert finished.returncode == 2
    (error,) = finished.stderr.splitlines()
    assert error.startswith("error: ") and error.endswith("train.jsonl row 2: label=2: must be one of '0', '1'")


def test_a_mistake_ends_with_one_line_and_code_2(folder: Path) -> None:
    finished = call("prompt_tune.py", "--config", folder / "config.yaml", "fewshot.from_run=nowhere")
    assert finished.returncode == 2
    (error,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert error == ("error: fewshot.from_run=nowhere: has no prompt.safetensors; name the directory of a meta-trained run")
    assert "Traceback" not in finished.stderr
