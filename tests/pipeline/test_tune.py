"""Sweeps through their command line: outcome, restart after kill -9, trials that come to grief."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from omegaconf import OmegaConf
from processes import descendants
from scripts import call, finish
from scripts import start as start_script
from tiny_run import tiny_overrides
from waiting import wait_until

LOSS = "validation_query_loss"
RAY_AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
"""Ray's own helpers of a node, which may take minutes to see that it has gone; they hold nothing of a sweep."""

SETTINGS = (
    "run.name=sweep",
    "meta.steps=9",
    "train.validate_every=3",
    "train.checkpoint_every=3",
    "train.cpus_per_worker=0.75",
    "train.max_failures=0",
)


def write_sweep(files: Path, folder: Path, tune: dict[str, Any], *overrides: str) -> Path:
    values = OmegaConf.to_container(OmegaConf.from_dotlist([*tiny_overrides(files, *SETTINGS), *overrides]))
    assert isinstance(values, dict)
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**values, "tune": tune}, sort_keys=False))
    return path


def start(script: str, config: Path, *overrides: str) -> subprocess.Popen[str]:
    return start_script(script, "--config", config, *overrides, cwd=config.parent)


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "runs" / "sweep" / "trials.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["trial"]: record for record in map(json.loads, lines)}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("meta.iner_lr: {choice: [1]}", "error: tune.space.meta.iner_lr: unknown setting; did you mean meta.inner_lr"),
        ("meta.inner_lr: {loguniform: [0, 1]}", "error: tune.space.meta.inner_lr.loguniform=[0.0, 1.0]: must begin above 0"),
        (
            "meta.inner_lr: {choice: [1]}, meta.inner_lr: {choice: [2]}",
            "error: --config sweep.yaml: not readable as YAML (the",
        ),
        ("meta.inner_lr: {choice: [1e999]}", "error: tune.space.meta.inner_lr: inf cannot be used"),
    ],
)
def test_bad_space_is_one_line_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: str, message: str
) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text(f"tune: {{space: {{{space}}}}}")
    monkeypatch.chdir(tmp_path)
    done = call("tune.py", "--config", config.name)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(message)
    assert list(tmp_path.iterdir()) == [config]


def kill_when(config: Path, reached: Callable[[], bool]) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Start a sweep and kill its driver; return the records of its trials and the metrics that their checkpoints hold."""
    killed = start("tune.py", config)
    wait_until(lambda: killed.poll() is not None or reached(), 600)
    assert killed.poll() is None, finish(killed)
    agents = {agent for title in RAY_AGENTS for agent in descendants(title, of=killed.pid)}
    others = set(descendants(of=killed.pid)) - agents
    killed.kill()
    finish(killed)
    assert not psutil.wait_procs(others, timeout=120)[1]
    found = trials(config.parent)
    return found, {trial: metrics_until(config.parent, trial, last_saved(config.parent, trial)) for trial in found}


def last_saved(folder: Path, trial: str) -> int:
    """Return the meta-step of a trial's newest checkpoint, -1 if there is none."""
    checkpoints = folder / "runs" / "sweep" / "trials" / trial / "checkpoints"
    return max((json.loads(path.read_text())["step"] for path in checkpoints.glob("*/checkpoint.json")), default=-1)


