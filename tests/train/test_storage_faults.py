"""Preparation and meta-training over storage that fails: an S3 API that stumbles, and a disk that is full."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from s3_server import BUCKET, S3Server
from tiny_run import tiny_config

from supmer import storage
from supmer.corpus.manifest import MANIFEST
from supmer.errors import UserError
from supmer.meta.record import StepRecord
from supmer.sole_job import sole_job
from supmer.train import checkpoint
from supmer.train.mailbox import Event
from supmer.train.metrics import read_rows
from supmer.train.run import RunResult, run
from supmer.train.run_dir import RunDirectory

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]

NUM_STEPS, EVERY = 12, 4
SETTINGS = (
    *(f"meta.steps={NUM_STEPS}", f"train.checkpoint_every={EVERY}", f"train.validate_every={NUM_STEPS}"),
    *("train.keep_checkpoints=2", "train.validation_episodes=1", "tasks.kinds=[nss,scsp]", "clusters.num_clusters=4"),
    "regularizer.gate_hidden=4096",  # checkpoints of 0.8 MB, beside which all else in a run directory is small
)


@dataclass(frozen=True)
class Runs:
    """The same settings on a good disk, and wholly in S3 while requests fail in every way."""

    files: Path
    whole: RunResult
    remote: RunResult
    faults: Counter[str]


@pytest.fixture(scope="module")
def runs(cluster: None, server: S3Server, tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder, bucket = tmp_path_factory.mktemp("runs"), f"s3://{BUCKET}"
    whole = run(tiny_config(tiny_files, f"run.dir={folder}", "run.name=whole", *SETTINGS))
    storage.write_bytes(f"{bucket}/text/corpus.jsonl", (tiny_files / "corpus.jsonl").read_bytes())
    places = (f"corpus.paths=[{bucket}/text]", f"corpus.store_dir={bucket}/stores", f"run.dir={bucket}/runs")
    server.stumble(error=0.04, slow=0.02, cut=0.02, drop=0.02, lose=0.02)
    remote = run(tiny_config(tiny_files, *places, "run.name=remote", "log.trackers=[]", *SETTINGS))
    return Runs(tiny_files, whole, remote, server.stumble())


def results(directory: RunDirectory) -> tuple[bytes, bytes]:
    return storage.read_bytes(directory.prompt), storage.read_bytes(directory.regularizer)


def losses(directory: RunDirectory) -> list[tuple[int, str, str, float]]:
    return [(row["step"], row["split"], row["kind"], row["query_loss"]) for row in read_rows(directory.metrics)]


def test_nothing_is_lost_in_s3_while_requests_fail(runs: Runs) -> None:
    assert runs.remote.is_complete
    assert results(runs.remote.directory) == results(runs.whole.directory)
    assert losses(runs.remote.directory) == losses(runs.whole.directory)
    assert all(runs.faults[kind] for kind in ("error", "slow", "cut", "drop", "lose")), runs.faults
    print(f"requests by fault: {dict(runs.faults)}")


def test_store_checkpoints_and_report_are_whole_in_s3(runs: Runs) -> None:
    stores = storage.list_files(f"s3://{BUCKET}/stores")
    assert [info.path for info in stores if info.path.endswith(MANIFEST)]
    assert not [info.path for info in stores if "/work/" in info.path]
    checkpoints = runs.remote.directory.checkpoints
    assert checkpoint.newest_first(checkpoints) == [f"step_{step:08d}" for step in (NUM_STEPS, NUM_STEPS - EVERY)]
    assert checkpoint.read(f"{checkpoints}/step_{NUM_STEPS:08d}").manifest.step == NUM_STEPS
    assert b"</html>" in storage.read_bytes(runs.remote.directory.report)


def test_no_secret_is_in_the_run_directory_or_the_store(runs: Runs, server: S3Server) -> None:
    for folder in ("runs", "stores"):
        for info in storage.list_files(f"s3://{BUCKET}/{folder}"):
            content = storage.read_bytes(f"s3://{info.path}")
            assert server.secret_key.encode() not in content and server.access_key.encode() not in content, info.path


@contextlib.contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Mount a file system of limited size; skips the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_ends_the_run_in_one_line_and_it_continues_when_there_is_room(runs: Runs, tmp_path: Path) -> None:
    """The first checkpoint has room, the second has not."""
    num_bytes = len(checkpoint.serialize(checkpoint.read(newest_of(runs.whole.directory)).state))
    with small_disk(tmp_path / "disk", 4 * num_bytes) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(5 * num_bytes // 2))
        config = tiny_config(runs.files, f"run.dir={disk}", "run.name=full", *SETTINGS)
        with pytest.raises(UserError, match=rf"^{disk}/full/\S*: cannot be written: the disk is full$"):
            run(config)
        join_fits()
        assert newest_of(RunDirectory(f"{disk}/full")).endswith(f"step_{EVERY:08d}")
        ballast.unlink()
        continued = run(config)
        assert continued.is_complete
        assert results(continued.directory) == results(runs.whole.directory)


class Successor:
    """Takes over a run directory, as a later job does, once the first meta-step is done."""

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir

    def see(self, event: Event) -> None:
        if isinstance(event, StepRecord) and event.split == "train":
            with sole_job(self._run_dir):
                pass

    def stop_requested(self) -> bool:
        return False


def test_of_two_jobs_in_one_place_of_s3_the_earlier_ends(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supmer.train.run.SECONDS_BETWEEN_CHECKS", 0)
    places = (f"corpus.store_dir=s3://{BUCKET}/stores", f"run.dir=s3://{BUCKET}/runs", "run.name=shared")
    config = tiny_config(runs.files, *places, "log.trackers=[]", *SETTINGS)
    with pytest.raises(UserError, match=rf"^s3://{BUCKET}/runs/shared: another job has begun there and has taken over"):
        run(config, Successor(config.run_dir))
    join_fits()


def newest_of(directory: RunDirectory) -> str:
    name = checkpoint.find_newest(directory.checkpoints)
    assert name is not None
    return storage.join(directory.checkpoints, name)


def join_fits() -> None:
    """Wait for what a run that gave up has left behind."""
    for thread in threading.enumerate():
        if thread.name == "fit":
            thread.join(timeout=300)
            assert not thread.is_alive()
