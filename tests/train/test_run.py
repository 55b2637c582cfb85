"""The main job under Ray Train, on a tiny backbone and corpus: same result however it is split, stopped or killed."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from processes import descendants
from safetensors.torch import load_file
from tiny_run import tiny_config

from supmer.errors import UserError
from supmer.train import checkpoint
from supmer.train.metrics import read_rows
from supmer.train.replay import replay
from supmer.train.run import RunResult, run
from supmer.train.run_dir import RunDirectory

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]

NUM_STEPS = 180
"""Of 30 to 50 in a second; a run takes up to a second to hear of a signal, and goes on meanwhile."""

SETTINGS = (f"meta.steps={NUM_STEPS}", "train.checkpoint_every=30", "train.validate_every=60", "train.keep_checkpoints=3")


@dataclass(frozen=True)
class Runs:
    """Runs of the same settings: undisturbed, sharded over two workers, and stopped, damaged, continued and killed."""

    files: Path
    runs: Path
    whole: RunResult
    two_workers: RunResult
    stopped: RunResult
    disturbed: RunResult
    log: str


@pytest.fixture(scope="module")
def runs(cluster: None, tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")

    def start(name: str, *overrides: str) -> RunResult:
        return run(tiny_config(tiny_files, f"run.dir={folder}", f"run.name={name}", *SETTINGS, *overrides))

    whole = start("whole")
    with captured_log() as sharded_lines:
        two_workers = start("two", "train.workers=2", "train.sharding=full")
    metrics = folder / "disturbed" / "metrics.jsonl"
    with when(lambda: num_rows(metrics) > 40, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        stopped = start("disturbed")
    newest = checkpoint.newest_first(stopped.directory.checkpoints)[0]
    state = Path(stopped.directory.checkpoints, newest, checkpoint.STATE_FILE)
    state.write_bytes(state.read_bytes()[:-10])
    with captured_log() as lines, when(lambda: num_rows(metrics) > 110, kill_worker):
        disturbed = start("disturbed")
    return Runs(tiny_files, folder, whole, two_workers, stopped, disturbed, "\n".join([*sharded_lines, *lines]))


@contextmanager
def when(condition: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """While the block runs, act once as soon as the condition holds; fail if it never did."""
    left, acted = threading.Event(), threading.Event()

    def watch() -> None:
        while not left.wait(0.01):
            if condition():
                act()
                acted.set()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()
    assert acted.is_set()


@contextmanager
def captured_log() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("supmer")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def num_rows(metrics: Path) -> int:
    return len(metrics.read_bytes().splitlines()) if metrics.exists() else 0


def kill_worker() -> None:
    """Kill a training worker of this process's own Ray cluster."""
    descendants("RayTrainWorker")[0].kill()


def train_losses(directory: RunDirectory) -> list[tuple[int, str, str, float]]:
    return [(row["step"], row["split"], row["kind"], row["query_loss"]) for row in read_rows(directory.metrics)]


def tensors(directory: RunDirectory) -> dict[str, torch.Tensor]:
    return {**load_file(directory.prompt), **load_file(directory.regularizer)}


def test_undisturbed_run_completes(runs: Runs) -> None:
    assert (runs.whole.is_complete, runs.whole.exit_code) == (True, 0)
    found = tensors(runs.whole.directory)
    assert found["prompt"].shape == (8, 16)
    assert found["prompt"].dtype == torch.float32
    assert {"mlp.layers.0.u", "mlp.layers.1.v", "mlp.linear_1.weight", "grad_mean"} <= found.keys()


def test_run_directory_is_as_the_contract_says(runs: Runs) -> None:
    folder = Path(runs.whole.directory.uri)
    files = ["checkpoints", "config.yaml", "metrics.jsonl", "prompt.safetensors", "regularizer.safetensors", "report.html"]
    assert sorted(path.name for path in folder.iterdir()) == [*files, "tensorboard"]
    rows = read_rows(runs.whole.directory.metrics)
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, NUM_STEPS + 1))
    validated = [(row["step"], row["kind"]) for row in rows if row["split"] == "validation"]
    kinds = ["nsp", "nss", "scsp", "scss", "scc"]
    assert validated == [(step, kind) for step in (0, 60, 120, 180) for kind in kinds]
    assert len(list((folder / "tensorboard").glob("events.*"))) == 1


