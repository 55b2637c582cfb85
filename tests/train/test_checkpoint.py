"""Checkpoints are read back exactly or not at all, however they were mutilated."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from mutations import mutants
from torch import Tensor

from supmer.errors import UserError
from supmer.train import checkpoint
from supmer.train.checkpoint import DamagedCheckpointError
from supmer.train.run_dir import Origin

ORIGIN = Origin(config_hash="c", backbone={"name": "b", "revision": None}, store_fingerprint="s")


def state(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {"prompt": torch.randn(4, 8, generator=generator), "next_step": torch.tensor(step), "empty": torch.zeros(0)}


def save(root: Path, name: str, step: int, loss: float | None = None) -> Path:
    checkpoint.write(str(root / name), checkpoint.serialize(state(step)), step, ORIGIN, "0.1.0", loss)
    return root / name


def rewrite(folder: Path, **entries: object) -> None:
    """Replace entries of `checkpoint.json`, its digest included; None takes one out."""
    path = folder / checkpoint.MANIFEST_FILE
    changed = {**json.loads(path.read_text()), **entries}
    changed = {name: value for name, value in changed.items() if value is not None and name != "digest"}
    path.write_text(json.dumps({**changed, "digest": checkpoint._digest(changed)}))


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_state_and_origin_are_read_back(tmp_path: Path) -> None:
    found = checkpoint.read(str(save(tmp_path, "step_00000007", 7)))
    assert same(found.state, state(7))
    assert (found.manifest.step, found.manifest.origin) == (7, ORIGIN)


def test_non_contiguous_and_shared_tensors_are_saved_by_value() -> None:
    base = torch.arange(6.0).view(2, 3)
    content = checkpoint.serialize({"transposed": base.T, "row": base[1]})
    assert len(content) > 0


@pytest.mark.parametrize("name", [checkpoint.STATE_FILE, checkpoint.MANIFEST_FILE])
def test_mutated_file_is_damaged_or_harmless(tmp_path: Path, name: str) -> None:
    """1,000 mutations a file: cut, flipped, overwritten, doubled. None crashes, none is taken for another state."""
    folder = save(tmp_path, "step_00000007", 7)
    original = (folder / name).read_bytes()
    for content in mutants(original, 1000):
        (folder / name).write_bytes(content)
        try:
            found = checkpoint.read(str(folder))
        except DamagedCheckpointError:
            continue
        assert found.manifest.step == 7
        assert same(found.state, state(7))


@pytest.mark.parametrize("name", [checkpoint.STATE_FILE, checkpoint.MANIFEST_FILE])
def test_missing_file_is_damaged(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, "step_00000007", 7)
    (folder / name).unlink()
    with pytest.raises(DamagedCheckpointError, match=name):
        checkpoint.read(str(folder))


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{}", b"null", b'"x"', b"9" * 10_000, b"\xff\xfe"])
def test_hostile_manifest_is_damaged(tmp_path: Path, content: bytes) -> None:
    folder = save(tmp_path, "step_00000007", 7)
    (folder / checkpoint.MANIFEST_FILE).write_bytes(content)
    with pytest.raises(DamagedCheckpointError):
        checkpoint.read(str(folder))


def test_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    folder = save(tmp_path, "step_00000007", 7)
    rewrite(folder, format_version=3, supmer_version="9.1", something="new")
    with pytest.raises(UserError, match=r"step_00000007: checkpoint format 3, written by supmer 9\.1.*up to 2"):
        checkpoint.read(str(folder))


def test_format_1_is_read(tmp_path: Path) -> None:
    """Format 2 added the loss of the state's own validation."""
    folder = save(tmp_path, "step_00000007", 7, 1.5)
    assert checkpoint.read(str(folder)).manifest.validation_query_loss == 1.5
    rewrite(folder, format_version=1, validation_query_loss=None)
    found = checkpoint.read(str(folder))
    assert found.manifest.validation_query_loss is None
    assert same(found.state, state(7))


def test_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (10, 20, 30):
        save(tmp_path, f"step_{step:08d}", step)
    (tmp_path / "step_00000030" / checkpoint.STATE_FILE).write_bytes(b"")
    (tmp_path / "checkpoint_manager_snapshot.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert checkpoint.find_newest(str(tmp_path)) == "step_00000020"
    assert "damaged" in caplog.text
    assert "step_00000030" in caplog.text


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.find_newest(str(tmp_path / "nowhere")) is None


def test_names_are_never_used_twice_and_sort_by_step_and_attempt() -> None:
    taken: list[str] = []
    for step in (5, 100_000_000, 5, 20, 5):
        taken.append(checkpoint.new_name(taken, step))
    assert len(set(taken)) == 5
    assert sorted(taken, key=checkpoint._order) == [
        "step_00000005",
        "step_00000005_2",
        "step_00000005_3",
        "step_00000020",
        "step_100000000",
    ]


def test_newest_whole_ones_and_the_best_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step, loss in ((10, 2.0), (20, 1.0), (30, None), (40, 1.5), (50, None)):
        save(tmp_path, f"step_{step:08d}", step, loss)
    (tmp_path / "step_00000050" / checkpoint.MANIFEST_FILE).unlink()
    (tmp_path / "keep_me").mkdir()
    kept = checkpoint.KeptCheckpoints(str(tmp_path), keep=2)
    assert "step_00000050" in caplog.text
    assert names_in(tmp_path) == ["keep_me", "step_00000020", "step_00000030", "step_00000040"]
    save(tmp_path, "step_00000050_2", 50, 0.5)
    kept.add("step_00000050_2", 0.5)
    assert names_in(tmp_path) == ["keep_me", "step_00000040", "step_00000050_2"]
    for step in (60, 70):
        save(tmp_path, f"step_{step:08d}", step)
        kept.add(f"step_{step:08d}", None)
    assert names_in(tmp_path) == ["keep_me", "step_00000050_2", "step_00000060", "step_00000070"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def state_of_run(step: int) -> dict[str, Tensor]:
    return {"prompt": torch.full((200_000,), float(step)), "next_step": torch.tensor(step)}


def write_without_end(root: str, finished: Connection) -> None:
    """Continue from the newest checkpoint as a run does, write one after another, and tell of each."""
    kept = checkpoint.KeptCheckpoints(root, keep=2)
    names = checkpoint.newest_first(root)
    step = checkpoint.read(f"{root}/{names[0]}").manifest.step if names else 0
    while True:
        step += 1
        name = checkpoint.new_name(names, step)
        checkpoint.write(f"{root}/{name}", checkpoint.serialize(state_of_run(step)), step, ORIGIN, "0", float(step))
        kept.add(name, float(step))
        finished.send(step)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_directory_resumes_after_a_kill_at_any_of_50_moments_of_writing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(0)
    last = 0
    for _ in range(50):
        finished, told = context.Pipe(duplex=False)
        writer = context.Process(target=write_without_end, args=(str(tmp_path), told))
        writer.start()
        told.close()
        last = max(last, finished.recv())
        time.sleep(float(rng.uniform(0, 0.02)))
        writer.kill()
        writer.join()
        last = max([last, *unread(finished)])
        newest = checkpoint.find_newest(str(tmp_path))
        assert newest is not None
        found = checkpoint.read(f"{tmp_path}/{newest}")
        assert found.manifest.step in (last, last + 1)
        assert same(found.state, state_of_run(found.manifest.step))


def unread(connection: Connection) -> Iterator[int]:
    with connection:
        while True:
            try:
                yield connection.recv()
            except EOFError:
                return