def metrics_until(folder: Path, trial: str, step: int) -> list[dict[str, Any]]:
    path = folder / "runs" / "sweep" / "trials" / trial / "metrics.jsonl"
    rows = map(json.loads, path.read_text().splitlines()) if step >= 0 else iter(())
    return [row for row in rows if row["step"] <= step]


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_sweep_survives_a_kill_and_its_best_repeats(
    tiny_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"meta.inner_lr": {"loguniform": [0.01, 1]}, "regularizer.hidden_layers": {"choice": [0, 1]}}
    config = write_sweep(tiny_files, tmp_path, {"num_trials": 3, "grace_steps": 3, "stall_seconds": 100, "space": space})
    records, metrics = kill_when(config, lambda: any(record["rungs"] for record in trials(tmp_path).values()))

    code, out, err = finish(start("tune.py", config))
    assert code == 0, err
    assert "Traceback" not in err
    after = trials(tmp_path)
    assert list(after) == ["t000", "t001", "t002"]
    assert {record["status"] for record in after.values()} <= {"complete", "stopped"}
    for trial, record in records.items():
        assert after[trial]["settings"] == record["settings"]
        assert after[trial]["rungs"][: len(record["rungs"])] == record["rungs"]
        assert record["status"] == "running" or after[trial] == record
        # With their times: what a checkpoint holds is not done again.
        assert metrics_until(tmp_path, trial, metrics[trial][-1]["step"] if metrics[trial] else -1) == metrics[trial]
    assert any(metrics.values())
    assert len({json.dumps(record["settings"]) for record in after.values()}) == 3
    assert all(trial in out for trial in after)

    complete = [record for record in after.values() if record["status"] == "complete"]
    best = min(complete, key=lambda record: record["rungs"][-1]["values"][LOSS])
    sweep = tmp_path / "runs" / "sweep"
    page = (sweep / "sweep.html").read_text()
    assert "parallel coordinates" in page and "learning curves" in page and best["command"].replace("'", "&#x27;") in page
    assert not (sweep / "ray_tune").exists()

    command = err.split(f"best trial {best['trial']}, trained again by: ")[1].splitlines()[0]
    repeated = subprocess.run(shlex.split(command), cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert repeated.returncode == 0, repeated.stderr
    rows = [json.loads(line) for line in (tmp_path / "runs" / "sweep-best" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["query_loss"] for row in rows if row["split"] == "validation" and row["step"] == 9]
    assert sum(losses) / len(losses) == best["rungs"][-1]["values"][LOSS]

    monkeypatch.chdir(tmp_path)
    assert all(trial in call("tune.py", "--config", config).stdout for trial in after)  # there is nothing left to do
    assert trials(tmp_path) == after


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_trials_that_diverge_crash_or_hang_are_told_apart_and_the_others_go_on(tiny_files: Path, tmp_path: Path) -> None:
    cases = {
        "diverging": {"meta.regularizer_lr": 1e30},
        "crashing": {"meta.steps": 5000},  # without end, as far as this test is concerned
        "hanging": {"meta.steps": 6000},
        "sound": {},
    }
    tune = {"searcher": "grid", "scheduler": "none", "max_concurrent": 1, "max_retries": 0, "stall_seconds": 60}
    config = write_sweep(tiny_files, tmp_path, {**tune, "space": {"case": {"cases": cases}}}, "meta.steps=6")
    runs = tmp_path / "runs" / "sweep" / "trials"
    sweep = start("tune.py", config)
    try:
        for case, number in (("crashing", signal.SIGKILL), ("hanging", signal.SIGSTOP)):
            wait_until(
                lambda case=case: case in running_case(tmp_path) and has_begun(runs / running_case(tmp_path)[case]), 600
            )
            for worker in descendants("RayTrainWorker", of=sweep.pid):
                with suppress(psutil.NoSuchProcess):  # one of the trial before
                    worker.send_signal(number)
        workers = descendants("RayTrainWorker", of=sweep.pid)
    finally:
        code, out, err = finish(sweep)
    assert code == 0, err
    found = {record["draws"]["case"]: record for record in trials(tmp_path).values()}
    assert {case: record["status"] for case, record in found.items()} == {
        "diverging": "diverged",
        "crashing": "failed",
        "hanging": "failed",
        "sound": "complete",
    }
    assert "no sign of life for tune.stall_seconds=60" in found["hanging"]["error"]
    assert found["crashing"]["error"] and "no sign of life" not in found["crashing"]["error"]
    assert all(record["error"].splitlines()[0] in out + err for record in found.values() if record["error"])
    assert not any(worker.is_running() for worker in workers)


def running_case(folder: Path) -> dict[str, str]:
    """Return the case of the trial that runs, and the trial's name."""
    return {record["draws"]["case"]: name for name, record in trials(folder).items() if record["status"] == "running"}


def has_begun(run: Path) -> bool:
    path = run / "metrics.jsonl"
    return path.exists() and '"train"' in path.read_text()
