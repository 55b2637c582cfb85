"""What a worker tells the driver and its loop when a node is announced to be taken away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train
from tiny_run import tiny_config

from supmer.meta.record import StepRecord
from supmer.train.hang import HangWatch
from supmer.train.loop import Request
from supmer.train.mailbox import Event, Job, Note, Reporter, open_mailbox
from supmer.train.run_dir import Origin, RunDirectory
from supmer.train.session import RaySession

pytestmark = pytest.mark.cluster

ROW = StepRecord(1, "train", 1.0, 1.0, 0.9, 0.5, 0.0, "nsp", 100, 0.1, 0.0)


@pytest.fixture(scope="module")
def mailbox(cluster: None) -> Any:
    return open_mailbox()


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud's announcement, as Ray Train hands it to a worker."""
    info = SimpleNamespace(preempted_ranks=[0], preempted_node_ids=["spot"])
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: info)


def session_of(rank: int, mailbox: Any, files: Path, folder: Path) -> RaySession:
    config = tiny_config(files)
    job = Job(config, RunDirectory(str(folder)), "", Origin(config_hash="", backbone={}, store_fingerprint=""), mailbox)
    return RaySession(job, rank, 0, Reporter(mailbox), HangWatch(60, print))


def collected(mailbox: Any) -> list[Event]:
    return list(ray.get(mailbox.collect.remote()))


@pytest.mark.usefixtures("announced")
def test_the_driver_hears_of_it_at_once(mailbox: Any, tiny_files: Path, tmp_path: Path) -> None:
    """With all that was waiting to be posted: the next letter may never come."""
    session = session_of(0, mailbox, tiny_files, tmp_path)
    rows = [replace(ROW, step=step) for step in (1, 2, 3)]
    for row in rows:
        session.record(row)
    assert session.request() == Request.SAVE
    warning = Note("the nodes of ranks [0] will be taken away; saving", is_warning=True)
    assert collected(mailbox) == [*rows, warning]
    assert session.request() == Request.NOTHING
    session.close()


@pytest.mark.usefixtures("announced")
def test_other_ranks_wish_the_same_and_are_silent(mailbox: Any, tiny_files: Path, tmp_path: Path) -> None:
    session = session_of(1, mailbox, tiny_files, tmp_path)
    session.record(ROW)
    assert session.request() == Request.SAVE
    assert collected(mailbox) == []