def test_newest_checkpoints_and_the_best_are_kept(runs: Runs) -> None:
    losses: dict[int, float] = {}
    for row in read_rows(runs.whole.directory.metrics):
        if row["split"] == "validation" and row["step"] > 0:
            losses[row["step"]] = losses.get(row["step"], 0.0) + row["query_loss"]
    best = min(losses, key=losses.__getitem__)
    names = checkpoint.newest_first(runs.whole.directory.checkpoints)
    assert names == [f"step_{step:08d}" for step in sorted({180, 150, 120, best}, reverse=True)]


def test_replay_recomputes_one_step(runs: Runs) -> None:
    config = tiny_config(runs.files, f"run.dir={runs.runs}", "run.name=whole", *SETTINGS)
    before = {path: path.stat().st_mtime_ns for path in Path(runs.whole.directory.uri).rglob("*")}
    lines = list(replay(config, 153))
    assert lines[0] == (
        "step 153 from checkpoint step_00000150: there is no checkpoint of step 152, so 2 steps are recomputed first"
    )
    (row,) = (row for row in read_rows(runs.whole.directory.metrics) if (row["step"], row["split"]) == (153, "train"))
    assert [line.split(":")[0] for line in lines[1:3]] == ["episode of slot 0", "episode of slot 1"]
    for line in lines[3:]:
        assert f"query loss {row['query_loss']:.6g}" in line
    assert [line.split(":")[0] for line in lines[3:]] == ["together", "metrics.jsonl"]
    assert next(iter(replay(config, 151))) == "step 151 from checkpoint step_00000150"
    assert before == {path: path.stat().st_mtime_ns for path in Path(runs.whole.directory.uri).rglob("*")}


@pytest.mark.parametrize(
    ("step", "name", "message"),
    [(0, "whole", r"--replay 0: must be from 1 to meta\.steps=180"), (5, "none", r"run\.name=none: no run has begun")],
)
def test_replay_of_what_is_not_there_is_refused(runs: Runs, step: int, name: str, message: str) -> None:
    config = tiny_config(runs.files, f"run.dir={runs.runs}", f"run.name={name}", *SETTINGS)
    with pytest.raises(UserError, match=message):
        list(replay(config, step))


def test_two_workers_that_share_the_weights_compute_what_one_does(runs: Runs) -> None:
    one, two = tensors(runs.whole.directory), tensors(runs.two_workers.directory)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5, equal_nan=True)
    for (*place, loss), (*same_place, other) in zip(
        train_losses(runs.whole.directory), train_losses(runs.two_workers.directory), strict=True
    ):
        assert place == same_place
        assert other == pytest.approx(loss, rel=1e-5)


def test_sigterm_saves_the_step_it_came_in(runs: Runs) -> None:
    assert (runs.stopped.is_complete, runs.stopped.exit_code) == (False, 0)
    assert "continuing after step" in runs.log


def test_sharded_workers_tell_how_much_they_hold(runs: Runs) -> None:
    assert "MiB of the backbone's weights" in runs.log


def test_damaged_newest_checkpoint_and_killed_worker_are_told(runs: Runs) -> None:
    assert "passing over a damaged checkpoint" in runs.log
    assert "worker 0 failed" in runs.log
    assert runs.log.count("continuing after step") == 2


def test_disturbed_run_equals_the_undisturbed_one_bit_for_bit(runs: Runs) -> None:
    assert runs.disturbed.is_complete
    whole, disturbed = runs.whole.directory, runs.disturbed.directory
    assert train_losses(disturbed) == train_losses(whole)
    for name in ("prompt.safetensors", "regularizer.safetensors"):
        assert Path(disturbed.uri, name).read_bytes() == Path(whole.uri, name).read_bytes()


def test_complete_run_is_not_started_again(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = list_times(Path(runs.whole.directory.uri))
    again = run(tiny_config(runs.files, f"run.dir={runs.runs}", "run.name=whole", *SETTINGS))
    assert again.is_complete
    assert "already complete" in caplog.text
    assert list_times(Path(runs.whole.directory.uri)) == before


def list_times(folder: Path) -> dict[Path, int]:
    """Return when each file was last written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_other_store_under_the_same_name_is_refused(runs: Runs) -> None:
    with pytest.raises(UserError, match=r"run\.name=whole.*tasks\.num_support: 4 -> 3"):
        run(tiny_config(runs.files, f"run.dir={runs.runs}", "run.name=whole", *SETTINGS, "tasks.num_support=3"))
