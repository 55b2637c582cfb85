"""One job at a time in a run directory: two would overwrite each other's results."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from pyarrow import fs

from supmer import storage
from supmer.errors import UserError

MARK = "job.lock"
"""Where there are no locks: the name of the job that came last."""


@contextmanager
def sole_job(run_dir: str) -> Iterator[Callable[[], None]]:
    """Hold a run directory; yields a check that it is still held, to be called before each write.

    In a folder the operating system keeps the lock, which ends with the process, however that ends. Object stores have
    none: there a later job takes over, and the earlier one finds that at its next check.

    Raises:
        UserError: another job holds the folder, or (from the check) has taken over.
    """
    filesystem, path = storage.resolve(run_dir)
    if not isinstance(filesystem, fs.LocalFileSystem):
        yield _take_over(run_dir)
        return
    with storage.explained(run_dir, "locked"):
        os.makedirs(path, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor, run_dir)
        yield lambda: None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, run_dir: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{run_dir}: another job is at work there; wait for its end, or give another run.name (a few-shot job then "
            f"needs fewshot.from_run={run_dir})"
        ) from error
    except OSError:
        return  # some network file systems have no locks


def _take_over(run_dir: str) -> Callable[[], None]:
    own, uri = uuid4().hex.encode(), storage.join(run_dir, MARK)
    storage.write_bytes(uri, own)

    def check() -> None:
        try:
            mark = storage.read_bytes(uri)
        except (storage.StorageError, FileNotFoundError):
            return  # who cannot read there cannot write either: the next write says so
        if mark != own:
            raise UserError(f"{run_dir}: another job has begun there and has taken over; this one ends")

    return check
