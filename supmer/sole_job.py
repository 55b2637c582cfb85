"""One job at a time in a run directory: two would overwrite each other's results."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
        own, uri = uuid4().hex.encode(), storage.join(run_dir, MARK)
        storage.write_bytes(uri, own)

        def check() -> None:
            # Who cannot read there cannot write either: the next write says so.
            with suppress(storage.StorageError, FileNotFoundError):
                if storage.read_bytes(uri) != own:
                    raise UserError(f"{run_dir}: another job has begun there and has taken over; this one ends")

        yield check
        return
    with storage.explained(run_dir, "locked"):
        os.makedirs(path, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                hint = f"give another run.name (a few-shot job then needs fewshot.from_run={run_dir})"
                raise UserError(f"{run_dir}: another job is at work there; wait for its end, or {hint}") from error
        yield lambda: None
    finally:
        os.close(descriptor)
