"""Checkpoints are read back exactly or not at all, however they were mutilated."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from supmer.errors import UserError
from supmer.train import checkpoint
from supmer.train.checkpoint import DamagedCheckpointError, Origin

ORIGIN = Origin(config_hash="c", backbone={"name": "b", "revision": None}, store_fingerprint="s")


def state(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {"prompt": torch.randn(4, 8, generator=generator), "next_step": torch.tensor(step), "empty": torch.zeros(0)}


def save(root: Path, name: str, step: int) -> Path:
    checkpoint.write(str(root / name), checkpoint.serialize(state(step)), step, ORIGIN, "0.1.0")
    return root / name


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
    rng = np.random.default_rng(0)
    for number in range(1000):
        (folder / name).write_bytes(mutate(original, rng, number % 4))
        try:
            found = checkpoint.read(str(folder))
        except DamagedCheckpointError:
            continue
        assert found.manifest.step == 7
        assert same(found.state, state(7))


def mutate(content: bytes, rng: np.random.Generator, how: int) -> bytes:
    position = int(rng.integers(len(content)))
    if how == 0:
        return content[:position]
    if how == 1:
        flipped = content[position] ^ (1 << int(rng.integers(8)))
        return content[:position] + bytes([flipped]) + content[position + 1 :]
    if how == 2:
        noise = rng.bytes(int(rng.integers(1, 40)))
        return content[:position] + noise + content[position + len(noise) :]
    return content[:position] + content


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
    path = folder / checkpoint.MANIFEST_FILE
    entries = json.loads(path.read_text())
    del entries["digest"]
    entries |= {"format_version": 2, "supmer_version": "9.1", "something": "new"}
    path.write_text(json.dumps({**entries, "digest": checkpoint._digest(entries)}))
    with pytest.raises(UserError, match=r"step_00000007: checkpoint format 2, written by supmer 9\.1.*up to 1"):
        checkpoint.read(str(folder))


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


def test_prune_keeps_the_newest_whole_ones(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, f"step_{step:08d}", step)
    (tmp_path / "step_00000040" / checkpoint.MANIFEST_FILE).unlink()
    (tmp_path / "keep_me").mkdir()
    checkpoint.prune(str(tmp_path), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep_me", "step_00000020", "step_00000030"]


WRITER = """
import sys, torch
from supmer.train import checkpoint
origin = checkpoint.Origin(config_hash="c", backbone={}, store_fingerprint="s")
step = 0
while True:
    step += 1
    state = {"prompt": torch.full((200_000,), float(step)), "next_step": torch.tensor(step)}
    checkpoint.write(f"{sys.argv[1]}/step_{step:08d}", checkpoint.serialize(state), step, origin, "0")
    print(step, flush=True)
"""


@pytest.mark.slow
def test_killed_writer_always_leaves_its_last_finished_checkpoint(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        root = tmp_path / str(number)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert writer.stdout is not None
        finished = int(writer.stdout.readline())
        time.sleep(float(rng.uniform(0, 0.2)))
        writer.kill()
        finished = max([finished, *(int(line) for line in writer.stdout.read().split())])
        writer.wait()
        writer.stdout.close()
        newest = checkpoint.find_newest(str(root))
        assert newest is not None
        found = checkpoint.read(f"{root}/{newest}")
        assert found.manifest.step in (finished, finished + 1)
        assert torch.equal(found.state["prompt"], torch.full((200_000,), float(found.manifest.step)))
